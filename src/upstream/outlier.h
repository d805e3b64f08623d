/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upstreams that do worse than the others are left out for a while ("ejected"), twice as long each time, and
 * never more than half of them. Counts are shared by all workers; equal sets with equal rules are one, and
 * outlive configurations.
 */
#pragma once

#include "upstream/balance.h"

struct eject_rules {
    unsigned in_a_row;     /* failures; 0: does not matter */
    unsigned rate_percent; /* of failures within an interval, likewise */
    unsigned slow_percent; /* of the median latency within an interval: 300 is three times, likewise */
    unsigned min_requests; /* in an interval, of an upstream whose rate or latency is judged */
    uint64_t interval_ns;
    uint64_t base_ns, max_ns; /* how long */
};

/* What is known of one upstream. */
struct outlier {
    _Atomic uint64_t until_ns; /* ejected until then */
    atomic_uint failed_in_a_row;
    atomic_uint requests, failures; /* of the interval, with … */
    _Atomic uint64_t answered_ns;   /* … the latency of those that did not fail, added up */
    unsigned times;  /* ejected, one soon after the other; behind the lock … */
    bool listed;     /* … as this is */
};

struct outliers;

/* `key`: equal ones are one. */
struct outliers *outliers_ref(struct slice key, struct upstream_set, const struct eject_rules *);
void outliers_unref(struct outliers *);

struct outlier *outlier_at(struct outliers *, uint32_t index);

/* How a request went. */
void outliers_note(struct outliers *, uint32_t index, uint64_t latency_ns, bool failed,
                   uint64_t now_ns);

unsigned outliers_ejected(struct outliers *, uint64_t now_ns);

/* Of the process: now, each set once; and since its start. */
unsigned outliers_ejected_now(uint64_t now_ns);
unsigned long long outliers_total(void);
