/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers: one thread per core, each with a loop, its own listening sockets, connections and
 * caches; they share nothing but the generation, which nobody writes. The control thread gives
 * orders by mail.
 */
#pragma once

#include <pthread.h>
#include <semaphore.h>

#include "app/generation.h"
#include "wire/h1_conn.h"

enum { WORKERS_MAX = 128 };

struct worker;

/* A socket that a worker shall accept from; of an order. */
struct new_socket {
    struct slice key; /* of the generation's bound */
    int fd;           /* the worker's own from then on */
};

/* What is alive on a worker right now. */
struct worker_live {
    unsigned operations, fibers, connections, exchanges;
};

struct worker_order {
    struct mail mail;
    struct worker *worker;
    enum { ORDER_ADOPT, ORDER_DRAIN, ORDER_ABORT, ORDER_COUNT,
           ORDER_END } kind;
    struct generation *generation; /* ADOPT */
    const struct new_socket *sockets;
    size_t sockets_count;
    struct mail *drained; /* DRAIN: posted when the last connection and socket are gone */
    struct worker_live live; /* COUNT: the answer */
    sem_t *done; /* posted when it is carried out */
};

struct worker {
    unsigned index;
    pthread_t thread;
    enum loop_kind kind;
    struct loop *loop;
    struct h1_worker h1;
    struct generation *generation;
    struct list sites; /* struct worker_site */
    struct mail *drained; /* sent to `control` once */
    struct loop *control;
    sem_t started;
    enum err failed; /* why it could not start */
};

/* Starts the thread; returns when its loop runs. */
enum err worker_start(struct worker *, unsigned index, enum loop_kind, struct loop *control);

/* The order must stay until it is done. From the control thread. */
void worker_tell(struct worker *, struct worker_order *);

/* After ORDER_END. */
void worker_join(struct worker *);
