/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upstreams that do worse than the others are left out for a while ("ejected"), twice as long each time, and
 * never more than half of them. Counts are shared by all workers; equal sets with equal rules are one group,
 * and outlive configurations.
 *
 * The upstreams of a group are its configuration's and stay, or they are found as requests come: then those
 * are present that requests of late could have gone to, and one that is not any more is remembered for as
 * long as it could be ejected at most.
 */
#pragma once

#include "upstream/balance.h"

enum { OUTLIERS_MAX = 8192 }; /* of a group that finds its upstreams */

struct eject_rules {
    unsigned in_a_row;     /* failures; 0: does not matter */
    unsigned rate_percent; /* of failures within an interval, likewise */
    unsigned slow_percent; /* of the median latency within an interval: 300 is three times, likewise */
    unsigned min_requests; /* in an interval, of an upstream whose rate or latency is judged */
    uint64_t interval_ns;
    uint64_t base_ns, max_ns; /* how long */
};

struct outliers;

/* What is known of one upstream in one group; of its endpoint, with which it goes. */
struct outlier {
    struct outlier *next; /* of the endpoint */
    struct endpoint *endpoint;
    _Atomic(struct outliers *) group; /* NULL: none any more; free for another one */
    _Atomic uint64_t until_ns; /* ejected until then */
    _Atomic uint64_t seen_ns;  /* a request could have gone there */
    _Atomic uint64_t service;  /* of several: for which it was found last … */
    uint64_t judged_as;        /* … and at the end of the interval; behind the lock */
    atomic_uint failed_in_a_row;
    atomic_uint requests, failures; /* of the interval, with … */
    _Atomic uint64_t answered_ns;   /* … the latency of those that did not fail, added up */
    unsigned times;  /* ejected, one soon after the other; behind the lock … */
    bool listed;     /* … as this is */
};

/* `key`: equal ones are one. Without upstreams: they are found. */
struct outliers *outliers_ref(struct slice key, struct upstream_set, const struct eject_rules *);
void outliers_unref(struct outliers *);

/* Of an endpoint that the caller holds; NULL: it is not in the group. */
struct outlier *outlier_of(const struct outliers *, const struct endpoint *);

/* A request may go there: it is in the group from now on. NULL: there are too many. */
struct outlier *outlier_seen(struct outliers *, struct endpoint *, uint64_t now_ns);

static inline bool outlier_ejected(const struct outlier *u, uint64_t now_ns)
{
    return u != NULL && atomic_load_explicit(&u->until_ns, memory_order_relaxed) > now_ns;
}

/* Fills in `outlier` of those of a set that are ejected, within half of it: what others have found does
 * not count here, nor whom they eject from now on. `service`: within which latencies are compared. */
void outliers_apply(struct outliers *, struct upstream *items, uint32_t count, uint64_t service,
                    uint64_t now_ns);

/* How a request went. */
void outliers_note(struct outliers *, const struct endpoint *, uint64_t latency_ns, bool failed,
                   uint64_t now_ns);

/* Another server than before answers there: nothing speaks against it. */
void outliers_forgive(struct endpoint *);

/* Of an endpoint that goes. */
void outliers_free_of(struct endpoint *);

unsigned outliers_ejected(struct outliers *, uint64_t now_ns);

/* Of the process: now, each set once; and since its start. */
unsigned outliers_ejected_now(uint64_t now_ns);
unsigned long long outliers_total(void);

/* For tests: how many upstreams a group remembers. */
uint32_t outliers_count(const struct outliers *);
