/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Prometheus is told of overload: counters of the whole process, which outlive configurations, shown
 * while one of its gateways has the option. Each counts what is rare, so one atomic for all workers does.
 */
#include "proxy/gateway.h"

static atomic_ullong events[OVERLOAD_EVENTS];

void overload_count(enum overload_event e)
{
    atomic_fetch_add_explicit(&events[e], 1, memory_order_relaxed);
}

static unsigned long long total(enum overload_event e)
{
    return atomic_load_explicit(&events[e], memory_order_relaxed);
}

#define QUEUED "portico_reverse_proxy_queued"
#define WAITED "portico_reverse_proxy_queue_waited_total"
#define REFUSED "portico_reverse_proxy_queue_refused_total"

static enum err put_queue(struct buffer *b)
{
    return buffer_append_f(
        b,
        "# HELP " QUEUED " Requests that wait for an upstream to have room.\n"
        "# TYPE " QUEUED " gauge\n" QUEUED " %d\n"
        "# HELP " WAITED " Requests that have waited for an upstream to have room.\n"
        "# TYPE " WAITED " counter\n" WAITED " %llu\n"
        "# HELP " REFUSED " Requests refused since no upstream had room.\n"
        "# TYPE " REFUSED " counter\n" REFUSED "{reason=\"full\"} %llu\n" REFUSED
        "{reason=\"time\"} %llu\n",
        atomic_load(&requests_queued), total(QUEUE_WAITED), total(QUEUE_FULL),
        total(QUEUE_TIME_OVER));
}

#define SPENT "portico_reverse_proxy_retries_refused_total"

static enum err put_budget(struct buffer *b)
{
    return buffer_append_f(b,
                           "# HELP " SPENT " Requests not tried again since the budget was spent.\n"
                           "# TYPE " SPENT " counter\n" SPENT " %llu\n",
                           total(BUDGET_SPENT));
}

#define EJECTED "portico_reverse_proxy_ejected"
#define EJECTIONS "portico_reverse_proxy_ejections_total"

static enum err put_outliers(struct buffer *b)
{
    return buffer_append_f(b,
                           "# HELP " EJECTED " Upstreams left out for doing worse than others.\n"
                           "# TYPE " EJECTED " gauge\n" EJECTED " %u\n"
                           "# HELP " EJECTIONS " How often upstreams were left out so.\n"
                           "# TYPE " EJECTIONS " counter\n" EJECTIONS " %llu\n",
                           outliers_ejected_now(clock_mono_ns()), outliers_total());
}

enum err overload_metrics_put(struct buffer *b, const struct gateway *gateways)
{
    bool queue = false, budget = false, outliers = false;
    for (const struct gateway *g = gateways; g != NULL; g = g->next) {
        queue |= g->overload.queue != NULL;
        budget |= g->overload.budget != NULL;
        outliers |= g->overload.outliers != NULL || g->overload.found != NULL;
    }
    if (queue)
        TRY(put_queue(b));
    if (budget)
        TRY(put_budget(b));
    if (outliers)
        TRY(put_outliers(b));
    return OK;
}
