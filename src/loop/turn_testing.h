/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop that makes so many turns and no more, for fuzzers.
 */
#pragma once

#include "loop/loop.h"

struct turning {
    struct loop *loop;
    unsigned left;
    struct task task;
};

static inline void turning_on_turn(struct task *t)
{
    struct turning *turning = CONTAINER_OF(t, struct turning, task);
    if (--turning->left == 0)
        loop_stop(turning->loop);
    else
        loop_defer_batch(turning->loop, t);
}

static inline void loop_turn(struct loop *loop, unsigned times)
{
    struct turning turning = {loop, times, {.run = turning_on_turn}};
    loop_defer_batch(loop, &turning.task);
    loop_run(loop);
}
