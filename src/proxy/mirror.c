/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy of a share of requests to another upstream, whose answers are dropped (ours, not Caddy's):
 *
 *     {"mirror": {"dial": "next:3000", "share": 0.1, "max_requests": 64, "timeout": "5s",
 *                 "max_body": 65536, "headers": {"set": …}, "transport": {…}}}
 *
 * Nothing that the mirror does can be noticed by who sent the request. What goes up is copied into an
 * arena of the copy's own, its fields as the real upstream gets them; a fiber that starts when this one
 * has gone on sends it, by a round without a client. The copy has limits of its own, is tried once, and
 * what there is no room for is left out and counted. A body is only ever copied from memory: one that is
 * still to come is looked at again when the request is over. What a FastCGI server is told of the request
 * (its environment) is made and copied at once, while the request is there; but what a root leads to
 * (resolve_root_symlink) is found out by the copy's fiber.
 *
 * A copy that is under way keeps its generation, for as long as its timeout at most; a worker that drains
 * gives up all of them.
 */
#include <stdatomic.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/uri.h"
#include "loop/await.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"

#define LOGGER "http.handlers.reverse_proxy.mirror"
#define TIMEOUT_NS (5 * (int64_t)NS_PER_S)

enum {
    COPIES_MAX = 64,
    COPIES_LIMIT = 4096,
    COPY_BODY = 65536,
    COPY_BODY_LIMIT = 16 << 20,
    ANSWER_MAX = 1 << 20, /* is read, so that the connection can be used again; what is longer closes it */
};

struct mirror {
    struct gateway gateway;   /* what a copy's round sees: a transport, and these changes of fields */
    struct upstream upstream;
    struct dial_address address;
    double share;             /* 0 … 1 */
    int copies_max;
    uint64_t timeout_ns;
    size_t body_max;
    const struct field_ops *upstreams_ops; /* of the gateway; NULL: none */
};

struct copy {
    struct list node; /* of this thread's */
    struct task task;
    struct timer limit;
    struct fiber *fiber;
    struct arena arena;
    struct exchange exchange; /* nobody's: an arena, and whom it was from */
    struct round round;
    const struct mirror *mirror;
    struct generation *generation;
    struct slice root;     /* what it leads to is found out on the copy's own fiber; empty: nothing to do */
    struct field *environment;
    bool late;  /* its timeout has passed */
    bool unfit; /* it cannot be put into the mirror's protocol */
};

static struct {
    atomic_uint_fast64_t sent, failed, busy, body;
} counts;

static struct {
    void (*keep)(struct generation *);
    void (*let_go)(struct generation *);
} holding;

static _Thread_local struct {
    struct list copies;
    bool ready, draining;
} mine;

void proxy_begin(void (*keep)(struct generation *), void (*let_go)(struct generation *))
{
    holding.keep = keep;
    holding.let_go = let_go;
}

static void count(atomic_uint_fast64_t *n)
{
    atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
}

/* --- configuration --- */

static enum err read_limits(struct mirror *m, const json_t *json, struct provision *p)
{
    int64_t n;
    const json_t *share = json_object_get(json, "share");
    m->share = share != NULL ? json_number_value(share) : 1;
    if (share != NULL && (!json_is_number(share) || !(m->share > 0 && m->share <= 1)))
        return provision_fail(p, "mirror: \"share\" must be a number above 0, and 1 at most");
    TRY(provision_int(p, json, "max_requests", COPIES_MAX, 1, COPIES_LIMIT, &n));
    m->copies_max = (int)n;
    TRY(provision_int(p, json, "max_body", COPY_BODY, 0, COPY_BODY_LIMIT, &n));
    m->body_max = (size_t)n;
    TRY(provision_duration(p, json, "timeout", TIMEOUT_NS, &n));
    if (n <= 0)
        return provision_fail(p, "mirror: \"timeout\" must be above 0");
    m->timeout_ns = (uint64_t)n;
    return OK;
}

static bool speaks_fastcgi(const struct http_transport *t)
{
    return t->protocol == &protocol_fastcgi;
}

static const struct fastcgi_transport *fastcgi_of(const struct mirror *m)
{
    return CONTAINER_OF(m->gateway.transport, struct fastcgi_transport, link);
}

/* The gateway's own transport, unless another one is named. */
static enum err read_transport(struct mirror *m, const struct gateway *g, const json_t *json,
                               struct provision *p)
{
    const struct module *module;
    void *cfg;
    const json_t *transport = json_object_get(json, "transport");
    m->gateway.transport = g->transport;
    if (transport != NULL && !json_is_null(transport)) {
        const char *protocol = json_string_value(json_object_get(transport, "protocol"));
        if (protocol == NULL)
            return provision_fail(p, "mirror: \"transport\" must name its \"protocol\"");
        TRY(provision_module(p, "http.reverse_proxy.transport", protocol, transport, &module, &cfg));
        transport_count_idle(cfg, json, p);
        m->gateway.transport = cfg;
    }
    return OK;
}

static enum err read_dial(struct mirror *m, const json_t *json, struct provision *p)
{
    struct address_error why;
    struct slice dial;
    TRY(provision_text(p, json, "dial", SLICE(""), &dial));
    if (slice_find(dial, '{') != SIZE_MAX)
        return provision_fail(p, "mirror: \"dial\" cannot hold placeholders");
    if (dial_address_read(&m->address, dial, m->gateway.transport, p->arena, &why) != OK)
        return provision_fail(p, "mirror: invalid dial address " SLICE_FMT ": %s", SLICE_ARG(dial),
                              why.text);
    m->upstream.endpoint =
        endpoint_ref(arena_join(p->arena, (struct slice[]){SLICE("mirror "), m->address.key}, 2));
    return m->upstream.endpoint != NULL
               ? OK
               : provision_fail(p, "more than %d different upstreams", ENDPOINTS_MAX);
}

enum err mirror_provision(struct gateway *g, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"dial", "share", "max_requests", "timeout", "max_body",
                                          "headers", "transport", NULL};
    static const char *const ops_members[] = {"add", "set", "delete", "replace", NULL};
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, members));
    struct mirror *m = ARENA_NEW(p->arena, struct mirror);
    const json_t *ops = json_object_get(json, "headers");
    g->mirror = m;
    TRY(read_limits(m, json, p));
    TRY(read_transport(m, g, json, p));
    TRY(read_dial(m, json, p));
    m->upstreams_ops = g->has_request_ops ? &g->request_ops : NULL;
    if (ops == NULL || json_is_null(ops))
        return OK;
    m->gateway.has_request_ops = true;
    TRY(provision_members(p, ops, ops_members));
    return field_ops_provision(&m->gateway.request_ops, ops, p);
}

void mirror_release(struct gateway *g)
{
    if (g->mirror == NULL)
        return;
    if (g->mirror->upstream.endpoint != NULL)
        endpoint_unref(g->mirror->upstream.endpoint);
    field_ops_release(&g->mirror->gateway.request_ops);
}

/* --- a copy's fiber --- */

static enum err drop_answer(struct round *r)
{
    struct slice piece;
    size_t dropped = 0;
    while (!r->answer->done && dropped < ANSWER_MAX) {
        TRY(r->protocol->read_body(r->answer, 0, &piece)); /* the limit ends it */
        dropped += piece.len;
    }
    return OK;
}

static enum err ask(struct copy *c)
{
    struct round *r = &c->round;
    if (c->root.len > 0 && !fastcgi_resolve_later(fastcgi_of(c->mirror), c->root, c->environment,
                                                  r->pairs_count, &c->arena))
        return gateway_round_error(r, FAILURE_UPSTREAM, 0, "the root cannot be resolved");
    transport_tls_name(r);
    transport_header_key(r);
    TRY(transport_proxy_ask(r));
    TRY(gateway_round_trip(r));
    enum err e = drop_answer(r);
    return e == OK ? OK : gateway_round_error(r, FAILURE_UPSTREAM, 0, "unexpected EOF");
}

static void tell_failure(const struct copy *c)
{
    count(&counts.failed);
    LOG(LOG_DEBUG, LOGGER, "mirroring failed", LOG_STR("upstream", c->round.address.text),
        LOG_CSTR("error", c->late ? "timeout" : c->round.why));
}

static void free_copy(struct copy *c)
{
    timer_stop(&c->limit);
    list_remove(&c->node);
    endpoint_done(c->mirror->upstream.endpoint);
    holding.let_go(c->generation);
    arena_deinit(&c->arena);
    mem_free(c);
}

static void on_limit(struct timer *t)
{
    struct copy *c = CONTAINER_OF(t, struct copy, limit);
    c->late = true;
    fiber_cancel(c->fiber, ERR_CANCELLED); /* a timeout would be taken for a wait's own, and waited on */
}

static void run(void *arg)
{
    struct copy *c = arg;
    c->fiber = fiber_self();
    timer_start(loop_self(), &c->limit, loop_now_ns(loop_self()) + c->mirror->timeout_ns);
    if (ask(c) != OK)
        tell_failure(c);
    gateway_drop_link(&c->round);
    free_copy(c);
}

static void on_turn(struct task *t)
{
    struct copy *c = CONTAINER_OF(t, struct copy, task);
    if (c->unfit) {
        tell_failure(c);
        free_copy(c);
        return;
    }
    if (!mine.draining && fiber_start(loop_self(), run, c) == OK)
        return;
    count(&counts.busy);
    free_copy(c);
}

/* --- making one --- */

/* As the upstream gets them (as if the mirror was it), and then the mirror's own changes. */
static struct fields make_fields(const struct round *r, const struct mirror *m)
{
    struct exchange *x = r->x;
    struct gateway *as_upstream = ARENA_NEW(x->arena, struct gateway);
    struct round *copy = ARENA_NEW(x->arena, struct round);
    *copy = *r;
    as_upstream->transport = m->gateway.transport;
    as_upstream->has_request_ops = m->upstreams_ops != NULL;
    if (m->upstreams_ops != NULL)
        as_upstream->request_ops = *m->upstreams_ops;
    copy->g = as_upstream;
    copy->address = m->address;
    copy->fields = gateway_fields(copy);
    if (m->gateway.has_request_ops) {
        as_upstream->has_request_ops = true;
        as_upstream->request_ops = m->gateway.request_ops;
        copy->fields = gateway_fields(copy);
    }
    return copy->fields;
}

static void copy_fields(struct copy *c, const struct fields *from)
{
    fields_init(&c->round.fields, &c->arena);
    for (uint32_t i = 0; i < from->count; i++)
        fields_add(&c->round.fields, arena_copy(&c->arena, from->items[i].name),
                   arena_copy(&c->arena, from->items[i].value));
}

static struct field *copy_pairs(struct arena *arena, const struct field *pairs, size_t count)
{
    struct field *to = ARENA_ARRAY(arena, struct field, count);
    for (size_t i = 0; i < count; i++)
        to[i] = (struct field){arena_copy(arena, pairs[i].name), arena_copy(arena, pairs[i].value)};
    return to;
}

/* What a FastCGI server is told: of the request itself, as it is now. */
static enum err make_environment(struct copy *c, const struct round *r, const struct fields *fs)
{
    const struct fastcgi_transport *t = fastcgi_of(c->mirror);
    struct gateway *plain = ARENA_NEW(r->x->arena, struct gateway);
    struct round *view = ARENA_NEW(r->x->arena, struct round), *to = &c->round;
    struct field *pairs;
    to->uri = r->uri;
    TRY(protocol_fastcgi.prepare(to));
    to->uri = (struct uri){0}; /* it goes with the request */
    plain->transport = c->mirror->gateway.transport;
    *view = *r;
    view->g = plain;
    view->fields = *fs;
    view->method = to->method;
    view->has_body = to->has_body;
    view->body_length = to->body_length;
    TRY(fastcgi_environment(view, t, false, &pairs, &to->pairs_count));
    to->pairs = c->environment = copy_pairs(&c->arena, pairs, to->pairs_count);
    if (t->resolve_root)
        c->root = arena_copy(&c->arena, fastcgi_root(view, t, r->x->arena));
    return OK;
}

/* From FastCGI to HTTP it goes as it was asked for: a path there is a script's. */
static struct slice target_of(const struct round *r, const struct mirror *m)
{
    bool other = speaks_fastcgi(r->g->transport) && !speaks_fastcgi(m->gateway.transport);
    return other ? uri_text(&r->x->req.original_uri, r->x->arena) : r->target;
}

static void fill_round(struct copy *c, const struct round *r)
{
    struct round *to = &c->round;
    struct fields fs = make_fields(r, c->mirror);
    exchange_addresses(r->x);
    c->exchange.arena = &c->arena;
    c->exchange.remote_host = arena_copy(&c->arena, r->x->remote_host);
    c->exchange.client_ip = arena_copy(&c->arena, r->x->client_ip);
    to->x = &c->exchange;
    to->g = &c->mirror->gateway;
    to->upstream = &c->mirror->upstream;
    to->address = c->mirror->address;
    to->probe = true;
    to->watching = true; /* there is no client who could leave */
    to->why = "";
    to->method = arena_copy(&c->arena, r->method);
    to->target = arena_copy(&c->arena, target_of(r, c->mirror));
    to->to_head = r->to_head;
    to->has_body = r->has_body;
    to->body = arena_copy(&c->arena, r->has_body ? r->body : SLICE_NONE);
    to->body_length = (int64_t)to->body.len;
    to->body_whole = r->body_whole;
    copy_fields(c, &fs);
    c->unfit = speaks_fastcgi(c->mirror->gateway.transport) && make_environment(c, r, &fs) != OK;
    if (c->unfit)
        to->why = "it cannot be told to a FastCGI server";
}

static void send_copy(const struct round *r)
{
    const struct mirror *m = r->g->mirror;
    struct copy *c = NEW(struct copy);
    arena_init(&c->arena, 4096);
    c->mirror = m;
    c->generation = r->x->generation;
    holding.keep(c->generation);
    fill_round(c, r);
    count(&counts.sent);
    list_append(&mine.copies, &c->node);
    timer_init(&c->limit, on_limit);
    c->task.run = on_turn;
    loop_defer(loop_self(), &c->task);
}

static bool take_place(const struct mirror *m)
{
    struct endpoint *e = m->upstream.endpoint;
    if (atomic_fetch_add_explicit(&e->requests, 1, memory_order_relaxed) < m->copies_max)
        return true;
    endpoint_count(e, -1);
    return false;
}

static void make_ready(void)
{
    if (!mine.ready)
        list_init(&mine.copies);
    mine.ready = true;
}

static void mirror_now(const struct round *r)
{
    if (r->has_body && (!r->body_whole || r->body.len > r->g->mirror->body_max))
        count(&counts.body);
    else if (take_place(r->g->mirror))
        send_copy(r);
    else
        count(&counts.busy);
}

void mirror_request(struct round *r)
{
    make_ready();
    if (mine.draining || r->upgrade || !balance_chance(r->g->mirror->share))
        return;
    if (r->has_body && !r->body_whole)
        r->mirror_due = true;
    else
        mirror_now(r);
}

void mirror_rest(struct round *r)
{
    if (!mine.draining)
        mirror_now(r);
}

/* --- metrics --- */

static void put_counter(struct buffer *b, const char *name, const char *help, uint64_t n)
{
    (void)!buffer_append_f(b, "# HELP %s %s\n# TYPE %s counter\n%s %llu\n", name, help, name, name,
                           (unsigned long long)n);
}

void mirrors_metrics_put(struct buffer *b)
{
    static const char dropped[] = "portico_reverse_proxy_mirror_dropped_total";
    put_counter(b, "portico_reverse_proxy_mirrored_total", "Copies of requests sent to mirrors.",
                atomic_load(&counts.sent));
    put_counter(b, "portico_reverse_proxy_mirror_failed_total",
                "Copies that got no whole answer in time.", atomic_load(&counts.failed));
    (void)!buffer_append_f(b, "# HELP %s Copies that were left out.\n# TYPE %s counter\n", dropped,
                           dropped);
    (void)!buffer_append_f(b, "%s{reason=\"busy\"} %llu\n%s{reason=\"body\"} %llu\n", dropped,
                           (unsigned long long)atomic_load(&counts.busy), dropped,
                           (unsigned long long)atomic_load(&counts.body));
}

/* --- a worker's end --- */

void mirrors_drain(void)
{
    make_ready();
    mine.draining = true;
    LIST_FOR_SAFE(n, &mine.copies)
    {
        struct copy *c = CONTAINER_OF(n, struct copy, node);
        if (c->fiber != NULL)
            fiber_cancel(c->fiber, ERR_CANCELLED);
    }
}

void mirrors_thread_deinit(void)
{
    mirrors_drain();
    if (!list_empty(&mine.copies)) {
        links_drain(); /* idle ones would never settle */
        loop_settle(loop_self());
    }
    ASSERT(list_empty(&mine.copies));
    mine.ready = mine.draining = false;
}
