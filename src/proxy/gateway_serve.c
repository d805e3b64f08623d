/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse_proxy: choose an upstream, ask it, hand its answer on; when that fails, decide whether
 * another attempt is safe. What may be repeated stands as a table in docs/gateway.md: a dial that
 * failed always, since nothing was sent; everything else only for requests that the configuration
 * (by default: GET) allows and whose body is still in memory. A connection that was idle and turns
 * out to be closed says nothing about the upstream: the request goes on a fresh one, once, and no
 * failure is counted.
 */
#include "base/clock.h"
#include "client/fetch.h"
#include "http/http_metrics.h"
#include "loop/await.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"
#include "services/services.h"

#define LOGGER "http.handlers.reverse_proxy"

/* By an upstream of HTTP/2, which are answered by asking again at once; those that came before it was
 * asked do not count among them. */
enum { REFUSALS_MAX = 3, UNASKED_MAX = 5 };

enum err gateway_round_error(struct round *r, enum failure kind, int status, const char *why)
{
    r->failure = kind;
    r->fail_status = status;
    r->why = why;
    return ERR_FAILED;
}

/* --- health --- */

static void count_failure(struct round *r)
{
    struct endpoint *e = r->upstream->endpoint;
    uint64_t now = loop_now_ns(loop_self());
    if (r->g->passive.fail_ns == 0)
        return;
    endpoint_fail(e, now, now + r->g->passive.fail_ns);
    uint64_t until = r->upstream->slow_ns > 0
                         ? endpoint_marked_until(e, r->upstream->max_fails, now) : 0;
    if (until > 0)
        endpoint_came_back(e, until);
}

static bool status_counts(const struct passive_health *h, int status)
{
    for (size_t i = 0; i < h->statuses_count; i++) {
        if (h->statuses[i] == status || (h->statuses[i] < 10 && h->statuses[i] == status / 100))
            return true;
    }
    return false;
}

static void judge_answer(struct round *r)
{
    const struct passive_health *h = &r->g->passive;
    if (h->fail_ns == 0)
        return;
    if (status_counts(h, r->status))
        count_failure(r);
    if (h->latency_ns > 0 && r->latency_ns >= h->latency_ns)
        count_failure(r);
}

/* Without the time that a slow client took for its body: it would speak against the upstream. */
static uint64_t own_latency(const struct round *r)
{
    uint64_t head_ns = r->attempt_ns + r->latency_ns, sent_ns = r->body_sent_ns;
    return sent_ns > r->attempt_ns && sent_ns <= head_ns ? head_ns - sent_ns : r->latency_ns;
}

/* An attempt has ended: what a policy and the like want to know of it. */
static void note(const struct round *r, bool failed)
{
    const struct gateway *g = r->g;
    struct outliers *outliers = overload_outliers(r);
    if (g->policy->note == NULL && outliers == NULL)
        return;
    uint64_t now = loop_now_ns(loop_self());
    if (g->policy->note != NULL)
        g->policy->note(g->policy_cfg, r->upstream->endpoint, own_latency(r), failed, now);
    if (outliers != NULL)
        outliers_note(outliers, r->upstream->endpoint, own_latency(r), failed, now);
}

static void measure(const struct round *r)
{
    struct endpoint *e = r->upstream->endpoint;
    if (r->g->measuring == 0)
        return;
    struct latency *l = atomic_load_explicit(&e->latency, memory_order_acquire);
    if (l == NULL) { /* a service's: it was there before the metrics */
        endpoint_measure(e, r->g->measuring);
        l = atomic_load_explicit(&e->latency, memory_order_acquire);
    }
    latency_note(l, http_metrics_worker(), r->latency_ns);
}

/* --- one attempt --- */

static bool was_tried(const struct round *r, const struct endpoint *e)
{
    for (unsigned i = 0; i < TRIED_MAX; i++)
        if (r->tried[i] == e->serial)
            return true;
    return false;
}

/* Those that have not failed this request yet; all of them when each has. */
static struct upstream_set untried(struct round *r, const struct found_upstreams *found)
{
    struct upstream *items = arena_alloc(r->x->arena, (found->count + 1) * sizeof *items);
    uint32_t count = 0;
    for (uint32_t i = 0; i < found->count; i++)
        if (!was_tried(r, found->endpoints[i]))
            items[count++] = (struct upstream){.endpoint = found->endpoints[i],
                                               .max_requests = r->g->max_requests,
                                               .max_fails = r->g->max_fails,
                                               .slow_ns = r->g->overload.slow_ns};
    if (count < found->count && count == 0) {
        memset(r->tried, 0, sizeof r->tried);
        return untried(r, found);
    }
    if (r->g->overload.found != NULL)
        outliers_apply(r->g->overload.found, items, count, found->service,
                       loop_now_ns(loop_self()));
    return (struct upstream_set){items, count};
}

/* A source that must ask for its upstreams first. */
static void settle_source(struct round *r)
{
    const struct upstream_source *s = r->g->source;
    if (r->tries > 0 && s->doubt != NULL)
        s->doubt(r->g->source_cfg, r->x);
    if (s->unsettled == NULL || !s->unsettled(r->g->source_cfg, r->x))
        return;
    gateway_watch(r);
    (void)!s->settle(r->g->source_cfg, r->x); /* find tells */
}

/* The static upstreams take the place of a source's, where there are some. */
static enum err fall_back(struct round *r, const char *why)
{
    const struct gateway *g = r->g;
    if (g->upstreams_count > 0 || g->source->errors_pass)
        LOG(LOG_ERROR, LOGGER, "failed getting dynamic upstreams; falling back to static upstreams",
            LOG_CSTR("error", why));
    if (g->upstreams_count > 0)
        return OK;
    r->upstream = NULL;
    if (g->source->errors_pass)
        return gateway_round_error(r, FAILURE_DIAL, 503, "no upstreams available");
    r->error = exchange_fail(r->x, 503, why);
    return gateway_round_error(r, FAILURE_HANDLED, 503, why);
}

enum err gateway_gather(struct round *r, struct upstream_set *set)
{
    const struct gateway *g = r->g;
    struct found_upstreams found = {0};
    const char *why = "no upstreams available";
    *set = (struct upstream_set){g->upstreams, g->upstreams_count};
    if (g->source == NULL)
        return OK;
    settle_source(r);
    enum err e = g->source->find(g->source_cfg, r->x, &found, &why);
    while (e == OK && found.count == 0 && g->source->wait != NULL) {
        gateway_watch(r);
        e = g->source->wait(g->source_cfg, r->x, &why);
        if (e == OK)
            e = g->source->find(g->source_cfg, r->x, &found, &why);
    }
    if (fiber_self()->cancelled != OK) {
        r->error = fiber_self()->cancelled;
        return gateway_round_error(r, FAILURE_CLIENT, 0, "the client left");
    }
    if (e == OK) {
        *set = untried(r, &found);
        return OK;
    }
    return fall_back(r, why);
}

/* Where the upstream is that was chosen. */
static enum err locate(struct round *r)
{
    struct exchange *x = r->x;
    const struct gateway *g = r->g;
    struct address_error why;
    uint64_t now = loop_now_ns(loop_self());
    bool found = r->set.items != g->upstreams;
    const struct dial_target *t = found ? NULL : &g->targets[r->upstream - g->upstreams];
    r->upstream_requests = endpoint_requests(r->upstream->endpoint) - r->reserved;
    r->upstream_fails = g->passive.fail_ns > 0 ? endpoint_fails(r->upstream->endpoint, now) : 0;
    bool constant = !found && t->constant;
    if (constant)
        r->address = t->address;
    struct slice text = constant ? SLICE_NONE
                        : found  ? r->upstream->endpoint->name
                                 : template_expand(&t->text, x);
    if (constant ||
        dial_address_read(&r->address, text, g->transport, x->arena, &why) == OK) {
        LOG(LOG_DEBUG, LOGGER, "selected upstream", LOG_STR("dial", r->address.text),
            LOG_NUM("total_upstreams", r->set.count));
        transport_tls_name(r);
        transport_header_key(r);
        return transport_proxy_ask(r);
    }
    r->error = exchange_fail_f(x, 502, "making dial info: upstream " SLICE_FMT ": invalid dial "
                               "address " SLICE_FMT ": %s", SLICE_ARG(found ? text : t->text.text),
                               SLICE_ARG(text), why.text);
    return gateway_round_error(r, FAILURE_HANDLED, 0, "no dial address");
}

static enum err choose(struct round *r)
{
    const struct gateway *g = r->g;
    TRY(gateway_gather(r, &r->set));
    r->upstream = NULL;
    if (g->overload.queue != NULL)
        TRY(admission_choose(r, &r->set));
    else if (r->set.count > 0)
        r->upstream = g->policy->select(g->policy_cfg, r->x, r->set, loop_now_ns(loop_self()));
    if (r->upstream == NULL)
        return gateway_round_error(r, FAILURE_DIAL, 503, "no upstreams available");
    return locate(r);
}

bool gateway_choose_other(struct round *r)
{
    const struct gateway *g = r->g;
    balance_avoided = r->upstream->endpoint;
    const struct upstream *u =
        g->policy->select(g->policy_cfg, r->x, r->set, loop_now_ns(loop_self()));
    balance_avoided = NULL;
    if (u == NULL || u->endpoint == r->upstream->endpoint || !upstream_reserve(u))
        return false;
    r->upstream = u;
    r->reserved = true;
    if (locate(r) == OK)
        return true;
    endpoint_done(u->endpoint);
    return false;
}

void gateway_learn(struct round *r, enum err e)
{
    if (log_wants(LOG_DEBUG)) /* its frame is large */
        gateway_log_round(r, e);
    if (r->failure != FAILURE_CLIENT && r->failure != FAILURE_HANDLED)
        note(r, e != OK || r->status >= 500);
    if (e != OK)
        return;
    measure(r);
    judge_answer(r);
}

void gateway_learn_failure(struct round *r)
{
    gateway_log_round(r, ERR_FAILED);
    if (r->failure != FAILURE_DIAL && r->failure != FAILURE_UPSTREAM)
        return;
    note(r, true);
    count_failure(r);
}

void gateway_learn_beaten(struct round *r)
{
    r->status = 0;
    r->why = "another upstream was quicker";
    gateway_log_round(r, ERR_FAILED);
    note(r, false);
    measure(r);
    judge_answer(r);
}

/* From a link to the head of the answer. */
static enum err ask(struct round *r, bool fresh)
{
    uint64_t begin_ns = loop_now_ns(loop_self());
    r->failure = FAILURE_NONE;
    r->unacted = r->unasked = false;
    enum err e = gateway_connect(r, fresh);
    r->connect_ns = loop_now_ns(loop_self()) - begin_ns;
    TRY(e);
    TRY(r->protocol->send(r));
    r->answer = r->protocol->begin(r);
    return gateway_await_answer(r);
}

bool gateway_idempotent(const struct round *r)
{
    static const char *const methods[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", NULL};
    for (const char *const *m = methods; *m != NULL; m++) {
        if (slice_is(r->method, *m))
            return true;
    }
    return fields_has(&r->fields, SLICE("Idempotency-Key")) ||
           fields_has(&r->fields, SLICE("X-Idempotency-Key"));
}

static bool body_replayable(const struct round *r)
{
    return !r->body_touched && (!r->has_body || r->body_whole || r->answer == NULL);
}

enum err gateway_round_trip(struct round *r)
{
    enum err e = ask(r, false);
    for (unsigned n = 0, unasked = 0; r->failure == FAILURE_STALE;) {
        bool unsent = r->answer == NULL || r->unacted; /* not a byte of the request was taken */
        bool early = r->unasked && unasked++ < UNASKED_MAX;
        bool left = early || n++ < (r->unacted ? REFUSALS_MAX : 1);
        bool again = left && body_replayable(r) && (unsent || gateway_idempotent(r));
        gateway_drop_link(r);
        if (!again)
            break;
        e = ask(r, true);
    }
    if (r->failure == FAILURE_STALE) /* not again */
        r->failure = r->unacted ? FAILURE_DIAL : FAILURE_UPSTREAM;
    return e;
}

static enum err attempt(struct round *r, const struct chain *next)
{
    struct upload upload;
    r->reserved = false;
    enum err e = choose(r);
    if (e != OK && r->reserved)
        endpoint_done(r->upstream->endpoint);
    TRY(e);
    r->upload_room = &upload;
    r->attempt_ns = loop_now_ns(loop_self()); /* a turn's time: exact enough, and free */
    if (!r->reserved)
        endpoint_count(r->upstream->endpoint, 1);
    e = r->g->hedge != NULL && hedge_fits(r) ? hedge_round_trip(r) : gateway_round_trip(r);
    if (r->race == NULL || !r->hedged) /* else it is known of each */
        r->latency_ns = loop_now_ns(loop_self()) - r->attempt_ns;
    gateway_learn(r, e);
    if (e == OK)
        e = gateway_finish(r, next);
    gateway_drop_link(r);
    endpoint_done(r->upstream->endpoint);
    if (r->race != NULL)
        hedge_join(r);
    return e;
}

/* --- again? --- */

/* What reached no upstream costs nothing. */
static bool within_budget(const struct round *r)
{
    struct retry_budget *b = r->g->overload.budget;
    if (b == NULL || r->upstream == NULL || retry_budget_take(b, clock_mono_ns()))
        return true;
    overload_count(BUDGET_SPENT);
    return false;
}

/* Upstreams of a source that stand for one another: what is safe goes to the next one, at once as
 * long as there is one that has not failed. */
static bool try_another(struct round *r)
{
    enum { TRIES_MAX = 64 };
    const struct gateway *g = r->g;
    uint64_t now = clock_mono_ns();
    bool safe = r->failure == FAILURE_DIAL || (gateway_idempotent(r) && body_replayable(r));
    if (g->repeat_ns == 0 || !safe || r->body_touched || r->upstream == NULL ||
        r->tries >= TRIES_MAX || now - r->start_ns >= g->repeat_ns || !within_budget(r))
        return false;
    r->tried[r->tries % TRIED_MAX] = r->upstream->endpoint->serial;
    gateway_watch(r);
    return r->tries == 0 || await_sleep(now + (r->tries < 8 ? 5 : 50) * NS_PER_MS) == OK;
}

static bool try_again(struct round *r)
{
    const struct gateway *g = r->g;
    bool matches = true;
    if (g->try_ns == 0 && g->retries == 0)
        return g->source != NULL && r->failure != FAILURE_ANSWER && try_another(r);
    if (g->try_ns > 0 && clock_mono_ns() - r->start_ns >= g->try_ns)
        return false;
    if (g->retries > 0 && r->tries >= g->retries)
        return false;
    if (r->body_touched)
        return false;
    if (r->failure == FAILURE_UPSTREAM && retry_match_request(r, &matches) != OK)
        return false;
    if (!matches || !within_budget(r))
        return false;
    gateway_watch(r);
    return g->try_interval_ns == 0 ||
           await_sleep(clock_mono_ns() + g->try_interval_ns) == OK;
}

static enum err fail(struct round *r)
{
    struct exchange *x = r->x;
    switch (r->failure) {
    case FAILURE_HANDLED:
        return r->error;
    case FAILURE_CLIENT:
        if (r->error == ERR_CLOSED && !exchange_answered(x))
            x->res.status = 499; /* nobody will see it but the log */
        return r->error;
    case FAILURE_UPSTREAM: /* a dial's error names its address already */
        return exchange_fail_f(x, r->fail_status, "upstream " SLICE_FMT ": %s",
                               SLICE_ARG(r->address.text), r->why);
    default:
        return exchange_fail(x, r->fail_status, r->why);
    }
}

static enum err run(struct round *r, const struct chain *next)
{
    TRY(gateway_prepare(r));
    if (r->g->mirror != NULL)
        mirror_request(r);
    if (r->g->overload.budget != NULL)
        retry_budget_add(r->g->overload.budget);
    for (;; r->tries++) {
        enum err e = attempt(r, next);
        if (e == OK)
            return OK;
        bool upstreams_fault = r->failure == FAILURE_DIAL || r->failure == FAILURE_UPSTREAM;
        if (upstreams_fault && r->upstream != NULL)
            count_failure(r);
        bool repeatable = upstreams_fault || r->failure == FAILURE_ANSWER;
        if (!repeatable || !try_again(r))
            return fail(r);
        VERBOSE(r, "retrying", LOG_CSTR("error", r->why), LOG_DUR("after", r->g->try_interval_ns));
    }
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    struct round *r = ARENA_NEW(x->arena, struct round);
    r->view.value = gateway_value;
    r->x = x;
    r->g = cfg;
    r->start_ns = x->start_ns;
    x->gateway = &r->view;
    enum err e = run(r, next);
    if (r->mirror_due)
        mirror_rest(r);
    if (r->watching)
        x->carrier->watch(x, false);
    r->watching = false;
    r->total_ns = loop_now_ns(loop_self()) - r->start_ns;
    return e;
}

const struct module handler_reverse_proxy = {
    .id = "http.handlers.reverse_proxy",
    .cfg_size = sizeof(struct gateway),
    .provision = gateway_provision,
    .release = gateway_release,
    .serve = serve,
};

/* --- workers --- */

void proxy_retire_others(const struct generation *newest)
{
    tunnels_retire_others(newest);
}

void proxy_drain(void)
{
    warm_drain();
    mirrors_drain();
    links_drain();
    h2_links_drain();
}

void proxy_thread_deinit(void)
{
    warm_thread_deinit();
    services_thread_deinit();
    dns_sources_thread_deinit();
    mirrors_thread_deinit();
    transport_resolvers_deinit();
    fetch_thread_deinit(); /* of all that the client keeps */
}
