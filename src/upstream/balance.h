/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing one of several upstreams. Pure but for the shared counters and a random number: the
 * caller says what is hashed, what the weights are, and what time it is. All give NULL when none is
 * available.
 */
#pragma once

#include "upstream/endpoint.h"

struct upstream {
    struct endpoint *endpoint;
    unsigned max_requests; /* 0: no limit */
    unsigned max_fails;    /* 0: failures do not count */
    const atomic_bool *unhealthy; /* what a check of it found last; NULL: it is not checked */
};

struct upstream_set {
    const struct upstream *items;
    uint32_t count;
};

/* Neither full, nor found unhealthy by a check, nor marked as failed. */
bool upstream_available(const struct upstream *, uint64_t now_ns);

const struct upstream *balance_first(struct upstream_set, uint64_t now_ns);
const struct upstream *balance_random(struct upstream_set, uint64_t now_ns);

/* The fewest requests under way; among equals one at random. */
const struct upstream *balance_least(struct upstream_set, uint64_t now_ns);

/* `choose` at random, of them the one with the fewest requests. */
const struct upstream *balance_choose(struct upstream_set, uint32_t choose, uint64_t now_ns);

const struct upstream *balance_round_robin(struct upstream_set, atomic_uint *turn, uint64_t now_ns);

/* `weights`: one per upstream, not negative, at least one positive. */
const struct upstream *balance_weighted(struct upstream_set, const uint32_t *weights,
                                        atomic_uint *turn, uint64_t now_ns);

/* Rendezvous hashing: another set of upstreams moves only what has to move. */
const struct upstream *balance_hash(struct upstream_set, struct slice key, uint64_t now_ns);
