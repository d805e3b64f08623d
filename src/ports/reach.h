/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who can reach a port: from the bound address, the interfaces' addresses and scopes, the routes,
 * and the nftables ruleset as far as its rules can be followed. A view is read once per namespace
 * and then asked for each port. Reading is apart from working out, which is pure and tested on
 * recorded views.
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

/* Pure: from recorded JSON (of `ip -j address`, `ip -j route` in our own small form: see reach.c)
 * and a ruleset of `nft -j`. For tests and fuzzers. */
enum err net_view_parse(struct arena *, const json_t *links, const json_t *ruleset,
                        struct net_view **, char *error, size_t cap);

/* Sets reach, reach_from, reach_why of every entry. */
void table_reach(struct port_table *);

/* `portico ports explain 3000`: sentences, rule by rule, one per line. */
struct slice reach_explain(const struct net_view *, const struct port_entry *, struct arena *);
