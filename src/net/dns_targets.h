/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that DNS has to say of a name, where a resolver's few best addresses are not enough: every
 * address of a host, or the targets of a service (SRV, RFC 2782). Nothing is remembered here.
 */
#pragma once

#include "net/resolver.h"

enum { DNS_TARGETS_MAX = 1024 };

enum dns_kind {
    DNS_ADDRESSES, /* of both families, best first (RFC 6724); /etc/hosts counts */
    DNS_FOUR,
    DNS_SIX,
    DNS_SERVICES, /* by priority, and within one shuffled by weight */
};

struct dns_target {
    char host[256]; /* a name without its last dot, or an address as text */
    uint16_t port, priority, weight; /* of services */
};

struct dns_targets {
    struct dns_target *items; /* malloc'd: mem_free */
    size_t count;
    size_t dropped;           /* targets whose name is none */
    const char *why;          /* a constant phrase behind an error */
};

/* On a fiber; may wait. Errors as of await_resolve; a service that says of itself that it is not to
 * be had ("." as its target) has no targets. */
enum err resolver_await_targets(struct resolver *, struct slice name, enum dns_kind,
                                uint64_t deadline_ns, struct dns_targets *);

/* Sorts them so; `below(n)` gives a random number below n. */
void dns_targets_order(struct dns_targets *, uint32_t (*below)(uint32_t n));
