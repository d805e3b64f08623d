/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the member "overload" of reverse_proxy to struct overload:
 *
 *     {"max_requests": 10, "queue": 100, "queue_timeout": "2s",
 *      "retry_budget": {"share": 0.2, "each_second": 3}, "slow_start": "30s"}
 */
#include "base/clock.h"
#include "proxy/gateway.h"

static const char *const members[] = {"max_requests", "queue", "queue_timeout", "retry_budget", "slow_start",
                                      NULL};

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
    for (uint32_t i = 0; i < g->upstreams_count; i++)
        request_queue_watch(o->queue, g->upstreams[i].endpoint, (int)i);
    return OK;
}

enum err overload_begin(struct gateway *g, struct provision *p)
{
    for (uint32_t i = 0; i < g->upstreams_count; i++)
        g->upstreams[i].slow_ns = g->overload.slow_ns;
    return begin_queue(g, p);
}
