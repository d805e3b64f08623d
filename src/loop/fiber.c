/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks come in slabs of sixteen, each with a guard page below (MADV_GUARD_INSTALL where the
 * kernel has it, which needs no mapping of its own, else mprotect). The struct lives at the top of
 * its own stack, so that a fiber is one object and starting one touches memory that is hot. Free
 * stacks are a stack themselves (last in, first out); beyond FIBER_KEEP_HOT they give their pages
 * back. The switch saves only what the ABI says a call preserves: see switch_*.S.
 */
#include "loop/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sanitizer.h"
#include "loop/loop_internal.h"

#ifdef SANITIZE_ADDRESS
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SANITIZE_THREAD
#include <sanitizer/tsan_interface.h>
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

struct fiber_slab {
    struct fiber_slab *next;
    char *memory;
};

enum { GUARD = 4096, STEP = FIBER_STACK + GUARD };

/* The frame that fiber_switch leaves on a suspended stack, in words, and which of them the
 * trampoline passes on: r12 of x86-64, x19 of aarch64. */
#ifdef __x86_64__
enum { FIBER_SAVED_WORDS = 6, FIBER_ARG_WORD = 3 };
#else
enum { FIBER_SAVED_WORDS = 20, FIBER_ARG_WORD = 0 };
#endif

/* Saves the callee-saved registers and the stack pointer at *save, and goes on at `to`. */
void fiber_switch(void **save, void *to);

/* First frame of a new fiber: calls fiber_main with the value that the switch restored. */
void fiber_trampoline(void);
void fiber_main(struct fiber *);

/* --- what the sanitizers must hear --- */

#ifdef SANITIZE_ADDRESS
static void leave_loop(struct fiber_pool *p, struct fiber *f)
{
    __sanitizer_start_switch_fiber(&p->loop_sanitizer, f->stack, FIBER_STACK);
}

static void back_on_loop(struct fiber_pool *p)
{
    __sanitizer_finish_switch_fiber(p->loop_sanitizer, NULL, NULL);
}

static void on_fiber(struct fiber_pool *p, struct fiber *f)
{
    __sanitizer_finish_switch_fiber(f->sanitizer, &p->loop_stack, &p->loop_stack_size);
}

static void leave_fiber(struct fiber_pool *p, struct fiber *f, bool for_good)
{
    __sanitizer_start_switch_fiber(for_good ? NULL : &f->sanitizer, p->loop_stack,
                                   p->loop_stack_size);
}
#elif defined(SANITIZE_THREAD)
/* Macros: between __tsan_switch_to_fiber and the switch itself no function may end. */
#define leave_loop(p, f) __tsan_switch_to_fiber((f)->sanitizer, 0)
#define back_on_loop(p) ((void)(p))
#define on_fiber(p, f) ((void)(p), (void)(f))
#define leave_fiber(p, f, for_good) __tsan_switch_to_fiber((p)->loop_sanitizer, 0)
#else
#define leave_loop(p, f) ((void)(p), (void)(f))
#define back_on_loop(p) ((void)(p))
#define on_fiber(p, f) ((void)(p), (void)(f))
#define leave_fiber(p, f, for_good) ((void)(p), (void)(f), (void)(for_good))
#endif

/* --- stacks --- */

void fiber_pool_init(struct fiber_pool *p)
{
    *p = (struct fiber_pool){.max = FIBER_MAX};
    list_init(&p->free);
    list_init(&p->live);
}

#ifdef SANITIZE_THREAD
static void begin_sanitizer(struct fiber_pool *p, struct fiber *f)
{
    p->loop_sanitizer = __tsan_get_current_fiber();
    f->sanitizer = __tsan_create_fiber(0);
}

static void end_sanitizer(struct fiber *f)
{
    __tsan_destroy_fiber(f->sanitizer);
}
#else
#define begin_sanitizer(p, f) ((void)(p), (void)(f))
#define end_sanitizer(f) ((void)(f))
#endif

void fiber_pool_deinit(struct fiber_pool *p)
{
    ASSERT(p->live_count == 0);
    while (p->slabs != NULL) {
        struct fiber_slab *slab = p->slabs;
        p->slabs = slab->next;
        UNPOISON(slab->memory, (size_t)STEP * FIBER_SLAB);
        munmap(slab->memory, (size_t)STEP * FIBER_SLAB);
        mem_free(slab);
    }
}

static bool guard(char *page)
{
    return madvise(page, GUARD, MADV_GUARD_INSTALL) == 0 || mprotect(page, GUARD, PROT_NONE) == 0;
}

static struct fiber *fiber_of_stack(char *stack)
{
    return (struct fiber *)(void *)(stack + FIBER_STACK - ((sizeof(struct fiber) + 63) & ~63u));
}

static bool add_slab(struct fiber_pool *p)
{
    size_t size = (size_t)STEP * FIBER_SLAB;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    madvise(memory, size, MADV_NOHUGEPAGE);
    unsigned before = p->free_count;
    for (int i = FIBER_SLAB - 1; i >= 0; i--) {
        char *stack = memory + (size_t)i * STEP + GUARD;
        if (!guard(stack - GUARD))
            continue; /* never used without its guard */
        struct fiber *f = fiber_of_stack(stack);
        *f = (struct fiber){.stack = stack};
        list_prepend(&p->free, &f->node);
        p->free_count++;
    }
    if (p->free_count == before) {
        munmap(memory, size);
        return false;
    }
    struct fiber_slab *slab = NEW(struct fiber_slab);
    *slab = (struct fiber_slab){p->slabs, memory};
    p->slabs = slab;
    return true;
}

static struct fiber *take_stack(struct fiber_pool *p)
{
    if (p->live_count >= p->max || (list_empty(&p->free) && !add_slab(p)))
        return NULL;
    p->free_count--;
    return CONTAINER_OF(list_pop(&p->free), struct fiber, node);
}

/* Debug builds look how deep each fiber went: one that comes near its guard is found before it meets
 * it with another compiler. Counted in pages that were ever touched. */
#ifdef LOOP_FAULTS
static void check_depth(const struct fiber *f)
{
    ASSERT(fiber_stack_used(f) + FIBER_RESERVE <= FIBER_STACK);
}
#else
#define check_depth(f) ((void)(f))
#endif

static void give_stack(struct fiber_pool *p, struct fiber *f)
{
    check_depth(f);
    list_remove(&f->node);
    p->live_count--;
    end_sanitizer(f);
    UNPOISON(f->stack, (size_t)((char *)f - f->stack));
    if (p->free_count >= FIBER_KEEP_HOT) { /* the top page, with the struct, stays */
        madvise(f->stack, FIBER_STACK - GUARD, MADV_DONTNEED);
        list_append(&p->free, &f->node);
    } else {
        list_prepend(&p->free, &f->node);
    }
    p->free_count++;
}

/* --- running --- */

struct fiber *fiber_self(void)
{
    struct loop *l = loop_self();
    return l != NULL ? l->fibers.current : NULL;
}

static void run(struct fiber_pool *p, struct fiber *f)
{
    ASSERT(p->current == NULL && !f->running);
    p->current = f;
    f->running = true;
    leave_loop(p, f);
    fiber_switch(&p->loop_sp, f->sp);
    back_on_loop(p);
    p->current = NULL;
    if (f->entry == NULL)
        give_stack(p, f);
}

/* A stack that looks as if fiber_switch had left it inside the trampoline. */
static void *first_frame(struct fiber *f)
{
    void **top = (void **)((uintptr_t)f & ~(uintptr_t)63);
#ifdef __x86_64__
    *--top = NULL; /* where a backtrace ends */
    *--top = NULL;
    *--top = (void *)fiber_trampoline;
    top -= FIBER_SAVED_WORDS;
    memset(top, 0, FIBER_SAVED_WORDS * sizeof *top);
#else
    top -= FIBER_SAVED_WORDS;
    memset(top, 0, FIBER_SAVED_WORDS * sizeof *top);
    top[11] = (void *)fiber_trampoline; /* x30 */
#endif
    top[FIBER_ARG_WORD] = f;
    return top;
}

enum err fiber_start(struct loop *l, void (*entry)(void *), void *arg)
{
    struct fiber_pool *p = &l->fibers;
    struct fiber *f = take_stack(p);
    if (f == NULL)
        return ERR_LIMIT;
    *f = (struct fiber){.stack = f->stack, .entry = entry, .arg = arg};
    begin_sanitizer(p, f);
    list_append(&p->live, &f->node);
    p->live_count++;
    f->sp = first_frame(f);
    run(p, f);
    return OK;
}

void fiber_main(struct fiber *f)
{
    struct fiber_pool *p = &loop_self()->fibers;
    on_fiber(p, f);
    f->entry(f->arg);
    f->entry = NULL; /* ended */
    f->running = false;
    leave_fiber(p, f, true);
    fiber_switch(&f->sp, p->loop_sp);
    UNREACHABLE();
}

void fiber_suspend(void)
{
    struct fiber_pool *p = &loop_self()->fibers;
    struct fiber *f = p->current;
    ASSERT(f != NULL);
    f->running = false;
    leave_fiber(p, f, false);
    fiber_switch(&f->sp, p->loop_sp);
    on_fiber(p, f);
}

void fiber_resume(struct fiber *f)
{
    run(&loop_self()->fibers, f);
}

void fiber_cancel(struct fiber *f, enum err why)
{
    if (f->cancelled != OK)
        return;
    f->cancelled = why;
    if (f->op != NULL)
        op_cancel(loop_self(), f->op);
    else if (f->interrupt != NULL)
        f->interrupt(f);
}

void fiber_set_max(struct loop *l, unsigned max)
{
    l->fibers.max = max;
}

unsigned fiber_live(const struct loop *l)
{
    return l->fibers.live_count;
}

size_t fiber_stack_used(const struct fiber *f)
{
    unsigned char resident[FIBER_STACK / GUARD];
    if (mincore(f->stack, FIBER_STACK, resident) != 0)
        return 0;
    size_t low = 0;
    while (low < sizeof resident && (resident[low] & 1) == 0)
        low++;
    return FIBER_STACK - low * GUARD;
}
