/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that are opened before anybody needs them ("warm_connections"): so many to each upstream,
 * by each worker, from the moment that a configuration is taken over, and again whenever there are fewer.
 * A timer looks twice a second while the configuration asks for that; whoever has too few gets a fiber
 * that opens the rest over the gateway's own transport, by a round without a client, and leaves them with
 * the idle ones. Who is unhealthy is left alone until it is well again; who could not be reached, for a
 * moment. Over HTTP/2 one connection is enough.
 *
 *   warm_begin (of a configuration) → on_look … → open (fiber) → link_give
 *   warm_begin of another, or the worker's end → fibers are cancelled, the last lets go of the generation
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "loop/await.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"

#define LOOK_NS (500 * NS_PER_MS)
#define AGAIN_NS (3 * NS_PER_S) /* after one that could not be opened */

enum { OPENING_MAX = 32 };

/* One upstream of one gateway. */
struct place {
    struct warm_set *set;
    const struct gateway *gateway;
    uint32_t index;
    struct fiber *fiber; /* while it opens some */
    uint64_t not_before_ns;
};

struct warm_set {
    struct generation *generation;
    void (*let_go)(struct generation *);
    unsigned users; /* fibers, and the thread as long as this is its newest */
    size_t count;
    struct place places[];
};

static _Thread_local struct {
    struct warm_set *set; /* NULL: there is nothing to do */
    struct timer look;
    unsigned opening;
    bool ready;
} mine;

static void unuse(struct warm_set *s)
{
    if (--s->users > 0)
        return;
    s->let_go(s->generation);
    mem_free(s);
}

/* --- opening --- */

static unsigned wanted(const struct place *p)
{
    return p->gateway->overload.warm;
}

/* What is left of max_conns_per_host is not waited for: others may have it all, and requests want it. */
static bool has_room(const struct place *p)
{
    unsigned max = p->gateway->transport->limits.links;
    const struct endpoint *e = p->gateway->upstreams[p->index].endpoint;
    return max == 0 || atomic_load_explicit(&e->links, memory_order_relaxed) < (int)max;
}

static bool lacks(const struct place *p, uint64_t now_ns)
{
    return links_of(p->gateway->targets[p->index].address.key) < wanted(p) && has_room(p) &&
           upstream_well(&p->gateway->upstreams[p->index], now_ns);
}

struct visit {
    struct exchange exchange; /* nobody's: an arena with a name */
    struct round round;
};

/* False when none came about that stays. *shared: it is one that many requests share. */
static bool open_one(const struct place *p, struct arena *arena, bool *shared)
{
    struct visit *v = ARENA_NEW(arena, struct visit);
    struct round *r = &v->round;
    v->exchange.arena = arena;
    r->x = &v->exchange;
    r->g = p->gateway;
    r->upstream = &p->gateway->upstreams[p->index];
    r->address = p->gateway->targets[p->index].address;
    r->probe = r->watching = true; /* there is no client who could leave */
    r->why = "";
    transport_tls_name(r);
    bool fresh = !gateway_may_speak_h2(r) || links_of(r->address.key) > 0;
    if (transport_proxy_ask(r) != OK || gateway_connect(r, fresh) != OK)
        return false;
    *shared = r->call != NULL;
    if (*shared) {
        h2_call_end(r->call);
        return true;
    }
    unsigned count = links_of(r->address.key);
    link_give(r->link, &r->g->transport->limits);
    return links_of(r->address.key) == count;
}

static void open_all(void *arg)
{
    struct arena arena;
    struct place *p = arg;
    struct fiber *f = fiber_self();
    p->fiber = f;
    mine.opening++;
    arena_init(&arena, 8192);
    for (unsigned i = 0; i < wanted(p) && f->cancelled == OK; i++) {
        bool shared = false, opened = lacks(p, loop_now_ns(loop_self())) &&
                                      open_one(p, &arena, &shared);
        p->not_before_ns = opened ? 0 : clock_mono_ns() + AGAIN_NS;
        if (!opened || shared)
            break;
    }
    arena_deinit(&arena);
    mine.opening--;
    p->fiber = NULL;
    unuse(p->set);
}

static void on_look(struct timer *t)
{
    struct warm_set *s = mine.set;
    uint64_t now = loop_now_ns(loop_self());
    for (size_t i = 0; i < s->count && mine.opening < OPENING_MAX; i++) {
        struct place *p = &s->places[i];
        if (p->fiber != NULL || now < p->not_before_ns || !lacks(p, now))
            continue;
        s->users++;
        if (fiber_start(loop_self(), open_all, p) != OK)
            s->users--;
    }
    timer_start(loop_self(), t, now + LOOK_NS);
}

/* --- configurations --- */

static void end_set(void)
{
    struct warm_set *s = mine.set;
    if (s == NULL)
        return;
    mine.set = NULL;
    timer_stop(&mine.look);
    for (size_t i = 0; i < s->count; i++)
        if (s->places[i].fiber != NULL)
            fiber_cancel(s->places[i].fiber, ERR_CANCELLED);
    unuse(s);
}

static size_t count_places(const struct gateway *g)
{
    size_t count = 0;
    for (; g != NULL; g = g->next)
        count += g->overload.warm > 0 ? g->upstreams_count : 0;
    return count;
}

void warm_begin(const struct provision *p, struct generation *generation,
                void (*keep)(struct generation *), void (*let_go)(struct generation *))
{
    size_t count = count_places(p->gateways);
    end_set();
    if (count == 0)
        return;
    struct warm_set *s = mem_zalloc(sizeof *s + count * sizeof s->places[0]);
    for (const struct gateway *g = p->gateways; g != NULL; g = g->next)
        for (uint32_t i = 0; g->overload.warm > 0 && i < g->upstreams_count; i++)
            s->places[s->count++] = (struct place){.set = s, .gateway = g, .index = i};
    s->generation = generation;
    s->let_go = let_go;
    s->users = 1;
    keep(generation);
    if (!mine.ready)
        timer_init(&mine.look, on_look);
    mine.ready = true;
    mine.set = s;
    timer_start(loop_self(), &mine.look, loop_now_ns(loop_self()));
}

void warm_drain(void)
{
    end_set();
}

void warm_thread_deinit(void)
{
    end_set();
    if (mine.opening > 0) {
        links_drain(); /* idle ones would never settle */
        loop_settle(loop_self());
    }
    ASSERT(mine.opening == 0);
    mine.ready = false;
}
