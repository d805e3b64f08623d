/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IP addresses as values, and sets of address ranges to ask "is it in there?". The rules are Go's
 * net/netip: an IPv4 address never matches an IPv6 range, and an IPv4-mapped IPv6 address
 * (::ffff:1.2.3.4) is IPv6.
 */
#pragma once

#include "base/arena.h"

/* Compares with memcmp: first the family, then the bytes. */
struct ip_address {
    uint8_t is_six;
    uint8_t bytes[16]; /* network order; an IPv4 address in the first four, the rest zero */
};

enum { IP_TEXT_MAX = 48 };

/* "192.0.2.1", "2001:db8::1"; no zone, no brackets, no port. */
bool ip_parse(struct slice, struct ip_address *);

/* The canonical text (RFC 5952); returns its length. */
size_t ip_text(const struct ip_address *, char out[IP_TEXT_MAX]);

struct ip_range {
    struct ip_address first, last;
};

/* "10.0.0.0/8" or one address; bits beyond the prefix are ignored. */
bool ip_range_parse(struct slice, struct ip_range *);
bool ip_range_has(const struct ip_range *, const struct ip_address *);

/* Immutable once built; in the arena. */
struct ip_set {
    struct ip_range *ranges; /* sorted, without overlaps */
    size_t count;
};

/* Sorts and merges the ranges, in place. */
struct ip_set ip_set_build(struct ip_range *ranges, size_t count);
bool ip_set_has(const struct ip_set *, const struct ip_address *);
