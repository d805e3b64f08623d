/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fibers: functions that can wait. Each runs on a stack of its own, on one thread for its whole
 * life, and gives the thread back when it suspends. Stacks are recycled hot: the one that ended
 * last is used next. Only the await functions (loop/await.h) should suspend.
 */
#pragma once

#include "base/list.h"
#include "base/slice.h"

struct loop;
struct op;

enum {
    FIBER_STACK = 64 * 1024, /* usable bytes; a guard page lies below */
    FIBER_RESERVE = 8 * 1024, /* no fiber may come nearer to its guard: debug builds assert it */
    FIBER_SLAB = 16,         /* stacks mapped at a time */
    FIBER_KEEP_HOT = 512,    /* free stacks that keep their pages */
    FIBER_MAX = 8192,        /* per loop, unless fiber_set_max says otherwise */
};

struct fiber {
    struct list node;  /* of the pool: free or live */
    void *sp;          /* saved stack pointer while suspended */
    char *stack;       /* lowest usable byte */
    void (*entry)(void *);
    void *arg;
    enum err cancelled; /* not OK: every wait ends at once with it */
    struct op *op;      /* what it waits for, to be cancelled */
    void (*interrupt)(struct fiber *); /* ends a wait that is no op; NULL else */
    struct waiter *waiter;             /* … which this is */
    bool running;
    void *sanitizer;    /* fake stack or TSan fiber */
};

struct fiber_pool {
    struct list free, live;
    struct fiber *current;
    void *loop_sp; /* the thread's own stack while a fiber runs */
    unsigned free_count, live_count, max;
    struct fiber_slab *slabs;
    void *loop_sanitizer;
    const void *loop_stack; /* bounds, for AddressSanitizer */
    size_t loop_stack_size;
};

void fiber_pool_init(struct fiber_pool *);
void fiber_pool_deinit(struct fiber_pool *); /* none may live */

/* Runs `entry(arg)` on a fiber at once, until it first suspends or ends. Called from the loop's own
 * stack only. ERR_LIMIT when the budget is used up or no stack is to be had. */
enum err fiber_start(struct loop *, void (*entry)(void *), void *arg) MUST_USE;

/* The running fiber of this thread; NULL on the loop's own stack. */
struct fiber *fiber_self(void);

/* Gives the thread back until fiber_resume. */
void fiber_suspend(void);

/* Goes on with a suspended fiber until it suspends again or ends; from the loop's own stack. */
void fiber_resume(struct fiber *);

/* Ends the wait it is in, and each later one, with `why`: the peer left, or the server drains. */
void fiber_cancel(struct fiber *, enum err why);

void fiber_set_max(struct loop *, unsigned max);
unsigned fiber_live(const struct loop *);

/* Bytes of its stack that a fiber has ever touched, to the page: how near it came to the guard. */
size_t fiber_stack_used(const struct fiber *);
