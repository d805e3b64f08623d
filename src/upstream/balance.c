/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a choice costs does not grow with the number of upstreams while a part of them is available: a
 * random one is looked at, and another if it is not available (which leaves each of those that are
 * the same chance). Only when TRIES of them were not is there a walk over all, which is reservoir
 * sampling, since how many are available is known only at its end. Rendezvous hashing is a walk as
 * well: of many upstreams a ring is made beforehand. The random numbers decide nothing that an attacker could
 * use, so a thread's own xorshift is enough.
 */
#include "upstream/balance.h"

#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "upstream/outlier.h"

enum { TRIES = 32, MOST = 64, POINTS = 64 };

_Thread_local uint64_t balance_looks;
_Thread_local const struct endpoint *balance_avoided;
static _Thread_local uint64_t state;

void balance_seed(uint64_t seed)
{
    state = seed;
}

static uint32_t random_below(uint32_t n)
{
    if (state == 0 && getrandom(&state, sizeof state, 0) != (ssize_t)sizeof state)
        state = clock_mono_ns();
    state |= state == 0;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 32) * n >> 32);
}

bool upstream_well(const struct upstream *u, uint64_t now_ns)
{
    if (u->unhealthy != NULL && atomic_load_explicit(u->unhealthy, memory_order_relaxed))
        return false;
    if (outlier_ejected(u->outlier, now_ns))
        return false;
    return u->max_fails == 0 || endpoint_fails(u->endpoint, now_ns) < u->max_fails;
}

bool upstream_available(const struct upstream *u, uint64_t now_ns)
{
    balance_looks++;
    if (u->endpoint == balance_avoided)
        return false;
    if (u->max_requests > 0 && endpoint_requests(u->endpoint) >= (int)u->max_requests)
        return false;
    return upstream_well(u, now_ns);
}

bool upstream_reserve(const struct upstream *u)
{
    int n = endpoint_requests(u->endpoint);
    if (u->max_requests == 0) {
        endpoint_count(u->endpoint, 1);
        return true;
    }
    while (n < (int)u->max_requests)
        if (atomic_compare_exchange_weak(&u->endpoint->requests, &n, n + 1))
            return true;
    return false;
}

/* --- slow start --- */

#define LEAST_SHARE 0.05F

static float share_of(const struct upstream *u, uint64_t now_ns)
{
    uint64_t back = atomic_load_explicit(&u->endpoint->back_ns, memory_order_relaxed);
    if (now_ns <= back)
        return LEAST_SHARE;
    float share = (float)(now_ns - back) / (float)u->slow_ns;
    return share < LEAST_SHARE ? LEAST_SHARE : share > 1 ? 1 : share;
}

static bool hits(float share)
{
    return share == 1 || (float)random_below(1 << 20) < share * (1 << 20);
}

/* Whether its turn counts. */
static bool has_turn(const struct upstream *u, uint64_t now_ns)
{
    return u->slow_ns == 0 || hits(share_of(u, now_ns));
}

/* Requests as if it had its full share. One that has none yet would have as few as the others when these
 * idle: then it depends on chance. */
static float load_of(const struct upstream *u, uint64_t now_ns)
{
    float n = (float)endpoint_requests(u->endpoint);
    if (u->slow_ns == 0)
        return n;
    float share = share_of(u, now_ns);
    return hits(share) ? n / share : (n + 1) / share;
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
    if (s.count <= 1) /* the usual case needs no random number */
        return balance_first(s, now_ns);
    for (unsigned i = 0; i < TRIES; i++) {
        const struct upstream *u = &s.items[random_below(s.count)];
        if (!upstream_available(u, now_ns))
            continue;
        if (has_turn(u, now_ns))
            return u;
        best = u;
    }
    if (best != NULL)
        return best;
    for (uint32_t i = 0, seen = 0; i < s.count; i++) {
        if (upstream_available(&s.items[i], now_ns) && random_below(++seen) == 0)
            best = &s.items[i];
    }
    return best;
}

static const struct upstream *least_of(const struct upstream *const *list, uint32_t count,
                                       uint64_t now_ns)
{
    const struct upstream *best = NULL;
    float least = 0;
    for (uint32_t i = 0, equal = 0; i < count; i++) {
        float n = load_of(list[i], now_ns);
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

static bool is_among(const struct upstream *u, const struct upstream *const *list, uint32_t count)
{
    while (count > 0 && list[count - 1] != u)
        count--;
    return count > 0;
}

/* That many different ones at random, or fewer when they are not found soon. */
static uint32_t draw(struct upstream_set s, uint32_t wanted, const struct upstream **chosen,
                     uint64_t now_ns)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < TRIES + 2 * wanted && count < wanted; i++) {
        const struct upstream *u = &s.items[random_below(s.count)];
        if (!is_among(u, chosen, count) && upstream_available(u, now_ns))
            chosen[count++] = u;
    }
    return count;
}

const struct upstream *balance_least(struct upstream_set s, uint64_t now_ns)
{
    const struct upstream *best = NULL, *drawn[BALANCE_DRAWN];
    float least = 0;
    if (s.count > BALANCE_MANY && draw(s, BALANCE_DRAWN, drawn, now_ns) == BALANCE_DRAWN)
        return least_of(drawn, BALANCE_DRAWN, now_ns);
    for (uint32_t i = 0, equal = 0; i < s.count; i++) {
        const struct upstream *u = &s.items[i];
        if (!upstream_available(u, now_ns))
            continue;
        float n = load_of(u, now_ns);
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

/* `choose` of those that are available, or all of these. */
static uint32_t choose_some(struct upstream_set s, uint32_t choose, const struct upstream **chosen,
                            uint64_t now_ns)
{
    uint32_t count = 0, seen = 0;
    if (choose < s.count / 4 && draw(s, choose, chosen, now_ns) == choose)
        return choose;
    for (uint32_t i = 0; i < s.count; i++) {
        if (!upstream_available(&s.items[i], now_ns))
            continue;
        uint32_t place = count < choose ? count++ : random_below(seen + 1);
        seen++;
        if (place < choose)
            chosen[place] = &s.items[i];
    }
    return count;
}

const struct upstream *balance_choose(struct upstream_set s, uint32_t choose, uint64_t now_ns)
{
    const struct upstream *chosen[MOST];
    if (choose > MOST)
        choose = MOST;
    return least_of(chosen, choose_some(s, choose, chosen, now_ns), now_ns);
}

/* What a request more would wait, about. Of one that is not known a first answer is awaited before it
 * gets a second request. */
static float cost(const struct upstream *u, uint64_t decay_ns, uint64_t now_ns)
{
    float latency = ewma_read(&u->endpoint->ewma, decay_ns, now_ns);
    float requests = (float)endpoint_requests(u->endpoint);
    if (!has_turn(u, now_ns))
        return 1e20F;
    return latency == 0 ? requests * 1e15F : latency * (requests + 1);
}

const struct upstream *balance_p2c(struct upstream_set s, uint64_t decay_ns, uint64_t now_ns)
{
    const struct upstream *two[2];
    uint32_t count = choose_some(s, 2, two, now_ns);
    if (count < 2)
        return count == 0 ? NULL : two[0];
    float a = cost(two[0], decay_ns, now_ns), b = cost(two[1], decay_ns, now_ns);
    return a < b || (a == b && random_below(2) == 0) ? two[0] : two[1];
}

const struct upstream *balance_round_robin(struct upstream_set s, atomic_uint *turn,
                                           uint64_t now_ns)
{
    const struct upstream *spare = NULL;
    for (uint32_t i = 0; i < s.count; i++) {
        unsigned n = atomic_fetch_add_explicit(turn, 1, memory_order_relaxed) + 1;
        const struct upstream *u = &s.items[n % s.count];
        if (!upstream_available(u, now_ns))
            continue;
        if (has_turn(u, now_ns))
            return u;
        spare = u;
    }
    return spare;
}

/* Whose turn it is by weight; when that one is not available, the next that is and has a weight. */
const struct upstream *balance_weighted(struct upstream_set s, const uint64_t *sums,
                                        atomic_uint *turn, uint64_t now_ns)
{
    const struct upstream *spare = NULL;
    uint64_t total = s.count > 0 ? sums[s.count - 1] : 0;
    uint32_t pick = 0, end = s.count;
    if (total == 0)
        return NULL;
    uint64_t at = (atomic_fetch_add_explicit(turn, 1, memory_order_relaxed) + 1) % total;
    while (pick < end) { /* the first whose sum is above */
        uint32_t middle = pick + (end - pick) / 2;
        if (sums[middle] > at)
            end = middle;
        else
            pick = middle + 1;
    }
    for (uint32_t i = 0; i < s.count; i++) {
        uint32_t n = (pick + i) % s.count;
        bool weighs = sums[n] > (n > 0 ? sums[n - 1] : 0);
        if (!weighs || !upstream_available(&s.items[n], now_ns))
            continue;
        if (has_turn(&s.items[n], now_ns))
            return &s.items[n];
        spare = &s.items[n];
    }
    return spare;
}

/* --- hashing --- */

struct point {
    uint32_t at, index;
};

struct hash_ring {
    struct upstream_set set;
    size_t count;
    struct point points[];
};

static int by_place(const void *a, const void *b)
{
    const struct point *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

struct hash_ring *hash_ring_create(struct upstream_set s)
{
    struct hash_ring *r = mem_zalloc(sizeof *r + (size_t)s.count * POINTS * sizeof r->points[0]);
    r->set = s;
    for (uint32_t i = 0; i < s.count; i++) {
        for (uint32_t n = 0; n < POINTS; n++) {
            const uint64_t seed[2] = {s.items[i].endpoint->hash, n};
            uint64_t h = hash_keyed(SLICE("ring"), seed);
            r->points[r->count++] = (struct point){(uint32_t)(h >> 32), i};
        }
    }
    qsort(r->points, r->count, sizeof r->points[0], by_place);
    return r;
}

void hash_ring_free(struct hash_ring *r)
{
    mem_free(r);
}

const struct upstream *balance_ring(const struct hash_ring *r, struct slice key, uint64_t now_ns)
{
    static const uint64_t seed[2] = {0x72696e67, 0x6b6579};
    uint32_t at = (uint32_t)(hash_keyed(key, seed) >> 32);
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->points[middle].at < at)
            low = middle + 1;
        else
            high = middle;
    }
    for (size_t i = 0; i < r->count; i++) {
        const struct upstream *u = &r->set.items[r->points[(low + i) % r->count].index];
        if (upstream_available(u, now_ns))
            return u;
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

bool balance_chance(double share)
{
    return share >= 1 || random_below(1u << 24) < share * (1u << 24);
}
