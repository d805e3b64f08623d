/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing one of several upstreams. Pure but for the shared counters and a random number: the
 * caller says what is hashed, what the weights are, and what time it is. All give NULL when none is
 * available.
 *
 * An upstream that came back a moment ago (slow_ns) is passed over now and then by those that choose at
 * random, by turns and by weights, and counts as having more requests than it has for those that compare.
 */
#pragma once

#include "upstream/endpoint.h"

struct outlier;

struct upstream {
    struct endpoint *endpoint;
    const struct outlier *outlier; /* upstream/outlier.h; NULL: it is never ejected */
    unsigned max_requests; /* 0: no limit */
    unsigned max_fails;    /* 0: failures do not count */
    uint64_t slow_ns;      /* its share rises for so long after it came back; 0: it has all at once */
    const atomic_bool *unhealthy; /* what a check of it found last; NULL: it is not checked */
};

enum { BALANCE_MANY = 256, BALANCE_DRAWN = 32 };

struct upstream_set {
    const struct upstream *items;
    uint32_t count;
};

/* Neither found unhealthy by a check, nor ejected, nor marked as failed. */
bool upstream_well(const struct upstream *, uint64_t now_ns);

/* Neither full, nor found unhealthy by a check, nor marked as failed. */
bool upstream_available(const struct upstream *, uint64_t now_ns);

/* Counts a request, unless the upstream has reached its limit by now. */
bool upstream_reserve(const struct upstream *);

const struct upstream *balance_first(struct upstream_set, uint64_t now_ns);
const struct upstream *balance_random(struct upstream_set, uint64_t now_ns);

/* The fewest requests under way; among equals one at random. Of more than BALANCE_MANY, the fewest
 * of BALANCE_DRAWN at random. */
const struct upstream *balance_least(struct upstream_set, uint64_t now_ns);

/* `choose` at random, of them the one with the fewest requests. */
const struct upstream *balance_choose(struct upstream_set, uint32_t choose, uint64_t now_ns);

/* Of two at random the one with the lower latency of late times requests under way. */
const struct upstream *balance_p2c(struct upstream_set, uint64_t decay_ns, uint64_t now_ns);

const struct upstream *balance_round_robin(struct upstream_set, atomic_uint *turn, uint64_t now_ns);

/* `sums`: for each upstream its weight and those of all before it. */
const struct upstream *balance_weighted(struct upstream_set, const uint64_t *sums,
                                        atomic_uint *turn, uint64_t now_ns);

/* Rendezvous hashing: another set of upstreams moves only what has to move. */
const struct upstream *balance_hash(struct upstream_set, struct slice key, uint64_t now_ns);

/* The same for many that stay what they are, in O(log n): points on a ring. The set's items must live as
 * long. */
struct hash_ring;
struct hash_ring *hash_ring_create(struct upstream_set);
void hash_ring_free(struct hash_ring *);
const struct upstream *balance_ring(const struct hash_ring *, struct slice key, uint64_t now_ns);

/* True for that share (0 … 1) of all calls, at random. */
bool balance_chance(double share);

/* Taken for not available by this thread, while it is set: a second choice is another one. */
extern _Thread_local const struct endpoint *balance_avoided;

/* For tests: this thread's random numbers from here on; how many upstreams it has looked at. */
void balance_seed(uint64_t);
extern _Thread_local uint64_t balance_looks;
