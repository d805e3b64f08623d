/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of it runs on the control thread: a timer for each upstream under one check, and a fiber while
 * a question is under way. The question goes out over the gateway's own transport, by a round
 * without a client: what reaches an upstream for a request (TLS, proxies, resolvers, the PROXY
 * header) reaches it for a check. HTTP itself is client/fetch.c.
 *
 *   adopt   → next (timer) → ask (fiber) → judge → next …
 *   adopt of another configuration → what it does not name is cancelled; what it names goes on with
 *   what is known of it, and is asked at once
 *
 * A fiber reads its generation, and keeps it. Failures count in a row: `fails` of them make an
 * upstream unhealthy, then `passes` successes make it healthy again. The fiber's limit cancels it, so
 * that whatever it waits for, the check ends in time.
 */
#include "proxy/health_check.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "http/events.h"
#include "http/regexp.h"
#include "loop/await.h"
#include "proxy/gateway.h"

#define LOGGER "http.handlers.reverse_proxy.health_checker.active"
#define ORIGIN "http.handlers.reverse_proxy"

enum { STATES_MAX = 65536, ASKING_MAX = 128, REDIRECTS = 10 };

static struct {
    struct map states; /* by key */
    struct list waiting;
    unsigned asking;
    bool ready;
    struct generation *generation; /* whose checks run */
    void (*keep)(struct generation *);
    void (*let_go)(struct generation *);
    void (*stopped)(void);
} checks;

/* --- states --- */

static void on_next(struct timer *t);
static void on_limit(struct timer *t);

struct health_state *health_state_ref(struct slice key)
{
    if (!checks.ready) {
        map_init(&checks.states, false);
        list_init(&checks.waiting);
    }
    checks.ready = true;
    struct health_state *s = map_get(&checks.states, key);
    if (s != NULL) {
        s->refs++;
        return s;
    }
    if (checks.states.count == STATES_MAX)
        return NULL;
    s = NEW(struct health_state);
    s->key = slice_of(slice_dup(key), key.len);
    s->refs = 1;
    list_init(&s->waiting);
    timer_init(&s->next, on_next);
    timer_init(&s->limit, on_limit);
    map_put(&checks.states, s->key, s);
    return s;
}

void health_state_unref(struct health_state *s)
{
    if (--s->refs > 0)
        return;
    ASSERT(s->fiber == NULL && s->target == NULL);
    map_remove(&checks.states, s->key);
    mem_free((void *)(uintptr_t)s->key.ptr);
    mem_free(s);
    if (checks.states.count > 0)
        return;
    map_deinit(&checks.states);
    checks.ready = false;
}

/* --- the verdict --- */

static void judge(struct health_state *s, const struct active_target *t, bool passed,
                  struct slice host)
{
    const struct active_health *h = t->health;
    bool unhealthy = atomic_load(&s->unhealthy);
    s->passes = passed ? s->passes + 1 : 0;
    s->fails = passed ? 0 : s->fails + 1;
    if (!unhealthy && s->fails >= h->fails) {
        atomic_store(&s->unhealthy, true);
        s->passes = s->fails = 0;
        LOG(LOG_WARN, LOGGER, "host is down", LOG_STR("host", host));
        events_emit("unhealthy", ORIGIN, &LOG_STR("host", host), 1);
    } else if (unhealthy && s->passes >= h->passes) {
        endpoint_came_back(h->gateway->upstreams[t->index].endpoint, clock_mono_ns());
        atomic_store(&s->unhealthy, false);
        s->passes = s->fails = 0;
        LOG(LOG_INFO, LOGGER, "host is up", LOG_STR("host", host));
        events_emit("healthy", ORIGIN, &LOG_STR("host", host), 1);
    }
}

static bool status_fits(int64_t wanted, int status)
{
    if (wanted == 0)
        wanted = 2;
    return wanted < 100 ? status / 100 == wanted : status == wanted;
}

static bool answer_fits(const struct active_health *h, enum err e, const struct fetch_answer *a,
                        struct slice host)
{
    struct slice groups[REGEXP_GROUPS_MAX];
    size_t n = 0;
    if (a->status == 0) {
        LOG(LOG_INFO, LOGGER, "HTTP request failed", LOG_STR("host", host),
            LOG_CSTR("error", a->why));
        return false;
    }
    if (!status_fits(h->status, a->status)) {
        if (h->status > 0)
            LOG(LOG_INFO, LOGGER, "unexpected status code", LOG_NUM("status_code", a->status),
                LOG_STR("host", host));
        else
            LOG(LOG_INFO, LOGGER, "status code out of tolerances",
                LOG_NUM("status_code", a->status), LOG_STR("host", host));
        return false;
    }
    if (h->body_matches == NULL)
        return true;
    if (e != OK) {
        LOG(LOG_INFO, LOGGER, "failed to read response body", LOG_STR("host", host),
            LOG_CSTR("error", a->why));
        return false;
    }
    if (regexp_match(h->body_matches, a->body, groups, &n) == OK && n > 0)
        return true;
    LOG(LOG_INFO, LOGGER, "response body failed expectations", LOG_STR("host", host));
    return false;
}

/* --- one question --- */

struct question {
    struct health_state *state;
    const struct active_target *target;
    struct arena *arena;
    struct exchange exchange; /* nobody's: an arena with a name */
    struct upstream upstream;
    struct round round;
    struct slice network_address; /* the upstream's */
    struct slice host;            /* "10.0.0.1:80"; "localhost" of a Unix socket */
};

/* What an upstream's address is without a request. */
static bool read_address(struct question *q, struct dial_address *d)
{
    struct address_error why;
    const struct gateway *g = q->target->health->gateway;
    const struct template *t = &g->targets[q->target->index].text;
    struct slice text = template_expand_known_now(t->text, q->arena);
    q->network_address = text;
    if (!t->constant && slice_find(text, '{') != SIZE_MAX) {
        LOG(LOG_ERROR, LOGGER, "invalid use of placeholders in dial address for active health checks",
            LOG_STR("address", text));
        return false;
    }
    if (dial_address_read(d, text, g->transport, q->arena, &why) == OK)
        return true;
    LOG(LOG_ERROR, LOGGER, "bad network address", LOG_STR("address", text),
        LOG_CSTR("error", why.text));
    return false;
}

/* Whom to ask: the upstream, or what is asked in its place. */
static bool find_out_where(struct question *q)
{
    struct address_error why;
    struct dial_address *d = &q->round.address;
    const struct active_health *h = q->target->health;
    if (!read_address(q, d))
        return false;
    struct slice text = template_expand_now(h->upstream, q->arena);
    if (text.len == 0 && h->port > 0)
        text = address_join(SLICE_NONE, d->host, arena_printf(q->arena, "%u", h->port), q->arena);
    if (text.len > 0 &&
        dial_address_read(d, text, h->gateway->transport, q->arena, &why) != OK) {
        LOG(LOG_ERROR, LOGGER, "bad network address", LOG_STR("address", text),
            LOG_CSTR("error", why.text));
        return false;
    }
    q->host = d->is_unix ? SLICE("localhost") : d->hostport;
    return true;
}

static struct slice field_value(struct question *q, struct slice text)
{
    static const struct slice name = {"{http.reverse_proxy.active.target_upstream}", 43};
    struct slice out = SLICE("");
    for (size_t at; (at = slice_find_slice(text, name)) != SIZE_MAX;
         text = slice_skip(text, at + name.len))
        out = arena_join(q->arena,
                         (struct slice[]){out, template_expand_known_now(slice_take(text, at),
                                                                         q->arena),
                                          q->network_address}, 3);
    text = template_expand_known_now(text, q->arena);
    return arena_join(q->arena, (struct slice[]){out, text}, 2);
}

static void put_fields(struct question *q, struct fetch_request *request)
{
    const struct active_health *h = q->target->health;
    struct field *fields = ARENA_ARRAY(q->arena, struct field, h->fields_count + 1);
    size_t n = 0;
    bool named = false; /* only the first Host counts */
    for (size_t i = 0; i < h->fields_count; i++) {
        struct slice name = template_expand_now(h->fields[i].name, q->arena);
        bool host = slice_eq_nocase(name, SLICE("Host"));
        if (!host || !named)
            fields[n++] = (struct field){name, field_value(q, h->fields[i].value)};
        named |= host;
    }
    if (!named)
        fields[n++] = (struct field){SLICE("Host"), q->host};
    request->fields = fields;
    request->fields_count = n;
}

/* As a request of a client comes to its link. */
static enum err open_link(void *arg, struct fetch_opening *o)
{
    struct question *q = arg;
    struct round *r = &q->round;
    enum err e = gateway_connect(r, o->fresh);
    o->link = r->link;
    r->link = NULL;
    if (e == OK && o->link == NULL)
        e = ERR_UNSUPPORTED; /* it is a call of HTTP/2 */
    o->proxy = gateway_by_url(r) ? r->address.proxy : NULL;
    o->why = fiber_self()->cancelled == ERR_TIMEOUT ? "timed out while connecting" : r->why;
    return e;
}

static void begin_round(struct question *q)
{
    struct round *r = &q->round;
    q->exchange.arena = q->arena;
    q->upstream.endpoint = q->state->endpoint;
    r->x = &q->exchange;
    r->g = q->target->health->gateway;
    r->upstream = &q->upstream;
    r->probe = true;
    r->watching = true; /* there is no client who could leave */
    r->why = "";
}

static bool speaks_http1(const struct round *r)
{
    const struct http_transport *t = r->g->transport;
    return t->protocol == &protocol_http && (r->address.tls || !t->h2c);
}

static bool ask(struct question *q)
{
    const struct active_health *h = q->target->health;
    struct round *r = &q->round;
    begin_round(q);
    transport_tls_name(r);
    transport_header_key(r);
    struct fetch_answer *answer = ARENA_NEW(q->arena, struct fetch_answer);
    struct fetch_request request = {
        .method = h->method,
        .url = arena_printf(q->arena, "%s://" SLICE_FMT SLICE_FMT, r->address.tls ? "https" : "http",
                            SLICE_ARG(q->host), SLICE_ARG(h->target)),
        .body = template_expand_now(h->body, q->arena),
        .timeout_ns = h->timeout_ns,
        .answer_max = h->body_max,
        .redirects = h->follow ? REDIRECTS : 0,
        .open = open_link, .open_arg = q,
        .head_only = h->body_matches == NULL,
        .cut = true};
    enum err e = transport_proxy_ask(r);
    if (e != OK)
        snprintf(answer->why, sizeof answer->why, SLICE_FMT,
                 SLICE_ARG(slice_take(q->exchange.error.message, 500)));
    put_fields(q, &request);
    if (e == OK)
        e = speaks_http1(r) ? fetch(&request, q->arena, answer)
                            : health_probe(r, &request, answer);
    if (r->call != NULL) /* the handshake found HTTP/2 */
        e = health_probe(r, &request, answer);
    return answer_fits(h, e, answer, q->host);
}

/* --- turns --- */

static void end_asking(struct health_state *s)
{
    timer_stop(&s->limit);
    if (s->target != NULL && s->fiber->cancelled == ERR_CANCELLED) /* it was given up, and is back */
        timer_start(loop_self(), &s->next, loop_now_ns(loop_self()));
    s->fiber = NULL;
    checks.asking--;
    struct list *node = list_pop(&checks.waiting);
    if (node != NULL) {
        struct health_state *other = CONTAINER_OF(node, struct health_state, waiting);
        timer_start(loop_self(), &other->next, loop_now_ns(loop_self()));
    }
}

static void run(void *arg)
{
    struct arena arena;
    struct health_state *s = arg;
    struct generation *mine = checks.generation;
    void (*let_go)(struct generation *) = checks.let_go;
    checks.keep(mine);
    s->fiber = fiber_self();
    arena_init(&arena, 16384);
    struct question *q = ARENA_NEW(&arena, struct question);
    q->state = s;
    q->target = s->target;
    q->arena = &arena;
    s->endpoint = endpoint_ref(arena_join(&arena, (struct slice[]){SLICE("health "), s->key}, 2));
    if (s->endpoint != NULL && find_out_where(q)) {
        bool passed = ask(q);
        if (s->fiber->cancelled != ERR_CANCELLED)
            judge(s, q->target, passed, q->host);
    }
    if (s->endpoint != NULL)
        endpoint_unref(s->endpoint);
    arena_deinit(&arena);
    end_asking(s);
    let_go(mine);
    if (checks.stopped != NULL && checks.asking == 0)
        checks.stopped();
}

static void start_asking(struct health_state *s)
{
    const struct active_health *h = s->target->health;
    uint64_t now = clock_mono_ns();
    timer_start(loop_self(), &s->next, now + h->interval_ns);
    if (s->fiber != NULL)
        return;
    if (checks.asking == ASKING_MAX) {
        list_remove(&s->waiting);
        list_append(&checks.waiting, &s->waiting);
        timer_stop(&s->next);
        return;
    }
    checks.asking++;
    timer_start(loop_self(), &s->limit, now + h->timeout_ns);
    if (fiber_start(loop_self(), run, s) == OK)
        return;
    timer_stop(&s->limit); /* at the next interval there may be one */
    checks.asking--;
}

static void on_next(struct timer *t)
{
    start_asking(CONTAINER_OF(t, struct health_state, next));
}

static void on_limit(struct timer *t)
{
    struct health_state *s = CONTAINER_OF(t, struct health_state, limit);
    if (s->fiber != NULL && s->fiber->cancelled == OK)
        fiber_cancel(s->fiber, ERR_TIMEOUT);
}

/* --- whose turn it is --- */

static void stop_asking(struct health_state *s)
{
    timer_stop(&s->next);
    list_remove(&s->waiting);
    if (s->fiber != NULL && s->fiber->cancelled == OK)
        fiber_cancel(s->fiber, ERR_CANCELLED);
}

void health_checks_adopt(struct active_target *targets, struct generation *g,
                         void (*keep)(struct generation *), void (*let_go)(struct generation *))
{
    size_t at = 0;
    if (!checks.ready)
        return;
    checks.generation = g;
    checks.keep = keep;
    checks.let_go = let_go;
    for (struct map_entry *e; (e = map_next(&checks.states, &at)) != NULL;)
        ((struct health_state *)e->value)->target = NULL;
    for (struct active_target *t = targets; t != NULL; t = t->next)
        t->state->target = t;
    at = 0;
    for (struct map_entry *e; (e = map_next(&checks.states, &at)) != NULL;) {
        struct health_state *s = e->value;
        if (s->target == NULL)
            stop_asking(s);
        else if (list_empty(&s->waiting))
            timer_start(loop_self(), &s->next, loop_now_ns(loop_self()));
    }
}

void health_checks_stop(void (*stopped)(void))
{
    health_checks_adopt(NULL, NULL, NULL, NULL);
    checks.stopped = stopped;
    if (checks.asking == 0)
        stopped();
}

void health_checks_thread_deinit(void)
{
    transport_resolvers_deinit();
}
