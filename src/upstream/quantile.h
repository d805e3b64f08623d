/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A quantile of durations that moves with them: a histogram whose counts fade, of all threads together.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    QUANTILE_STEPS = 8,    /* buckets per doubling: a value is right to an eighth */
    QUANTILE_LOWEST = 15,  /* below 2^15 ns all is one */
    QUANTILE_HIGHEST = 36, /* and from 2^36 ns (68 s) on */
    QUANTILE_BUCKETS = (QUANTILE_HIGHEST - QUANTILE_LOWEST) * QUANTILE_STEPS + 1,
    QUANTILE_FEWEST = 64,  /* before it says anything */
    QUANTILE_FADES = 4096, /* so many, and all counts are halved */
};

struct quantile {
    double share; /* 0.95 */
    atomic_uint counts[QUANTILE_BUCKETS];
    atomic_uint notes;
    _Atomic uint64_t value_ns;
};

void quantile_init(struct quantile *, double share);
void quantile_note(struct quantile *, uint64_t ns);

/* 0 as long as too little is known. */
static inline uint64_t quantile_ns(const struct quantile *q)
{
    return atomic_load_explicit(&q->value_ns, memory_order_relaxed);
}
