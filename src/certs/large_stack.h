/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work that recurses or needs much stack: on the loop's own one when this is a fiber's.
 */
#pragma once

#include "loop/await.h"

static inline void on_large_stack(void (*function)(void *), void *arg)
{
    if (fiber_self() != NULL)
        await_on_loop(function, arg);
    else
        function(arg);
}
