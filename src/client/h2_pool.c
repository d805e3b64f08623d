/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups of connections, and turns to dial. A group lists connections with room before those without,
 * so that a call is found at once however many there are; they are filled one after the other, and what
 * a burst has opened beyond need becomes idle and ends.
 *
 * Those who wait are woken one for each place that becomes free; who finds it taken waits again, and
 * who was woken and leaves passes it on. That HTTP/2 is not spoken somewhere is remembered of some
 * hundred servers, for which nobody waits then.
 */
#include "client/h2_link_internal.h"

#include <poll.h>

#include "base/check.h"
#include "base/mem.h"

enum { UNSPOKEN_MAX = 256, LOOK_MAX = 8 };

#define TRUSTED_NS NS_PER_MS

static _Thread_local struct h2_thread mine;

#define SWEEP_NS NS_PER_S

static void on_sweep(struct timer *t);

struct h2_thread *h2_mine(void)
{
    if (mine.ready)
        return &mine;
    map_init(&mine.groups, false);
    list_init(&mine.links_flush);
    list_init(&mine.unspoken);
    mine.flush.run = h2_links_on_flush;
    timer_init(&mine.sweep, on_sweep);
    arena_init(&mine.scrap, 16384);
    mine.window_left = H2_CALLS_WINDOW;
    mine.ready = true;
    return &mine;
}

/* --- groups --- */

static struct h2_group *find_group(struct slice key)
{
    return mine.ready ? map_get(&mine.groups, key) : NULL;
}

struct h2_group *h2_group_of(struct slice key)
{
    struct h2_thread *t = h2_mine();
    struct h2_group *g = map_get(&t->groups, key);
    if (g == NULL) {
        g = NEW(struct h2_group);
        g->key = slice_of(slice_dup(key), key.len);
        list_init(&g->links);
        list_init(&g->turns);
        list_init(&g->unspoken);
        map_put(&t->groups, g->key, g);
    }
    if (!list_empty(&g->unspoken)) {
        list_remove(&g->unspoken);
        t->unspoken_count--;
    }
    g->holds++;
    return g;
}

static void free_group(struct h2_group *g)
{
    ASSERT(g->holds == 0 && list_empty(&g->links) && list_empty(&g->turns));
    map_remove(&mine.groups, g->key);
    mem_free((void *)(uintptr_t)g->key.ptr);
    mem_free(g);
}

static void forget_oldest(void)
{
    struct list *node = list_pop(&mine.unspoken);
    mine.unspoken_count--;
    free_group(CONTAINER_OF(node, struct h2_group, unspoken));
}

void h2_group_leave(struct h2_group *g)
{
    if (--g->holds > 0)
        return;
    if (g->known != H2_NOT_SPOKEN) {
        free_group(g);
        return;
    }
    list_append(&mine.unspoken, &g->unspoken);
    if (++mine.unspoken_count > UNSPOKEN_MAX)
        forget_oldest();
}

/* --- calls --- */

/* Its server's end may lie in the kernel behind the bytes that this turn deals with. What was heard from a
 * moment ago is taken for alive. */
static bool has_ended(const struct h2_link *c)
{
    struct pollfd p = {.fd = c->link->stream.fd, .events = POLLRDHUP};
    return h2_now() - c->heard_ns >= TRUSTED_NS && poll(&p, 1, 0) > 0;
}

struct h2_call *h2_call_take(struct slice key, const struct link_limits *limits, uint64_t after,
                             bool once, struct arena *arena)
{
    struct h2_group *g = find_group(key);
    int looked = 0;
    if (g == NULL)
        return NULL;
    LIST_FOR(n, &g->links)
    {
        struct h2_link *c = CONTAINER_OF(n, struct h2_link, node);
        if (c->serial > after && h2_link_room(c) > 0 && !(once && has_ended(c))) {
            c->options.limits = *limits;
            return h2_call_begin(c, arena);
        }
        if (++looked == LOOK_MAX && after == 0)
            break;
    }
    return NULL;
}

uint64_t h2_links_opened(void)
{
    return h2_mine()->serial;
}

/* --- turns --- */

static void wake(struct h2_group *g, unsigned n)
{
    for (struct list *node; n > 0 && (node = list_pop(&g->turns)) != NULL; n--)
        waiter_wake(&CONTAINER_OF(node, struct h2_turn, node)->waiter, OK);
}

void h2_group_wake(struct h2_group *g)
{
    unsigned room = 0;
    if (list_empty(&g->turns))
        return;
    LIST_FOR(n, &g->links)
    {
        struct h2_link *c = CONTAINER_OF(n, struct h2_link, node);
        unsigned more = h2_link_room(c);
        if (more == 0)
            break;
        room += more;
    }
    wake(g, room > 0 ? room : 1);
}

/* A connection whose server has not said yet how many calls it allows: it will in a moment. */
static bool awaits_settings(const struct h2_group *g)
{
    if (g->told > 0)
        return false;
    LIST_FOR(n, &g->links)
    {
        const struct h2_link *c = CONTAINER_OF(n, struct h2_link, node);
        if (!c->settled && !c->going && !c->options.single)
            return true;
    }
    return false;
}

bool h2_dial_begin(struct slice key, bool *fresh)
{
    struct h2_group *g = h2_group_of(key);
    *fresh = false;
    bool mine_now = (!g->dialing && !awaits_settings(g)) || g->known == H2_NOT_SPOKEN;
    if (mine_now && g->known != H2_NOT_SPOKEN) {
        g->dialing = *fresh = true;
        g->holds++;
    }
    h2_group_leave(g);
    return mine_now;
}

static void fail_all(struct h2_group *g, int status, const char *why)
{
    for (struct list *node; (node = list_pop(&g->turns)) != NULL;) {
        struct h2_turn *t = CONTAINER_OF(node, struct h2_turn, node);
        t->failed = true;
        t->status = status;
        size_t len = strnlen(why, sizeof t->why - 1);
        memcpy(t->why, why, len);
        t->why[len] = '\0';
        waiter_wake(&t->waiter, OK);
    }
}

void h2_dial_end(struct slice key, enum h2_known known, int status, const char *why)
{
    struct h2_group *g = h2_group_of(key);
    ASSERT(g->dialing);
    g->dialing = false;
    g->holds--;
    if (known != H2_UNKNOWN)
        g->known = known;
    if (why != NULL)
        fail_all(g, status, why);
    else if (known == H2_NOT_SPOKEN)
        wake(g, UINT32_MAX);
    else
        h2_group_wake(g);
    h2_group_leave(g);
}

enum err await_h2_turn(struct slice key, uint64_t deadline_ns, struct h2_turn *t)
{
    struct h2_group *g = h2_group_of(key);
    waiter_init(&t->waiter);
    t->failed = false;
    list_append(&g->turns, &t->node);
    enum err e = await_wake(&t->waiter, deadline_ns);
    bool woken = list_empty(&t->node);
    list_remove(&t->node);
    if (e != OK && woken && !t->failed)
        h2_group_wake(g); /* it was for somebody who stays */
    h2_group_leave(g);
    return e;
}

/* --- idle ones --- */

static bool is_over(const struct h2_link *c, uint64_t now, unsigned idle)
{
    const struct link_limits *l = &c->options.limits;
    uint64_t age = now - c->idle_ns;
    return mine.draining || (l->idle_timeout_ns > 0 && age >= l->idle_timeout_ns) ||
           (idle > l->idle_per_group && age >= SWEEP_NS) ||
           atomic_load_explicit(&c->link->endpoint->leaving, memory_order_relaxed);
}

static void rest(struct h2_link *c)
{
    c->rested = true;
    h2_reader_rest(&c->reader);
    hpack_decoder_trim(&c->decoder);
    hpack_encoder_rest(&c->encoder);
}

/* What it has to say before it ends is not taken. */
static bool is_stuck(const struct h2_link *c, uint64_t now)
{
    return c->calls == 0 && (c->closing || c->going) && c->sending != NULL &&
           now - c->blocked_ns >= H2_STALLED_NS;
}

static void sweep_link(struct h2_link *c, uint64_t now, unsigned *idle)
{
    if (!c->dead && is_stuck(c, now)) {
        h2_link_die(c, NULL);
        h2_link_settle(c);
        return;
    }
    if (c->dead || c->closing)
        return;
    if (!c->settled && now - c->opened_ns >= H2_SETTINGS_NS) {
        h2_link_fail(c, H2_SETTINGS_TIMEOUT, "the server sent no SETTINGS for 10 seconds");
        h2_link_settle(c);
        return;
    }
    if (c->calls > 0 || c->going)
        return;
    if (is_over(c, now, ++*idle)) {
        h2_link_retire(c);
        h2_link_settle(c);
    } else if (!c->rested && now - c->idle_ns >= 2 * SWEEP_NS) {
        rest(c);
    }
}

static void sweep_all(void)
{
    uint64_t now = h2_now();
    size_t at = 0;
    for (struct map_entry *e; (e = map_next(&mine.groups, &at)) != NULL;) {
        struct h2_group *g = e->value;
        unsigned idle = 0;
        if (list_empty(&g->links))
            continue;
        g->holds++;
        LIST_FOR_SAFE(n, &g->links)
            sweep_link(CONTAINER_OF(n, struct h2_link, node), now, &idle);
        h2_group_leave(g); /* removes the current entry at most */
    }
}

static void on_sweep(struct timer *t)
{
    sweep_all();
    if (mine.open > 0)
        timer_start(loop_self(), t, h2_now() + SWEEP_NS);
}

void h2_links_drain(void)
{
    h2_mine()->draining = true;
    sweep_all();
}

void h2_links_close(void)
{
    size_t at = 0;
    if (!mine.ready)
        return;
    timer_stop(&mine.sweep);
    for (struct map_entry *e; (e = map_next(&mine.groups, &at)) != NULL;) {
        struct h2_group *g = e->value;
        if (list_empty(&g->links))
            continue;
        g->holds++;
        LIST_FOR_SAFE(n, &g->links)
        {
            struct h2_link *c = CONTAINER_OF(n, struct h2_link, node);
            h2_link_die(c, NULL);
            h2_link_settle(c);
        }
        h2_group_leave(g);
    }
}

void h2_links_thread_deinit(void)
{
    if (!mine.ready)
        return;
    ASSERT(mine.open == 0 && mine.window_left == H2_CALLS_WINDOW);
    if (mine.flush_due)
        list_remove(&mine.flush.node);
    while (mine.unspoken_count > 0)
        forget_oldest();
    while (mine.calls != NULL) {
        struct h2_call *k = mine.calls;
        mine.calls = k->next;
        mem_free(k);
    }
    while (mine.outs != NULL) {
        struct h2_bytes *o = mine.outs;
        mine.outs = o->next;
        mem_free(o);
    }
    map_deinit(&mine.groups);
    arena_deinit(&mine.scrap);
    mem_free(mine.plain);
    mine = (struct h2_thread){0};
}

unsigned h2_links_open(void)
{
    return mine.open;
}
