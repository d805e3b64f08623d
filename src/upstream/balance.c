/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each policy is one walk over the upstreams. Choosing at random among those that are available is
 * reservoir sampling, since how many there are is known only at the end. The random numbers decide
 * nothing that an attacker could use, so a thread's own xorshift is enough.
 */
#include "upstream/balance.h"

#include <sys/random.h>

#include "base/clock.h"
#include "base/hash.h"

static uint32_t random_below(uint32_t n)
{
    static _Thread_local uint64_t state;
    if (state == 0 && getrandom(&state, sizeof state, 0) != (ssize_t)sizeof state)
        state = clock_mono_ns();
    state |= state == 0;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 32) * n >> 32);
}

bool upstream_available(const struct upstream *u, uint64_t now_ns)
{
    if (u->unhealthy != NULL && atomic_load_explicit(u->unhealthy, memory_order_relaxed))
        return false;
    if (u->max_requests > 0 && endpoint_requests(u->endpoint) >= (int)u->max_requests)
        return false;
    return u->max_fails == 0 || endpoint_fails(u->endpoint, now_ns) < u->max_fails;
}

const struct upstream *balance_first(struct upstream_set s, uint64_t now_ns)
{
    for (uint32_t i = 0; i < s.count; i++) {
        if (upstream_available(&s.items[i], now_ns))
            return &s.items[i];
    }
    return NULL;
}

const struct upstream *balance_random(struct upstream_set s, uint64_t now_ns)
{
    const struct upstream *best = NULL;
    if (s.count == 1) /* the usual case needs no random number */
        return balance_first(s, now_ns);
    for (uint32_t i = 0, seen = 0; i < s.count; i++) {
        if (upstream_available(&s.items[i], now_ns) && random_below(++seen) == 0)
            best = &s.items[i];
    }
    return best;
}

static const struct upstream *least_of(const struct upstream *const *list, uint32_t count)
{
    const struct upstream *best = NULL;
    int least = 0;
    for (uint32_t i = 0, equal = 0; i < count; i++) {
        int n = endpoint_requests(list[i]->endpoint);
        if (best == NULL || n < least) {
            best = list[i];
            least = n;
            equal = 1;
        } else if (n == least && random_below(++equal) == 0) {
            best = list[i];
        }
    }
    return best;
}

const struct upstream *balance_least(struct upstream_set s, uint64_t now_ns)
{
    const struct upstream *best = NULL;
    int least = 0;
    for (uint32_t i = 0, equal = 0; i < s.count; i++) {
        const struct upstream *u = &s.items[i];
        if (!upstream_available(u, now_ns))
            continue;
        int n = endpoint_requests(u->endpoint);
        if (best == NULL || n < least) {
            best = u;
            least = n;
            equal = 1;
        } else if (n == least && random_below(++equal) == 0) {
            best = u;
        }
    }
    return best;
}

const struct upstream *balance_choose(struct upstream_set s, uint32_t choose, uint64_t now_ns)
{
    enum { MOST = 64 };
    const struct upstream *chosen[MOST];
    uint32_t count = 0, seen = 0;
    if (choose > MOST)
        choose = MOST;
    for (uint32_t i = 0; i < s.count; i++) {
        if (!upstream_available(&s.items[i], now_ns))
            continue;
        uint32_t place = count < choose ? count++ : random_below(seen + 1);
        seen++;
        if (place < choose)
            chosen[place] = &s.items[i];
    }
    return least_of(chosen, count);
}

const struct upstream *balance_round_robin(struct upstream_set s, atomic_uint *turn,
                                           uint64_t now_ns)
{
    for (uint32_t i = 0; i < s.count; i++) {
        unsigned n = atomic_fetch_add_explicit(turn, 1, memory_order_relaxed) + 1;
        if (upstream_available(&s.items[n % s.count], now_ns))
            return &s.items[n % s.count];
    }
    return NULL;
}

/* Whose turn it is by weight; when that one is not available, the next that is and has a weight. */
const struct upstream *balance_weighted(struct upstream_set s, const uint32_t *weights,
                                        atomic_uint *turn, uint64_t now_ns)
{
    uint64_t total = 0, at = 0;
    uint32_t pick = 0;
    for (uint32_t i = 0; i < s.count; i++)
        total += weights[i];
    if (total == 0)
        return NULL;
    at = (atomic_fetch_add_explicit(turn, 1, memory_order_relaxed) + 1) % total;
    while (at >= weights[pick])
        at -= weights[pick++];
    for (uint32_t i = 0; i < s.count; i++) {
        uint32_t n = (pick + i) % s.count;
        if (weights[n] > 0 && upstream_available(&s.items[n], now_ns))
            return &s.items[n];
    }
    return NULL;
}

const struct upstream *balance_hash(struct upstream_set s, struct slice key, uint64_t now_ns)
{
    const struct upstream *best = NULL;
    uint64_t highest = 0;
    for (uint32_t i = 0; i < s.count; i++) {
        const struct upstream *u = &s.items[i];
        if (!upstream_available(u, now_ns))
            continue;
        const uint64_t seed[2] = {u->endpoint->hash, 0x72656e64657a76};
        uint64_t h = hash_keyed(key, seed);
        if (best == NULL || h > highest) {
            best = u;
            highest = h;
        }
    }
    return best;
}
