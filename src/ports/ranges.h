/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets of addresses as sorted, disjoint, non-touching ranges, and their arithmetic: what is in both,
 * in one of them, in one only. Results are new arrays of the arena; arguments are left alone.
 */
#pragma once

#include "net/ip_set.h"

struct ranges {
    const struct ip_range *items;
    size_t count;
};

#define RANGES_NONE ((struct ranges){NULL, 0})

/* The whole address space of a family. */
struct ranges ranges_all(bool six);

/* Any ranges, unsorted and overlapping; copied. */
struct ranges ranges_of(struct arena *, const struct ip_range *, size_t count);
/* A set that ip_set_build made is one already, but for ranges that touch: used as it is. */
struct ranges ranges_or(struct arena *, struct ranges, struct ranges);
struct ranges ranges_and(struct arena *, struct ranges, struct ranges);
struct ranges ranges_minus(struct arena *, struct ranges, struct ranges);
bool ranges_equal(struct ranges, struct ranges);

/* The part of one family. */
struct ranges ranges_family(struct arena *, struct ranges, bool six);

/* The share of a family's addresses, 0 … 1. */
double ranges_share(struct ranges, bool six);

/* The prefixes that make up a range, as text ("10.0.0.0/8", "192.0.2.1"), with commas: at most
 * `most` of them, then "and N more". */
struct slice ranges_text(struct ranges, size_t most, struct arena *);

/* Calls `each` with every prefix: an address and the length of its prefix. */
void range_prefixes(const struct ip_range *, void (*each)(void *, const struct ip_address *, unsigned),
                    void *context);
