/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Active health checks: questions of our own to upstreams, asked by the control thread while a
 * configuration runs. What they find is one atomic flag per upstream, which workers read.
 */
#pragma once

#include <stdatomic.h>

#include "client/fetch.h"
#include "http/module.h"
#include "loop/fiber.h"
#include "loop/loop.h"
#include "upstream/endpoint.h"

struct gateway;
struct generation;
struct regexp;
struct round;

enum { HEALTH_BODY_MAX = 4 << 20 }; /* of an answer that is matched, where max_size names no limit */

struct health_field {
    struct slice name, value; /* may hold placeholders */
};

/* health_checks.active of one gateway; of its generation. */
struct active_health {
    const struct gateway *gateway;
    struct slice target; /* "/path?query" */
    struct slice method, body;
    struct health_field *fields;
    size_t fields_count;
    struct slice upstream; /* asked instead of the upstream; empty: that itself … */
    uint16_t port;         /* … or, unless 0, by another port */
    uint64_t interval_ns, timeout_ns;
    unsigned passes, fails;
    int64_t status; /* 503, or below 100 a class; 0: any 2xx */
    size_t body_max;
    struct regexp *body_matches; /* NULL: any body will do */
    bool follow;
};

/* What is known of an upstream under one description of checks. By its key it outlives generations;
 * equal checks of several gateways are one. */
struct health_state {
    struct slice key;
    atomic_bool unhealthy;
    unsigned refs, passes, fails; /* the latter two in a row */
    struct active_target *target; /* of the running generation; NULL: nobody asks */
    struct endpoint *endpoint;    /* of the connections of checks only */
    struct timer next, limit;
    struct fiber *fiber; /* while a question is under way */
    struct list waiting; /* for its turn, when too many are under way */
};

/* One upstream of one gateway. */
struct active_target {
    struct active_target *next; /* of the generation */
    const struct active_health *health;
    uint32_t index; /* of the upstream */
    struct health_state *state;
};

/* --- health_probe.c --- */

/* As fetch, over the round of a check whose transport speaks FastCGI, or whose upstream HTTP/2. */
enum err health_probe(struct round *, const struct fetch_request *, struct fetch_answer *);

/* --- on the control thread, or before there are others --- */

/* The state of that key, made healthy; NULL when there are too many. */
struct health_state *health_state_ref(struct slice key);
void health_state_unref(struct health_state *);

/* These are asked from now on, at once and then at their intervals, and no others. While a question
 * is under way its generation is kept. */
void health_checks_adopt(struct active_target *, struct generation *,
                         void (*keep)(struct generation *), void (*let_go)(struct generation *));

/* On the way out of the process: `stopped` is called when no question is under way any more. */
void health_checks_stop(void (*stopped)(void));
void health_checks_thread_deinit(void);
