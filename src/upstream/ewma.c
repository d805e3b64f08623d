/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The weight of what was known is e^(-t/decay), t the time since the last news, and the rest is the
 * new one's: many requests in a short time count as much as one. A failure has at least a tenth of the
 * weight, whatever came just before. Two threads that note at once take turns by compare-and-swap;
 * whoever loses several times lets it be, for one of many requests.
 */
#include "upstream/ewma.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"

enum { STEP_SHIFT = 20, TURNS = 4 };

#define FAILURE_NS ((float)NS_PER_S)
#define FAILURE_WEIGHT 0.1F

static uint64_t pack(float value, uint32_t step)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint64_t)bits << 32 | step;
}

static float value_of(uint64_t state)
{
    float value;
    uint32_t bits = (uint32_t)(state >> 32);
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float kept(uint64_t state, uint64_t decay_ns, uint64_t now_ns)
{
    int32_t steps = (int32_t)((uint32_t)(now_ns >> STEP_SHIFT) - (uint32_t)state);
    return steps <= 0 ? 1 : expf(-(float)steps * (1 << STEP_SHIFT) / (float)decay_ns);
}

void ewma_note(struct ewma *e, uint64_t latency_ns, bool failed, uint64_t decay_ns, uint64_t now_ns)
{
    uint64_t old = atomic_load_explicit(&e->state, memory_order_relaxed), new;
    float sample = latency_ns > 1000 ? (float)latency_ns : 1000;
    if (failed && sample < FAILURE_NS)
        sample = FAILURE_NS;
    for (int i = 0; i < TURNS; i++) {
        float known = value_of(old), keep = known > 0 ? kept(old, decay_ns, now_ns) : 0;
        if (failed && keep > 1 - FAILURE_WEIGHT)
            keep = 1 - FAILURE_WEIGHT;
        uint32_t step = (uint32_t)(now_ns >> STEP_SHIFT);
        /* Within one step nothing has faded: a little weight all the same, or a busy one learns nothing. */
        if (keep == 1)
            keep = expf(-(float)(1 << STEP_SHIFT) / 16 / (float)decay_ns);
        new = pack(known * keep + sample * (1 - keep), step);
        if (atomic_compare_exchange_weak_explicit(&e->state, &old, new, memory_order_relaxed,
                                                  memory_order_relaxed))
            return;
    }
}

float ewma_read(const struct ewma *e, uint64_t decay_ns, uint64_t now_ns)
{
    uint64_t state = atomic_load_explicit(&e->state, memory_order_relaxed);
    float value = value_of(state);
    if (value == 0)
        return 0;
    value *= kept(state, decay_ns, now_ns);
    return value < 1000 ? 0 : value;
}
