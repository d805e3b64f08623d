/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who can reach a port: from the bound address, the interfaces' addresses and scopes, the routes,
 * and the nftables ruleset as far as its rules can be followed. A view is read once per namespace
 * and then asked for each port. Reading is apart from working out, which is pure and tested on
 * recorded views.
 *
 * Reach is by routes: a source reaches the machine where the machine has a route back to it. With a
 * default route that is the world, also for a private address: what translates addresses before this
 * machine (a cloud's gateway, a router's port forwarding) cannot be seen from it, so it is not counted
 * on. Only addresses that no translation leads to are less: loopback, link-local, and IPv6's unique
 * local ones. "world": more than half of a family's public addresses get in.
 */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "ports/port.h"

struct net_view; /* of one namespace */

/* Reads the namespace that the thread is in: rtnetlink for addresses and routes, `nft -j list
 * ruleset` for the rules (needs CAP_NET_ADMIN; without it the view says so and every port behind
 * rules is REACH_UNKNOWN). */
enum err net_view_read(struct arena *, struct net_view **, char *error, size_t cap);

/* Pure: from recorded JSON, {"links": [{"index", "name", "loopback", "kind"}], "addresses": [{"link",
 * "address": "10.0.0.5/24"}], "routes": [{"link", "to": "default" | prefix, "six"}]}, links by index;
 * and a ruleset of `nft -j`, NULL: none. For tests and fuzzers. */
enum err net_view_parse(struct arena *, const json_t *links, const json_t *ruleset,
                        struct net_view **, char *error, size_t cap);

/* Sets reach, reach_from, reach_why of every entry. What could not be read goes into `unseen`. */
void table_reach(struct port_table *);

/* The same for one entry of the view's namespace; slices in the arena. */
void view_reach(const struct net_view *, struct port_entry *, struct arena *);

/* `portico ports explain 3000`: sentences, rule by rule, one per line. */
struct slice reach_explain(const struct net_view *, const struct port_entry *, struct arena *);

/* The same, with the view of the entry's namespace read now; a sentence when it cannot be. */
struct slice table_explain(struct port_table *, const struct port_entry *);
