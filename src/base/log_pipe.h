/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes from one thread to one other without a lock: records of (destination, bytes), each in one
 * piece, in order. The writing side never waits; a record that does not fit is refused.
 */
#pragma once

#include <stdatomic.h>

#include "base/slice.h"

struct log_chunk;

struct log_pipe {
    struct log_chunk *write;        /* the writing thread's: the newest chunk … */
    struct log_chunk *spare;        /* … and emptied ones */
    size_t max;                     /* bytes of all chunks */
    _Atomic(struct log_chunk *) emptied; /* from the reading thread back to the writing one */
    _Atomic size_t held;            /* bytes of all chunks */
    struct log_chunk *read;         /* the reading thread's: the oldest chunk */
};

void log_pipe_init(struct log_pipe *, size_t max);
void log_pipe_deinit(struct log_pipe *); /* both threads have let go */

/* Copies a record in; false when it does not fit now. `to` is not NULL. */
bool log_pipe_put(struct log_pipe *, void *to, struct slice bytes);

/* Bytes that wait, roughly. */
static inline size_t log_pipe_held(const struct log_pipe *p)
{
    return atomic_load_explicit(&p->held, memory_order_relaxed);
}

/* The oldest record, which stays until log_pipe_drop; false when there is none. Reading thread. */
bool log_pipe_peek(struct log_pipe *, void **to, struct slice *bytes);
void log_pipe_drop(struct log_pipe *, struct slice bytes);
bool log_pipe_empty(struct log_pipe *);
