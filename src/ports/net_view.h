/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A namespace as packets see it: its links, addresses, routes and rules.
 */
#pragma once

#include "ports/nft_ruleset.h"

struct net_link {
    unsigned index;
    struct slice name;
    struct slice kind; /* "veth", "bridge", "macvlan"; empty: none is told */
    bool up, loopback;
    struct ranges routed[2]; /* IPv4, IPv6: where packets of that link can come from */
};

struct net_address {
    unsigned link;
    struct ip_address address;
    struct ip_range network; /* on its link */
};

struct net_route {
    unsigned link; /* 0: any */
    struct ip_range to;
};

struct net_view {
    struct net_link *links;
    size_t links_count;
    struct net_address *addresses;
    size_t addresses_count;
    struct net_route *routes;
    size_t routes_count;
    const struct nft_ruleset *ruleset; /* never NULL */
    struct slice rules_unread;         /* why the rules are not known; empty: they are */
};

enum net_dump { NET_LINKS, NET_ADDRESSES, NET_ROUTES };

/* Pure: bytes of netlink messages, appended to the view. ERR_INVALID when they are none; `done`: the
 * end of the list has come. */
enum err net_view_bytes(struct arena *, struct slice, struct net_view *, bool *done);

/* When all is read: what each link's packets can come from. */
void net_view_finish(struct arena *, struct net_view *);

const struct net_link *net_link_of(const struct net_view *, unsigned index);
bool net_is_local(const struct net_view *, const struct ip_address *);
