/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What loop.c shares with its two back ends.
 */
#pragma once

#include <pthread.h>

#include "loop/fiber.h"
#include "loop/loop.h"

enum {
    LENT_SIZE = 16384,
    WHEEL_SLOTS = 8192,
    WHEEL_TICK_MS = 4, /* one turn of the wheel: 32 s */
    TURN_SLICE = 4,    /* completions, behind which a batch runs */
};

struct loop_backend {
    enum err (*init)(struct loop *);
    void (*deinit)(struct loop *);
    void (*start)(struct loop *, struct op *);
    void (*cancel)(struct loop *, struct op *);
    void (*close)(struct loop *, int fd);
    /* Submits, waits until `wait_ms` at most (-1: without end, 0: not at all), reads the clock, and
     * completes: what completes may start timers, and the wait may have been long. */
    void (*turn)(struct loop *, int wait_ms);
};

extern const struct loop_backend uring_backend, epoll_backend;

struct wheel {
    struct list slots[WHEEL_SLOTS];
    uint64_t bitmap[WHEEL_SLOTS / 64];
    uint64_t tick; /* the last one that was run */
    unsigned count;
};

struct loop {
    const struct loop_backend *backend;
    void *state; /* the back end's */
    enum loop_kind kind;
    bool stopping;
    unsigned armed;
    uint64_t now_ns;
    int64_t wall_s;
    struct list deferred, batch;
    struct wheel wheel;
    struct fiber_pool fibers;
    int wake_fd; /* eventfd; written by mailbox_post */
    struct op wake_op;
    pthread_mutex_t mail_lock;
    struct mail *mail_first, **mail_last;
    bool mail_waiting;
};

void loop_read_clock(struct loop *);

/* Behind each of a turn's completions, `seen` of them so far: runs what was put off, and a batch behind
 * every few. The answers to the first of many requests must not wait for the last one's handler. */
void loop_completed(struct loop *, unsigned seen);

/* Ends an operation: counts, then on_done. For ops that go on (accept), `more` keeps it armed. */
void op_complete(struct loop *, struct op *, int result, bool more);
