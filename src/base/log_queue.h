/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way from the threads that log to the one thread that writes. Each logging thread has a pipe
 * of its own; the log thread empties the pipes into what each writer has pending and writes that in
 * large pieces. Whoever logs makes no system call but one, when the log thread sleeps, and never
 * waits unless its log is told to.
 */
#pragma once

#include <stdatomic.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/list.h"
#include "base/log_pipe.h"

struct log_writer;

/* All on the log thread. */
struct log_writer_type {
    /* Writes what goes now without waiting. ERR_TIMEOUT: no more now, see poll_fd; any other error
     * is told and tried again after a pause. *taken counts also before an error. */
    enum err (*write)(struct log_writer *, struct slice, size_t *taken);
    int (*poll_fd)(struct log_writer *);        /* writable when it goes on; -1: try later */
    void (*tick)(struct log_writer *, int64_t wall_ns); /* now and then; may be NULL */
    void (*close)(struct log_writer *);         /* the end: closes and frees it */
    void (*told)(struct log_writer *, void *message); /* of log_queue_tell; may be NULL */
};

struct log_writer {
    const struct log_writer_type *type;
    const char *name;       /* for people: "stderr", "/var/log/x.log"; the writer's own */
    bool packets;           /* `write` gets one line at a time */
    unsigned refs;          /* the opener's */
    _Atomic uint64_t dropped;
    _Atomic bool gave_up;   /* somebody waited in vain: nobody waits again before it has moved */
    /* The log thread's. */
    struct list node;
    struct buffer pending;
    size_t pending_at;
    uint64_t retry_ns, drops_seen, drops_told, drops_ns;
    bool stuck, closing, failing;
    uint64_t close_by_ns;
};

enum {
    LOG_PENDING_MAX = 8 << 20,  /* bytes that wait for one writer */
    LOG_LINE_MAX = 512 << 10,   /* a longer line is made shorter, or counts as dropped */
};

/* Starts the log thread; before any thread that logs. */
enum err log_queue_start(void);

/* Empties everything, for at most `limit_ns`, and ends the thread. False when bytes were left. */
bool log_queue_stop(uint64_t limit_ns);

/* Takes a writer over; its `type`, `name` and `packets` are set. */
void log_queue_add(struct log_writer *);

/* Hands the writer something to be going on with, such as new options; it becomes the writer's. */
void log_queue_tell(struct log_writer *, void *message);

/* Writes what was put before, then closes. Nobody puts to it any more. */
void log_queue_close(struct log_writer *);

/* A whole line. False when it was dropped, and counted. `may_wait`: up to LOG_WAIT_NS. */
bool log_queue_put(struct log_writer *, struct slice line, bool may_wait);
#define LOG_WAIT_NS UINT64_C(100000000)

/* Lines dropped since the start. */
uint64_t log_queue_dropped(void);

/* The calling thread's memory for making lines. */
struct buffer *log_queue_scratch(void);
struct arena *log_queue_arena(void); /* emptied by whoever made the line; after the scratch */

/* While a thread uses something that another may free, it says so; log_unused waits until nobody
 * does. */
void log_using(const void *);
void log_unused(const void *);
