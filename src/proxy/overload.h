/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What helps when upstreams are slow or fail: the member "overload" of reverse_proxy, portico's own
 * (docs/slow-services.md). Each part is NULL or 0 unless the configuration names it.
 */
#pragma once

#include "base/buffer.h"
#include "http/module.h"
#include "upstream/outlier.h"
#include "upstream/queue.h"
#include "upstream/retry_budget.h"

struct gateway;
struct round;
struct upstream_set;

struct overload {
    struct request_queue *queue; /* requests that find all upstreams at their limit */
    unsigned queue_max;
    uint64_t queue_ns;
    struct outliers *outliers;   /* who is left out for doing worse than the others … */
    struct outliers *found;      /* … and of those that a source finds */
    unsigned warm;               /* connections to each upstream, of each worker */
    uint64_t slow_ns;            /* of an upstream that came back */
    struct retry_budget *budget; /* for attempts but the first of a request */
};

/* --- overload_config.c --- */

/* Before the upstreams are read; *request_limit is that of each. Then once they are there. */
enum err overload_read(struct gateway *, const json_t *overload, unsigned *request_limit,
                       struct provision *);
enum err overload_begin(struct gateway *, const json_t *handler, struct provision *);

/* The group that an upstream of the round's set is in; NULL: none is ejected. */
struct outliers *overload_outliers(const struct round *);

/* --- warm.c --- */
void warm_drain(void);
void warm_thread_deinit(void);

/* --- admission.c --- */

/* Chooses for a gateway with a queue, and counts the request, waiting for room if there is none. */
enum err admission_choose(struct round *, struct upstream_set *);

/* --- overload_metrics.c --- */
enum overload_event { QUEUE_WAITED, QUEUE_FULL, QUEUE_TIME_OVER, BUDGET_SPENT, OVERLOAD_EVENTS };
void overload_count(enum overload_event);
enum err overload_metrics_put(struct buffer *, const struct gateway *gateways);
