/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes: lists of (matcher sets, handlers), walked as Caddy does. A matcher set is an AND, the
 * sets of a route are an OR; a route in a group runs only when none of its group ran before; a
 * terminal route ends the walk. Matchers are evaluated when the walk reaches the route, so that
 * they see what earlier handlers rewrote.
 */
#pragma once

#include "http/module.h"

struct matcher {
    const struct module *module;
    void *cfg;
};

struct matcher_set {
    struct matcher *matchers;
    uint32_t count;
};

struct handler {
    const struct module *module;
    void *cfg;
};

struct route {
    struct matcher_set *sets; /* none: matches all */
    uint32_t sets_count;
    struct handler *handlers;
    uint32_t handlers_count;
    uint16_t group; /* 0: none */
    bool terminal;
    const struct meter *meter; /* http/http_metrics.h; NULL: nothing is counted */
};

struct route_list {
    struct route *routes;
    uint32_t count;
    const struct host_index *hosts; /* NULL where it would not pay; route.c's */
};

/* A route that "invoke" runs by its name. */
struct named_route {
    struct slice name;
    struct route_list list; /* that one route */
};

/* Where a walk stands: what comes when the handler in hand calls on. Lives on callers' frames. */
struct chain {
    const struct route_list *list;
    const struct route *route;  /* NULL: before the first route of the list */
    uint32_t next_handler;
    const struct chain *after; /* what follows the list's end; NULL: nothing */
};

/* Provisions the JSON array of routes ("routes" of a server or subroute). `json` may be NULL. */
enum err route_list_provision(struct route_list *, const json_t *json, struct provision *);

/* The object "named_routes" of a server, into p->named_routes, where invoke finds them. Their names
 * are known before the first of them is provisioned. */
enum err named_routes_provision(const json_t *json, struct provision *);
const struct named_route *named_route_find(const struct provision *, struct slice name);

/* Provisions the JSON array of matcher sets ("match"). */
enum err matcher_sets_provision(struct matcher_set **, uint32_t *count, const json_t *json,
                                struct provision *);
enum err matcher_sets_match(const struct matcher_set *, uint32_t count, struct exchange *,
                            bool *matches);

/* Goes on with the next handler or the next matching route; OK when the walk ended (answered or
 * not). What a handler's `next` is for. */
enum err chain_next(struct exchange *, const struct chain *);

/* Walks a list from its start; `after` follows its end. */
enum err route_list_run(const struct route_list *, struct exchange *, const struct chain *after);
