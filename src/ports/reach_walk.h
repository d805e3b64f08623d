/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One port of a view, asked of every link: what reach.c gives a word and reach_explain.c a text.
 */
#pragma once

#include "ports/net_view.h"
#include "ports/nft_walk.h"
#include "ports/port.h"

struct reach_ask {
    const struct net_view *view;
    const struct port_entry *entry;
    struct arena *arena;

    /* What was found. */
    struct ranges sure, unsure, carried;
    struct slice why;

    /* For a text; may be NULL. `from`: what can come by that link. */
    void (*begin)(void *, const struct net_link *, bool six, struct ranges from);
    void (*trace)(void *, const struct nft_step *);
    void *context;
};

/* From outside: every link but the loopback one. */
void reach_walk(struct reach_ask *);

/* From this machine: by the loopback link. Fills the same fields. */
void reach_walk_device(struct reach_ask *);

enum reach_kind {
    REACH_WIDE,         /* as far as there are routes */
    REACH_UNIQUE_LOCAL, /* fc00::/7 */
    REACH_LINK,         /* fe80::/10, 169.254.0.0/16: its own link */
    REACH_MULTICAST,    /* the link's own addresses */
    REACH_LOOPBACK,
    REACH_KINDS,
};
enum reach_kind reach_kind_of(const struct ip_address *);
bool reach_is_every(const struct ip_address *); /* 0.0.0.0, :: */

/* The entry's address, without IPv6's wrapping of an IPv4 address. */
struct ip_address reach_address(const struct port_entry *, bool *mapped);
bool reach_has_family(const struct port_entry *, bool six);

/* More than half of the public addresses of one of the families. */
bool reach_is_world(struct ranges);
