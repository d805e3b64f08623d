/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the member "overload" of reverse_proxy to struct overload:
 *
 *     {"max_requests": 10, "queue": 100, "queue_timeout": "2s",
 *      "retry_budget": {"share": 0.2, "each_second": 3}, "slow_start": "30s",
 *      "eject": {"consecutive_failures": 5, "failure_rate": 0.5, "latency_factor": 3,
 *                "min_requests": 20, "interval": "10s", "base_time": "30s", "max_time": "5m"},
 *      "warm_connections": 2}
 */
#include "base/buffer.h"
#include "base/clock.h"
#include "proxy/gateway.h"

static const char *const members[] = {"max_requests", "queue", "queue_timeout", "retry_budget",
                                      "slow_start", "eject", "warm_connections", NULL};

#define QUEUE_NS (5 * NS_PER_S)

static enum err read_queue(struct overload *o, const json_t *json, struct provision *p)
{
    int64_t n, ns;
    TRY(provision_int(p, json, "queue", 0, 0, QUEUE_LENGTH_MAX, &n));
    TRY(provision_duration(p, json, "queue_timeout", 0, &ns));
    if (ns < 0)
        return provision_fail(p, "\"queue_timeout\" is negative");
    if (ns > 0 && n == 0)
        return provision_fail(p, "\"queue_timeout\" needs a \"queue\"");
    o->queue_max = (unsigned)n;
    o->queue_ns = ns > 0 ? (uint64_t)ns : QUEUE_NS;
    return OK;
}

static enum err read_budget(struct overload *o, const json_t *json, struct provision *p)
{
    static const char *const budget_members[] = {"share", "each_second", NULL};
    int64_t few;
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, budget_members));
    const json_t *share = json_object_get(json, "share");
    double value = share != NULL ? json_number_value(share) : 0.2;
    if ((share != NULL && !json_is_number(share)) || !(value >= 0 && value <= 1))
        return provision_fail(p, "\"share\" of the retry budget must be a number from 0 to 1");
    TRY(provision_int(p, json, "each_second", 3, 0, 1000000, &few));
    o->budget = ARENA_NEW(p->arena, struct retry_budget);
    retry_budget_init(o->budget, value, (uint32_t)few);
    return OK;
}

enum err overload_read(struct gateway *g, const json_t *json, unsigned *request_limit,
                       struct provision *p)
{
    int64_t n, ns;
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(provision_duration(p, json, "slow_start", 0, &ns));
    if (ns < 0)
        return provision_fail(p, "\"slow_start\" is negative");
    g->overload.slow_ns = (uint64_t)ns;
    TRY(provision_int(p, json, "max_requests", 0, 0, INT32_MAX, &n));
    if (n > 0)
        *request_limit = (unsigned)n;
    TRY(read_budget(&g->overload, json_object_get(json, "retry_budget"), p));
    return read_queue(&g->overload, json, p);
}

/* --- warm connections --- */

/* Placeholders of the process, such as {env.NAME}, are known by now. */
static bool settle(const struct gateway *g, struct dial_target *t, struct provision *p)
{
    struct address_error why;
    struct slice text = template_expand_known_now(t->text.text, p->arena);
    return t->constant ||
           (slice_find(text, '{') == SIZE_MAX &&
            dial_address_read(&t->address, text, g->transport, p->arena, &why) == OK);
}

static enum err begin_warm(struct gateway *g, const json_t *json, struct provision *p)
{
    int64_t n;
    const struct http_transport *t = g->transport;
    TRY(provision_int(p, json, "warm_connections", 0, 0, 1000, &n));
    if (n == 0)
        return OK;
    if (g->source != NULL && upstream_source_varies(g))
        return provision_fail(p, "\"warm_connections\" needs \"dynamic_upstreams\" without placeholders "
                              "of requests");
    if (!t->keep_alive || t->proxy_header > 0)
        return provision_fail(p, "\"warm_connections\" needs connections that are kept: not with "
                              "\"keep_alive\" off, nor with \"proxy_protocol\"");
    if ((t->tls != NULL && !t->tls_name.constant) || (t->proxy_by_url && t->proxy == NULL))
        return provision_fail(p, "\"warm_connections\" needs a \"server_name\" and a \"network_proxy\" "
                              "without placeholders");
    if (t->limits.idle_per_group < n || (t->limits.links > 0 && t->limits.links < n) ||
        (t->limits.idle_in_all > 0 && (t->limits.idle_in_all < n * g->upstreams_count ||
                                       t->limits.idle_in_all < n)))
        return provision_fail(p, "\"warm_connections\" is more than the transport keeps or allows");
    for (uint32_t i = 0; g->source == NULL && i < g->upstreams_count; i++)
        if (!settle(g, &g->targets[i], p))
            return provision_fail(p, "\"warm_connections\" needs upstreams with addresses, and without "
                                  "placeholders of requests");
    g->overload.warm = (unsigned)n;
    return OK;
}

static void free_queue(void *arg)
{
    request_queue_free(arg);
}

static enum err begin_queue(struct gateway *g, struct provision *p)
{
    struct overload *o = &g->overload;
    bool limited = g->max_requests > 0;
    if (o->queue_max == 0)
        return OK;
    for (uint32_t i = 0; i < g->upstreams_count; i++)
        limited |= g->upstreams[i].max_requests > 0;
    if (!limited)
        return provision_fail(p, "\"queue\" needs \"max_requests\": without a limit nothing waits");
    o->queue = request_queue_create(o->queue_max, g->source != NULL);
    provision_on_release(p, free_queue, o->queue);
    for (uint32_t i = 0; g->source == NULL && i < g->upstreams_count; i++)
        request_queue_watch(o->queue, g->upstreams[i].endpoint, (int)i);
    return OK;
}

/* --- ejection --- */

static enum err read_percent(const json_t *json, const char *key, double min, double max,
                             unsigned *percent, struct provision *p)
{
    const json_t *v = json_object_get(json, key);
    if (v == NULL || json_is_null(v))
        return OK;
    double value = json_number_value(v);
    if (!json_is_number(v) || (value != 0 && !(value >= min && value <= max)))
        return provision_fail(p, "\"%s\" of \"eject\" must be a number from %g to %g, or 0", key,
                              min, max);
    *percent = (unsigned)(value * 100 + 0.5);
    return OK;
}

static enum err read_time(const json_t *json, const char *key, uint64_t fallback, uint64_t *ns,
                          struct provision *p)
{
    int64_t n;
    TRY(provision_duration(p, json, key, (int64_t)fallback, &n));
    if (n < (int64_t)NS_PER_MS)
        return provision_fail(p, "\"%s\" of \"eject\" must be a millisecond at least", key);
    *ns = (uint64_t)n;
    return OK;
}

static enum err read_rules(struct eject_rules *r, const json_t *json, struct provision *p)
{
    static const char *const eject_members[] = {
        "consecutive_failures", "failure_rate", "latency_factor", "min_requests", "interval",
        "base_time", "max_time", NULL};
    int64_t n;
    TRY(provision_members(p, json, eject_members));
    TRY(provision_int(p, json, "consecutive_failures", 5, 0, 1000000, &n));
    r->in_a_row = (unsigned)n;
    TRY(read_percent(json, "failure_rate", 0.01, 1, &r->rate_percent, p));
    TRY(read_percent(json, "latency_factor", 1.1, 1000, &r->slow_percent, p));
    TRY(provision_int(p, json, "min_requests", 20, 1, 1000000, &n));
    r->min_requests = (unsigned)n;
    TRY(read_time(json, "interval", 10 * NS_PER_S, &r->interval_ns, p));
    TRY(read_time(json, "base_time", 30 * NS_PER_S, &r->base_ns, p));
    TRY(read_time(json, "max_time", 300 * NS_PER_S, &r->max_ns, p));
    if (r->max_ns < r->base_ns)
        return provision_fail(p, "\"max_time\" of \"eject\" is shorter than \"base_time\"");
    if (r->in_a_row == 0 && r->rate_percent == 0 && r->slow_percent == 0)
        return provision_fail(p, "\"eject\" names nothing that would eject an upstream");
    return OK;
}

static void free_outliers(void *arg)
{
    outliers_unref(arg);
}

/* Equal upstreams, or sources, under equal rules are one, and go on over a reload. */
static struct slice outliers_key(const struct gateway *g, const json_t *handler, bool source,
                                 struct provision *p)
{
    struct buffer b;
    buffer_init(&b, 16 << 20);
    (void)!buffer_append(&b, gateway_part_text(json_object_get(handler, "overload"), "eject", p));
    if (source) {
        (void)!buffer_append(&b, SLICE("\nsource "));
        (void)!buffer_append(&b, gateway_part_text(handler, "dynamic_upstreams", p));
    }
    for (uint32_t i = 0; !source && i < g->upstreams_count; i++) {
        struct slice name = g->upstreams[i].endpoint->name; /* which may hold anything */
        (void)!buffer_append_f(&b, "\n%zu ", name.len);
        (void)!buffer_append(&b, name);
    }
    struct slice key = arena_copy(p->arena, buffer_slice(&b));
    buffer_deinit(&b);
    return key;
}

static struct outliers *use_outliers(struct slice key, struct upstream_set set,
                                     const struct eject_rules *rules, struct provision *p)
{
    struct outliers *o = outliers_ref(key, set, rules);
    provision_on_release(p, free_outliers, o);
    return o;
}

static enum err begin_outliers(struct gateway *g, const json_t *handler, struct provision *p)
{
    const json_t *json = json_object_get(json_object_get(handler, "overload"), "eject");
    struct eject_rules rules = {0};
    struct upstream_set set = {g->upstreams, g->upstreams_count};
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(read_rules(&rules, json, p));
    if (g->source != NULL)
        g->overload.found = use_outliers(outliers_key(g, handler, true, p), (struct upstream_set){0},
                                         &rules, p);
    if (set.count == 0)
        return OK;
    g->overload.outliers = use_outliers(outliers_key(g, handler, false, p), set, &rules, p);
    for (uint32_t i = 0; i < g->upstreams_count; i++)
        g->upstreams[i].outlier = outlier_of(g->overload.outliers, g->upstreams[i].endpoint);
    return OK;
}

struct outliers *overload_outliers(const struct round *r)
{
    const struct gateway *g = r->g;
    return r->set.items == g->upstreams ? g->overload.outliers : g->overload.found;
}

enum err overload_begin(struct gateway *g, const json_t *handler, struct provision *p)
{
    const json_t *json = json_object_get(handler, "overload");
    for (uint32_t i = 0; i < g->upstreams_count; i++)
        g->upstreams[i].slow_ns = g->overload.slow_ns;
    TRY(begin_outliers(g, handler, p));
    TRY(begin_warm(g, json, p));
    return begin_queue(g, p);
}
