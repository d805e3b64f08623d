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
 *
 * Upstreams that a source finds (a survey) are asked for at each look, on a fiber, which asks DNS as often
 * as requests would. Those that it finds no more are forgotten; their connections end as idle ones do. At
 * most FOUND_MAX of a source have warm connections.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "loop/await.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"

#define LOOK_NS (500 * NS_PER_MS)
#define AGAIN_NS (3 * NS_PER_S) /* after one that could not be opened, or found */

enum { OPENING_MAX = 32, FOUND_MAX = 256, ADDRESS_SIZE = 512 };

/* One upstream of one gateway. */
struct place {
    struct warm_set *set;
    const struct gateway *gateway;
    const struct upstream *upstream;
    const struct dial_address *address;
    struct fiber *fiber; /* while it opens some */
    uint64_t not_before_ns;
};

/* One that a source has found; holds its endpoint. */
struct found_place {
    struct list node;
    struct place place;
    struct upstream upstream;
    struct dial_address address;
    struct arena arena; /* of the address */
    bool there;         /* found by the last look */
};

/* A gateway with a source. */
struct survey {
    struct warm_set *set;
    const struct gateway *gateway;
    struct list found;
    uint32_t count;
    struct fiber *fiber; /* while it looks */
    uint64_t not_before_ns;
};

struct warm_set {
    struct generation *generation;
    void (*let_go)(struct generation *);
    unsigned users; /* fibers, and the thread as long as this is its newest */
    size_t count, surveys_count;
    struct place *places;
    struct survey *surveys;
};

static _Thread_local struct {
    struct warm_set *set; /* NULL: there is nothing to do */
    struct timer look;
    unsigned opening, looking;
    bool ready;
} mine;

static void free_found(struct survey *v, struct found_place *f)
{
    list_remove(&f->node);
    v->count--;
    endpoint_unref(f->upstream.endpoint);
    arena_deinit(&f->arena);
    mem_free(f);
}

static void free_set(struct warm_set *s)
{
    for (size_t i = 0; i < s->surveys_count; i++)
        LIST_FOR_SAFE(node, &s->surveys[i].found)
            free_found(&s->surveys[i], CONTAINER_OF(node, struct found_place, node));
    mem_free(s->surveys);
    mem_free(s->places);
    mem_free(s);
}

static void unuse(struct warm_set *s)
{
    if (--s->users > 0)
        return;
    s->let_go(s->generation);
    free_set(s);
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
    const struct endpoint *e = p->upstream->endpoint;
    return max == 0 || atomic_load_explicit(&e->links, memory_order_relaxed) < (int)max;
}

static bool lacks(const struct place *p, uint64_t now_ns)
{
    const struct endpoint *e = p->upstream->endpoint;
    return links_of(p->address->key) < wanted(p) && has_room(p) &&
           !atomic_load_explicit(&e->leaving, memory_order_relaxed) &&
           upstream_well(p->upstream, now_ns);
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
    r->upstream = p->upstream;
    r->address = *p->address;
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
    struct warm_set *set = p->set;
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
    unuse(set);
}

static void begin_fiber(struct warm_set *s, void (*entry)(void *), void *arg)
{
    s->users++;
    if (fiber_start(loop_self(), entry, arg) != OK)
        s->users--;
}

static void look_at(struct place *p, uint64_t now_ns)
{
    if (mine.opening < OPENING_MAX && p->fiber == NULL && now_ns >= p->not_before_ns &&
        lacks(p, now_ns))
        begin_fiber(p->set, open_all, p);
}

/* --- upstreams that a source finds --- */

static struct found_place *place_of(const struct survey *v, const struct endpoint *e)
{
    for (struct list *n = v->found.next; n != &v->found; n = n->next)
        if (CONTAINER_OF(n, struct found_place, node)->upstream.endpoint == e)
            return CONTAINER_OF(n, struct found_place, node);
    return NULL;
}

/* As many as the transport keeps connections for. */
static bool has_place(const struct survey *v)
{
    const struct gateway *g = v->gateway;
    uint32_t kept = g->transport->limits.idle_in_all;
    return v->count < FOUND_MAX && (kept == 0 || (v->count + 1) * g->overload.warm <= kept);
}

static struct found_place *add_place(struct survey *v, struct endpoint *e)
{
    struct address_error why;
    struct found_place *f = NEW(struct found_place);
    arena_init(&f->arena, ADDRESS_SIZE);
    if (dial_address_read(&f->address, e->name, v->gateway->transport, &f->arena, &why) != OK) {
        arena_deinit(&f->arena);
        mem_free(f);
        return NULL;
    }
    endpoint_hold(e);
    f->upstream = (struct upstream){.endpoint = e, .max_fails = v->gateway->max_fails};
    f->place = (struct place){.set = v->set, .gateway = v->gateway, .upstream = &f->upstream,
                              .address = &f->address};
    list_init(&f->node);
    list_append(&v->found, &f->node);
    v->count++;
    return f;
}

/* True when there are others than before. */
static bool take_found(struct survey *v, const struct found_upstreams *found)
{
    bool news = false;
    struct outliers *outliers = v->gateway->overload.found;
    for (struct list *n = v->found.next; n != &v->found; n = n->next)
        CONTAINER_OF(n, struct found_place, node)->there = false;
    for (uint32_t i = 0; i < found->count; i++) {
        struct found_place *f = place_of(v, found->endpoints[i]);
        if (f == NULL && has_place(v)) {
            f = add_place(v, found->endpoints[i]);
            news |= f != NULL; /* else each look would call for the next at once */
        }
        if (f == NULL)
            continue;
        f->there = true;
        f->upstream.outlier = outliers != NULL ? outlier_of(outliers, f->upstream.endpoint) : NULL;
    }
    LIST_FOR_SAFE(node, &v->found)
    {
        struct found_place *f = CONTAINER_OF(node, struct found_place, node);
        if (!f->there && f->place.fiber == NULL)
            free_found(v, f);
    }
    return news;
}

/* *news: there are others than before. */
static enum err find_now(struct survey *v, struct arena *arena, bool *news)
{
    const struct gateway *g = v->gateway;
    struct exchange *nobody = ARENA_NEW(arena, struct exchange);
    struct found_upstreams found = {.only_looked = true};
    const char *why;
    nobody->arena = arena;
    if (g->source->unsettled != NULL && g->source->unsettled(g->source_cfg, nobody))
        TRY(g->source->settle(g->source_cfg, nobody));
    enum err e = g->source->find(g->source_cfg, nobody, &found, &why);
    if (e == OK && fiber_self()->cancelled == OK)
        *news = take_found(v, &found);
    for (struct exchange_hook *h = nobody->hooks; h != NULL; h = h->next)
        h->run(nobody, h->arg);
    return e;
}

static void survey(void *arg)
{
    struct arena arena;
    struct survey *v = arg;
    struct warm_set *set = v->set;
    bool news = false;
    v->fiber = fiber_self();
    mine.looking++;
    arena_init(&arena, 8192);
    v->not_before_ns = find_now(v, &arena, &news) == OK ? 0 : clock_mono_ns() + AGAIN_NS;
    arena_deinit(&arena);
    mine.looking--;
    v->fiber = NULL;
    if (news && set == mine.set) /* this is no loop's stack, which fibers are started on */
        timer_start(loop_self(), &mine.look, loop_now_ns(loop_self()));
    unuse(set);
}

static void look_for(struct survey *v, uint64_t now_ns)
{
    for (struct list *n = v->found.next; n != &v->found; n = n->next)
        look_at(&CONTAINER_OF(n, struct found_place, node)->place, now_ns);
    if (v->fiber == NULL && now_ns >= v->not_before_ns)
        begin_fiber(v->set, survey, v);
}

static void on_look(struct timer *t)
{
    struct warm_set *s = mine.set;
    uint64_t now = loop_now_ns(loop_self());
    timer_start(loop_self(), t, now + LOOK_NS);
    for (size_t i = 0; i < s->count; i++)
        look_at(&s->places[i], now);
    for (size_t i = 0; i < s->surveys_count; i++)
        look_for(&s->surveys[i], now);
}

/* --- configurations --- */

static void cancel(struct fiber *f)
{
    if (f != NULL)
        fiber_cancel(f, ERR_CANCELLED);
}

static void end_set(void)
{
    struct warm_set *s = mine.set;
    if (s == NULL)
        return;
    mine.set = NULL;
    timer_stop(&mine.look);
    for (size_t i = 0; i < s->count; i++)
        cancel(s->places[i].fiber);
    for (size_t i = 0; i < s->surveys_count; i++) {
        struct survey *v = &s->surveys[i];
        cancel(v->fiber);
        for (struct list *n = v->found.next; n != &v->found; n = n->next)
            cancel(CONTAINER_OF(n, struct found_place, node)->place.fiber);
    }
    unuse(s);
}

static void add_gateway(struct warm_set *s, const struct gateway *g)
{
    if (g->source != NULL) {
        struct survey *v = &s->surveys[s->surveys_count++];
        *v = (struct survey){.set = s, .gateway = g};
        list_init(&v->found);
        return;
    }
    for (uint32_t i = 0; i < g->upstreams_count; i++)
        s->places[s->count++] = (struct place){.set = s, .gateway = g, .upstream = &g->upstreams[i],
                                               .address = &g->targets[i].address};
}

static struct warm_set *make_set(const struct gateway *gateways)
{
    size_t places = 0, surveys = 0;
    for (const struct gateway *g = gateways; g != NULL; g = g->next) {
        bool warm = g->overload.warm > 0;
        places += warm && g->source == NULL ? g->upstreams_count : 0;
        surveys += warm && g->source != NULL;
    }
    if (places + surveys == 0)
        return NULL;
    struct warm_set *s = NEW(struct warm_set);
    s->places = mem_zalloc((places + 1) * sizeof *s->places);
    s->surveys = mem_zalloc((surveys + 1) * sizeof *s->surveys);
    for (const struct gateway *g = gateways; g != NULL; g = g->next)
        if (g->overload.warm > 0)
            add_gateway(s, g);
    return s;
}

void warm_begin(const struct provision *p, struct generation *generation,
                void (*keep)(struct generation *), void (*let_go)(struct generation *))
{
    end_set();
    struct warm_set *s = make_set(p->gateways);
    if (s == NULL)
        return;
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
    if (mine.opening + mine.looking > 0) {
        links_drain(); /* idle ones would never settle */
        loop_settle(loop_self());
    }
    ASSERT(mine.opening + mine.looking == 0);
    mine.ready = false;
}
