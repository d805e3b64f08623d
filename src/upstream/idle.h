/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many idle connections a user keeps, whatever is spoken on them: a limit of all that one transport
 * has on this thread. When there are more, the one that has been idle for longest ends.
 */
#pragma once

#include "base/list.h"
#include "base/slice.h"

struct idle_count;

/* An idle connection of this thread: a link, or one of a protocol that keeps its own. Begins as
 * {.node = list_init'ed, .end}. */
struct idle {
    struct list node;           /* the one that has been for longest first */
    struct idle_count *count;   /* while it counts */
    void (*end)(struct idle *); /* there are too many: it is closed, then or soon */
};

/* Idle from now on, until the other, as one of those that have the same `of` (idle_name), of which there
 * may be `most`. 0: it does not count. */
void idle_begin(struct idle *, uint64_t of, uint32_t most);
void idle_end(struct idle *);

/* What those are called whose users say the same. */
uint64_t idle_name(struct slice);

/* At a thread's end; none may be idle. */
void idle_thread_deinit(void);

/* For tests: how many counts there are on this thread. */
unsigned idle_counts(void);
