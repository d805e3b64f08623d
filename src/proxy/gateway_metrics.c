/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Prometheus is told of upstreams: whether the configuration's own are healthy, by Caddy's
 * name; and, where the configuration asks for metrics, how long each takes to answer. Only
 * ENDPOINTS_MEASURED of them have a histogram; the others share "_other".
 */
#include <stdlib.h>

#include "base/mem.h"
#include "http/http_metrics.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"

#define HEALTHY "caddy_reverse_proxy_upstreams_healthy"
#define LATENCY "portico_reverse_proxy_upstream_latency_seconds"

struct told {
    struct slice name;
    bool healthy;
};

static int by_name(const void *a, const void *b)
{
    return slice_cmp(((const struct told *)a)->name, ((const struct told *)b)->name);
}

static bool is_healthy(const struct upstream *u, uint64_t now_ns)
{
    if (u->unhealthy != NULL && atomic_load_explicit(u->unhealthy, memory_order_relaxed))
        return false;
    return u->max_fails == 0 || endpoint_fails(u->endpoint, now_ns) < u->max_fails;
}

/* An upstream of several gateways is healthy when it is so for all of them. */
static enum err put_healthy(struct buffer *b, struct told *list, size_t count)
{
    TRY(BUFFER_PUT(b, "# HELP " HEALTHY " Health status of reverse proxy upstreams.\n"
                      "# TYPE " HEALTHY " gauge\n"));
    qsort(list, count, sizeof *list, by_name);
    for (size_t i = 0, next; i < count; i = next) {
        bool healthy = true;
        for (next = i; next < count && slice_eq(list[next].name, list[i].name); next++)
            healthy &= list[next].healthy;
        (void)!BUFFER_PUT(b, HEALTHY "{");
        metrics_put_label(b, "upstream", list[i].name);
        TRY(buffer_append_f(b, "} %d\n", healthy));
    }
    return OK;
}

static enum err put_states(struct buffer *b, const struct gateway *gateways)
{
    size_t count = 0, n = 0;
    uint64_t now = clock_mono_ns();
    for (const struct gateway *g = gateways; g != NULL; g = g->next)
        count += g->upstreams_count;
    if (count == 0)
        return OK;
    struct told *list = mem_resize(NULL, count, sizeof *list);
    for (const struct gateway *g = gateways; g != NULL; g = g->next)
        for (uint32_t i = 0; i < g->upstreams_count; i++)
            list[n++] = (struct told){g->upstreams[i].endpoint->name,
                                      is_healthy(&g->upstreams[i], now)};
    enum err e = put_healthy(b, list, n);
    mem_free(list);
    return e;
}

static void put_line(struct buffer *b, const char *suffix, struct slice name, const char *le)
{
    (void)!buffer_append_f(b, LATENCY "%s{", suffix);
    if (le != NULL)
        (void)!buffer_append_f(b, "le=\"%s\",", le);
    metrics_put_label(b, "upstream", name);
    (void)!BUFFER_PUT(b, "} ");
}

static void put_histogram(struct buffer *b, const struct latency *l, struct slice name)
{
    struct latency_sum sum = {0};
    uint64_t n = 0;
    latency_add_up(l, &sum);
    if (sum.count == 0)
        return;
    for (unsigned i = 0; i < LATENCY_BOUNDS; i++) {
        n += sum.at[i];
        put_line(b, "_bucket", name, latency_names[i]);
        (void)!buffer_append_f(b, "%llu\n", (unsigned long long)n);
    }
    put_line(b, "_bucket", name, "+Inf");
    (void)!buffer_append_f(b, "%llu\n", (unsigned long long)sum.count);
    put_line(b, "_sum", name, NULL);
    (void)!buffer_append_f(b, "%.9g\n", (double)sum.total_ns / 1e9);
    put_line(b, "_count", name, NULL);
    (void)!buffer_append_f(b, "%llu\n", (unsigned long long)sum.count);
}

static void put_endpoint(const struct endpoint *e, void *arg)
{
    const struct latency *l = atomic_load_explicit(&e->latency, memory_order_acquire);
    if (l != NULL && l != endpoints_other_latency())
        put_histogram(arg, l, e->name);
}

/* What only some configurations have. */
static void put_extras(struct buffer *b, const struct gateway *gateways)
{
    bool mirrors = false, hedges = false;
    for (const struct gateway *g = gateways; g != NULL; g = g->next) {
        mirrors |= g->mirror != NULL;
        hedges |= g->hedge != NULL;
    }
    if (mirrors)
        mirrors_metrics_put(b);
    if (hedges)
        hedges_metrics_put(b);
}

enum err gateway_metrics_put(struct buffer *b, const struct provision *p)
{
    TRY(put_states(b, p->gateways));
    put_extras(b, p->gateways);
    TRY(overload_metrics_put(b, p->gateways));
    if (p->measuring == 0)
        return OK;
    TRY(BUFFER_PUT(b, "# HELP " LATENCY " Time from the choice of an upstream to the head of its "
                      "answer.\n# TYPE " LATENCY " histogram\n"));
    endpoints_each(put_endpoint, b);
    if (endpoints_other_latency() != NULL)
        put_histogram(b, endpoints_other_latency(), SLICE("_other"));
    return b->full ? ERR_LIMIT : OK;
}
