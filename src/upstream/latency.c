/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A part is written by plain stores, for nobody else writes it; they are atomic so that a reader sees
 * whole numbers. Parts lie on cache lines of their own.
 */
#include "upstream/latency.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"

const uint64_t latency_bounds[LATENCY_BOUNDS] = {
    500000, 1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000, 250000000,
    UINT64_C(1000000000), UINT64_C(2500000000), UINT64_C(10000000000)};
const char *const latency_names[LATENCY_BOUNDS] = {"0.0005", "0.001", "0.0025", "0.005", "0.01",
                                                   "0.025", "0.05", "0.1", "0.25", "1", "2.5", "10"};

struct part {
    _Atomic uint64_t at[LATENCY_BOUNDS + 1], total_ns;
} __attribute__((aligned(64)));

struct latency {
    unsigned workers;
    struct part *parts; /* on cache lines */
    void *room;
};

struct latency *latency_create(unsigned workers)
{
    struct latency *l = NEW(struct latency);
    l->workers = workers;
    l->room = mem_zalloc(workers * sizeof *l->parts + 64);
    l->parts = (void *)(((uintptr_t)l->room + 63) & ~(uintptr_t)63);
    return l;
}

void latency_free(struct latency *l)
{
    if (l == NULL)
        return;
    mem_free(l->room);
    mem_free(l);
}

static void raise_by(_Atomic uint64_t *n, uint64_t by)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

void latency_note(struct latency *l, unsigned worker, uint64_t ns)
{
    unsigned place = 0;
    ASSERT(worker < l->workers);
    while (place < LATENCY_BOUNDS && ns > latency_bounds[place])
        place++;
    raise_by(&l->parts[worker].at[place], 1);
    raise_by(&l->parts[worker].total_ns, ns);
}

void latency_add_up(const struct latency *l, struct latency_sum *sum)
{
    for (unsigned w = 0; w < l->workers; w++) {
        const struct part *p = &l->parts[w];
        for (unsigned i = 0; i <= LATENCY_BOUNDS; i++) {
            uint64_t n = atomic_load_explicit(&p->at[i], memory_order_relaxed);
            sum->at[i] += n;
            sum->count += n;
        }
        sum->total_ns += atomic_load_explicit(&p->total_ns, memory_order_relaxed);
    }
}
