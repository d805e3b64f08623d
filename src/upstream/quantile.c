/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notes are one addition each. Every QUANTILE_FEWEST of them whoever notes looks up the value anew, which
 * is one walk over the buckets; that two threads do so at once, or that a count is added to while it
 * is halved, costs nothing but a little truth.
 */
#include "upstream/quantile.h"

static unsigned bucket_of(uint64_t ns)
{
    if (ns < UINT64_C(1) << QUANTILE_LOWEST)
        return 0;
    if (ns >= UINT64_C(1) << QUANTILE_HIGHEST)
        return QUANTILE_BUCKETS - 1;
    unsigned octave = 63u - (unsigned)__builtin_clzll(ns);
    unsigned step = (unsigned)(ns >> (octave - 3)) & (QUANTILE_STEPS - 1);
    return (octave - QUANTILE_LOWEST) * QUANTILE_STEPS + step;
}

/* What all of a bucket is below. */
static uint64_t end_of(unsigned bucket)
{
    unsigned octave = bucket / QUANTILE_STEPS + QUANTILE_LOWEST, step = bucket % QUANTILE_STEPS;
    return ((uint64_t)QUANTILE_STEPS + step + 1) << (octave - 3);
}

void quantile_init(struct quantile *q, double share)
{
    *q = (struct quantile){.share = share};
}

static void look_up(struct quantile *q, bool fade)
{
    uint64_t all = 0, below = 0;
    unsigned counts[QUANTILE_BUCKETS], i;
    for (i = 0; i < QUANTILE_BUCKETS; i++) {
        counts[i] = atomic_load_explicit(&q->counts[i], memory_order_relaxed);
        all += counts[i];
        if (fade && counts[i] > 0)
            atomic_fetch_sub_explicit(&q->counts[i], counts[i] - counts[i] / 2, memory_order_relaxed);
    }
    for (i = 0; i < QUANTILE_BUCKETS - 1; i++) {
        below += counts[i];
        if ((double)below >= q->share * (double)all)
            break;
    }
    atomic_store_explicit(&q->value_ns, end_of(i), memory_order_relaxed);
}

void quantile_note(struct quantile *q, uint64_t ns)
{
    atomic_fetch_add_explicit(&q->counts[bucket_of(ns)], 1, memory_order_relaxed);
    unsigned n = atomic_fetch_add_explicit(&q->notes, 1, memory_order_relaxed) + 1;
    if (n % QUANTILE_FEWEST == 0)
        look_up(q, n % QUANTILE_FADES == 0);
}
