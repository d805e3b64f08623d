/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long an upstream takes until the head of its answer, as a histogram with one part for each
 * worker, which only that worker writes. Whoever scrapes adds up.
 */
#pragma once

#include <stdatomic.h>

#include "base/slice.h"

enum { LATENCY_BOUNDS = 12 };

/* Upper bounds in nanoseconds, and as Prometheus writes them in seconds. */
extern const uint64_t latency_bounds[LATENCY_BOUNDS];
extern const char *const latency_names[LATENCY_BOUNDS];

struct latency;

struct latency_sum {
    uint64_t at[LATENCY_BOUNDS + 1]; /* up to the bound of that place; the last: above all */
    uint64_t count, total_ns;
};

struct latency *latency_create(unsigned workers);
void latency_free(struct latency *);

/* By one thread for each `worker`. */
void latency_note(struct latency *, unsigned worker, uint64_t ns);
void latency_add_up(const struct latency *, struct latency_sum *);
