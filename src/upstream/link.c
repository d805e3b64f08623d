/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An idle link has an armed read that owns no buffer, so that a peer's close is seen at once and the
 * link dropped. The read stays armed when the link is taken: it is the read of the answer, too, so
 * that reuse costs no cancelled operation. Bytes that come while its user does something else (an
 * early answer during a long upload) are put aside.
 *
 * The limit of idle links per group counts those that nobody has wanted for a second: a burst that
 * ends at the same moment does not close what the next moment opens again. A timer that runs while
 * there are idle links looks once a second. A group without links is freed.
 */
#include "upstream/link.h"

#include <errno.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "loop/await.h"
#include "upstream/iobuf.h"

#define SWEEP_NS NS_PER_S
#define SHORT_SWEEP_NS (20 * NS_PER_MS) /* while links are limited: others may wait for them */
#define ROOM_PAUSE_NS (5 * NS_PER_MS)

enum { SHARE_EACH = 8 }; /* every such link is left to other threads, though this one wants it */

struct link_group {
    struct slice key;
    struct list idle;
    unsigned idle_count, count;
    int waiting; /* of this thread */
    unsigned given;
    struct link_limits limits;
};

struct link_wait {
    struct fiber *fiber;
    struct timer timer;
    struct slice bytes;
    int result;
    bool done;
};

static _Thread_local struct {
    struct map groups;
    struct timer sweep;
    unsigned idle;
    bool ready, draining;
} mine;

static void on_sweep(struct timer *t);
static void on_bytes(struct op *op, int result);

static void make_ready(void)
{
    if (mine.ready)
        return;
    map_init(&mine.groups, false);
    timer_init(&mine.sweep, on_sweep);
    mine.ready = true;
}

/* --- groups --- */

static struct link_group *group_of(struct slice key)
{
    make_ready();
    struct link_group *g = map_get(&mine.groups, key);
    if (g != NULL)
        return g;
    g = NEW(struct link_group);
    g->key = slice_of(slice_dup(key), key.len);
    list_init(&g->idle);
    map_put(&mine.groups, g->key, g);
    return g;
}

static void leave_group(struct link_group *g)
{
    if (--g->count > 0)
        return;
    map_remove(&mine.groups, g->key);
    mem_free((void *)(uintptr_t)g->key.ptr);
    mem_free(g);
}

static void leave_idle(struct link *l)
{
    list_remove(&l->node);
    l->idle = false;
    l->group->idle_count--;
    mine.idle--;
}

/* --- a link's life --- */

struct link *link_open(struct slice key, struct endpoint *endpoint, int fd)
{
    struct link *l = NEW(struct link);
    list_init(&l->node);
    l->op.on_done = on_bytes;
    l->group = group_of(key);
    l->group->count++;
    l->endpoint = endpoint;
    endpoint_hold(endpoint);
    l->fd = fd;
    l->end = 1;
    return l;
}

bool link_reserve(struct endpoint *e, const struct link_limits *limits)
{
    int before = atomic_fetch_add_explicit(&e->links, 1, memory_order_relaxed);
    if (limits->links == 0 || before < (int)limits->links)
        return true;
    link_unreserve(e);
    return false;
}

void link_unreserve(struct endpoint *e)
{
    atomic_fetch_sub_explicit(&e->links, 1, memory_order_relaxed);
}

static void free_link(struct link *l)
{
    ASSERT(!l->op.armed && l->wait == NULL);
    loop_close(loop_self(), l->fd);
    if (l->stash != NULL)
        iobuf_give(l->stash);
    if (l->group != NULL)
        leave_group(l->group);
    link_unreserve(l->endpoint);
    endpoint_unref(l->endpoint);
    mem_free(l);
}

void link_close(struct link *l)
{
    if (l->idle)
        leave_idle(l);
    l->closing = true;
    if (!l->op.armed) {
        free_link(l);
        return;
    }
    shutdown(l->fd, SHUT_RDWR); /* the peer shall know now */
    op_cancel(loop_self(), &l->op);
}

struct link *link_take(struct slice key)
{
    struct link_group *g = mine.ready ? map_get(&mine.groups, key) : NULL;
    if (g == NULL || list_empty(&g->idle))
        return NULL;
    struct link *l = CONTAINER_OF(g->idle.next, struct link, node);
    leave_idle(l);
    l->reused = true;
    return l;
}

/* Whether requests of other threads wait for links that this one could let go of. */
static bool wanted_elsewhere(const struct link_group *g, struct endpoint *e)
{
    return g->limits.links > 0 &&
           atomic_load_explicit(&e->waiting, memory_order_relaxed) > g->waiting;
}

enum err await_link_room(struct slice key, struct endpoint *e, const struct link_limits *limits,
                         struct link **taken)
{
    struct link_group *g = group_of(key);
    enum err err = OK;
    g->waiting++;
    g->count++; /* holds the group */
    atomic_fetch_add_explicit(&e->waiting, 1, memory_order_relaxed);
    *taken = NULL;
    while ((*taken = link_take(key)) == NULL && !link_reserve(e, limits)) {
        err = await_sleep(loop_now_ns(loop_self()) + ROOM_PAUSE_NS);
        if (err != OK)
            break;
    }
    atomic_fetch_sub_explicit(&e->waiting, 1, memory_order_relaxed);
    g->waiting--;
    leave_group(g);
    return err;
}

void link_give(struct link *l, const struct link_limits *limits)
{
    struct link_group *g = l->group;
    ASSERT(l->wait == NULL && !l->idle);
    if (mine.draining || link_has_news(l) ||
        (limits->idle_in_all > 0 && mine.idle >= limits->idle_in_all)) {
        link_close(l);
        return;
    }
    g->limits = *limits;
    if (wanted_elsewhere(g, l->endpoint) && (g->waiting == 0 || ++g->given % SHARE_EACH == 0)) {
        link_close(l);
        return;
    }
    if (!l->op.armed)
        op_recv_lent(loop_self(), &l->op, l->fd);
    l->idle = true;
    l->idle_ns = loop_now_ns(loop_self());
    list_prepend(&g->idle, &l->node);
    g->idle_count++;
    mine.idle++;
    uint64_t sweep = l->idle_ns + (limits->links > 0 ? SHORT_SWEEP_NS : SWEEP_NS);
    if (!timer_running(&mine.sweep) || mine.sweep.deadline_ns > sweep)
        timer_start(loop_self(), &mine.sweep, sweep);
}

/* --- bytes --- */

static void put_aside(struct link *l, int result)
{
    if (result <= 0) {
        l->end = result;
        return;
    }
    if (l->stash == NULL)
        l->stash = iobuf_take();
    memcpy(l->stash, l->op.lent.ptr, l->op.lent.len);
    l->early = slice_of(l->stash, l->op.lent.len);
}

static void on_bytes(struct op *op, int result)
{
    struct link *l = CONTAINER_OF(op, struct link, op);
    struct link_wait *w = l->wait;
    if (l->closing) {
        free_link(l);
    } else if (l->idle) { /* closed, or bytes that nobody asked for */
        leave_idle(l);
        free_link(l);
    } else if (w == NULL) {
        put_aside(l, result);
    } else {
        w->result = result;
        w->bytes = op->lent;
        w->done = true;
        fiber_resume(w->fiber); /* the link may be gone behind this */
    }
}

static void on_deadline(struct timer *t)
{
    fiber_resume(CONTAINER_OF(t, struct link_wait, timer)->fiber);
}

static enum err end_of(struct link *l, int result)
{
    l->end = result;
    return result == 0 ? ERR_CLOSED : err_from_errno(-result);
}

enum err await_link(struct link *l, uint64_t deadline_ns, struct slice *bytes)
{
    struct fiber *f = fiber_self();
    struct link_wait w = {.fiber = f};
    *bytes = l->early;
    l->early = SLICE_NONE;
    if (bytes->len > 0)
        return OK;
    if (l->end <= 0)
        return end_of(l, l->end);
    TRY(f->cancelled);
    if (!l->op.armed)
        op_recv_lent(loop_self(), &l->op, l->fd);
    timer_init(&w.timer, on_deadline);
    if (deadline_ns > 0)
        timer_start(loop_self(), &w.timer, deadline_ns);
    l->wait = &w;
    f->op = &l->op;
    fiber_suspend();
    f->op = NULL;
    l->wait = NULL;
    timer_stop(&w.timer);
    if (!w.done)
        return ERR_TIMEOUT;
    *bytes = w.bytes;
    if (w.result > 0)
        return OK;
    return f->cancelled != OK ? f->cancelled : end_of(l, w.result);
}

/* --- idle ones --- */

/* The oldest stand at the end. */
static void sweep_group(struct link_group *g, uint64_t now)
{
    while (!list_empty(&g->idle)) {
        struct link *l = CONTAINER_OF(g->idle.prev, struct link, node);
        uint64_t age = now - l->idle_ns;
        bool over = g->idle_count > g->limits.idle_per_group && age >= SWEEP_NS;
        bool wanted = wanted_elsewhere(g, l->endpoint);
        bool late = g->limits.idle_timeout_ns > 0 && age >= g->limits.idle_timeout_ns;
        if (!over && !late && !wanted)
            return;
        link_close(l); /* its read is armed: the link, and its group, go later */
    }
}

static void on_sweep(struct timer *t)
{
    uint64_t now = loop_now_ns(loop_self()), next = SWEEP_NS;
    size_t at = 0;
    for (struct map_entry *e; (e = map_next(&mine.groups, &at)) != NULL;) {
        struct link_group *g = e->value;
        sweep_group(g, now);
        if (g->limits.links > 0 && g->idle_count > 0)
            next = SHORT_SWEEP_NS;
    }
    if (mine.idle > 0)
        timer_start(loop_self(), t, now + next);
}

static void close_idle(void)
{
    size_t at = 0;
    for (struct map_entry *e; (e = map_next(&mine.groups, &at)) != NULL;) {
        struct link_group *g = e->value;
        for (unsigned left = g->idle_count; left > 0; left--)
            link_close(CONTAINER_OF(g->idle.next, struct link, node));
    }
}

void links_drain(void)
{
    make_ready();
    mine.draining = true;
    close_idle();
}

void links_thread_deinit(void)
{
    if (!mine.ready)
        return;
    close_idle();
    timer_stop(&mine.sweep);
    ASSERT(mine.idle == 0);
    loop_settle(loop_self()); /* what was armed is freed now, and the groups with it */
    map_deinit(&mine.groups);
    mine.ready = mine.draining = false;
}

unsigned links_idle(void)
{
    return mine.idle;
}
