/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For each address that is served over TLS there is one route, with its names, on the same host at
 * the HTTP port: answers 308 with the same URL and https. Where one of the user's servers listens
 * there, the routes go behind its last one with a host matcher, so that the user's own sites come
 * first and catch-alls come after; else the server "remaining_auto_https_redirects" is made. At the
 * end of each stands a route for all other names: it is not known which may be asked for on demand.
 */
#include "http/auto_redirects.h"

#include <stdlib.h>

struct redirect_name {
    struct redirect_name *next;
    struct slice name;
    unsigned *to; /* indices of addresses, all with one port */
    unsigned count, cap;
};

struct redirect_route {
    struct slice first; /* host; empty: any */
    json_t *json;
};

struct target { /* where redirects are answered */
    struct network_address at;
    struct slice text;
    struct redirect_route *routes;
    size_t count;
};

void redirects_init(struct redirects *r, struct arena *arena, uint16_t http_port,
                    uint16_t https_port)
{
    r->arena = arena;
    r->http_port = http_port;
    r->https_port = https_port;
    r->addresses_count = 0;
    r->names = NULL;
    r->end = &r->names;
    map_init(&r->by_name, true);
}

void redirects_deinit(struct redirects *r)
{
    map_deinit(&r->by_name);
}

/* --- recording --- */

static bool same_address(const struct network_address *a, const struct network_address *b)
{
    return a->first_port == b->first_port && a->last_port == b->last_port &&
           slice_eq(a->network, b->network) && slice_eq(a->host, b->host);
}

static enum err index_of(struct redirects *r, const struct network_address *a, unsigned *index)
{
    for (*index = 0; *index < r->addresses_count; ++*index)
        if (same_address(&r->addresses[*index], a))
            return OK;
    if (r->addresses_count == REDIRECT_ADDRESSES_MAX)
        return ERR_LIMIT;
    r->addresses[r->addresses_count++] = *a;
    return OK;
}

static struct redirect_name *find_name(struct redirects *r, struct slice name)
{
    struct redirect_name *n = map_get(&r->by_name, name);
    if (n != NULL)
        return n;
    n = ARENA_NEW(r->arena, struct redirect_name);
    n->name = name;
    map_put(&r->by_name, name, n);
    *r->end = n;
    r->end = &n->next;
    return n;
}

static void add_index(struct redirects *r, struct redirect_name *n, unsigned index)
{
    if (n->count == n->cap) {
        unsigned cap = n->cap > 0 ? n->cap * 2 : 2;
        unsigned *to = ARENA_ARRAY(r->arena, unsigned, cap);
        if (n->count > 0)
            memcpy(to, n->to, n->count * sizeof *to);
        n->to = to;
        n->cap = cap;
    }
    n->to[n->count++] = index;
}

enum err redirects_record(struct redirects *r, struct slice name, const struct network_address *a)
{
    unsigned index;
    struct redirect_name *n = find_name(r, name);
    TRY(index_of(r, a, &index));
    uint16_t port = n->count > 0 ? r->addresses[n->to[0]].first_port : a->first_port;
    if (a->first_port != port) {
        if (a->first_port != r->https_port)
            return OK;
        n->count = 0;
    }
    for (unsigned i = 0; i < n->count; i++)
        if (n->to[i] == index)
            return OK;
    add_index(r, n, index);
    return OK;
}

/* --- routes --- */

/* The port stands in Location only where clients have to be told it. */
static json_t *make_route(const struct redirects *r, unsigned port, json_t *hosts)
{
    char location[128] = "https://{http.request.host_in_url}{http.request.uri}";
    if (port != r->http_port && port != r->https_port && port != 80 && port != 443)
        snprintf(location, sizeof location,
                 "https://{http.request.host_in_url}:%u{http.request.uri}", port);
    json_t *match = json_pack("{s:s}", "protocol", "http");
    if (hosts != NULL)
        json_object_set(match, "host", hosts);
    return json_pack("{s:[o],s:[{s:s,s:i,s:{s:[s]},s:b}]}", "match", match, "handle", "handler",
                     "static_response", "status_code", 308, "headers", "Location", location,
                     "close", 1);
}

/* The names of each address, as arrays. */
static json_t **group_names(const struct redirects *r)
{
    json_t **groups = ARENA_ARRAY(r->arena, json_t *, r->addresses_count + 1);
    for (const struct redirect_name *n = r->names; n != NULL; n = n->next) {
        for (unsigned i = 0; i < n->count; i++) {
            json_t **group = &groups[n->to[i]];
            if (*group == NULL)
                *group = json_array();
            json_array_append_new(*group, json_stringn(n->name.ptr, n->name.len));
        }
    }
    return groups;
}

static struct slice text_of(const json_t *v)
{
    return slice_of(json_string_value(v), json_string_length(v));
}

static struct target *find_target(const struct redirects *r, struct target *targets, size_t *count,
                                  unsigned index)
{
    struct network_address at = r->addresses[index];
    bool has_port = !network_is_unix(at.network) && !network_is_fd(at.network);
    at.first_port = at.last_port = has_port ? r->http_port : 0;
    for (size_t i = 0; i < *count; i++)
        if (same_address(&targets[i].at, &at))
            return &targets[i];
    struct target *t = &targets[(*count)++];
    *t = (struct target){.at = at, .text = address_text(&at, r->arena)};
    t->routes = ARENA_ARRAY(r->arena, struct redirect_route, r->addresses_count);
    return t;
}

static struct target *make_targets(const struct redirects *r, size_t *count)
{
    json_t **groups = group_names(r);
    struct target *targets = ARENA_ARRAY(r->arena, struct target, r->addresses_count + 1);
    *count = 0;
    for (unsigned i = 0; i < r->addresses_count; i++) {
        if (groups[i] == NULL)
            continue;
        struct target *t = find_target(r, targets, count, i);
        struct slice first = text_of(json_array_get(groups[i], 0));
        bool any = json_array_size(groups[i]) == 1 && first.len == 0;
        json_t *route = make_route(r, r->addresses[i].first_port, any ? NULL : groups[i]);
        t->routes[t->count++] = (struct redirect_route){arena_copy(r->arena, first), route};
        json_decref(groups[i]);
    }
    return targets;
}

static int by_text(const void *a, const void *b)
{
    return slice_cmp(((const struct target *)a)->text, ((const struct target *)b)->text);
}

/* Exact names before wildcards, longer before shorter, those for any name last. */
static int by_specificity(const void *left, const void *right)
{
    struct slice a = ((const struct redirect_route *)left)->first;
    struct slice b = ((const struct redirect_route *)right)->first;
    if ((a.len == 0) != (b.len == 0))
        return a.len == 0 ? 1 : -1;
    bool star_a = slice_find(a, '*') != SIZE_MAX, star_b = slice_find(b, '*') != SIZE_MAX;
    if (star_a != star_b)
        return star_a ? 1 : -1;
    if (a.len != b.len)
        return a.len < b.len ? 1 : -1;
    return slice_cmp(a, b);
}

/* --- servers --- */

/* On Linux a socket for all addresses takes the port of each. */
static bool covers(const struct network_address *listen, const struct network_address *at)
{
    return slice_eq(listen->network, at->network) &&
           (slice_eq(listen->host, at->host) || listen->host.len == 0 || at->host.len == 0) &&
           listen->first_port <= at->first_port && at->first_port <= listen->last_port;
}

static bool listens_at(const struct redirects *r, const json_t *server,
                       const struct network_address *at)
{
    size_t i;
    json_t *v;
    struct network_address a;
    struct address_error why;
    json_array_foreach(json_object_get(server, "listen"), i, v)
    {
        if (json_is_string(v) &&
            address_parse(text_of(v), SLICE("tcp"), 0, &a, r->arena, &why) == OK && covers(&a, at))
            return true;
    }
    return false;
}

static bool has_host(const json_t *route)
{
    size_t i;
    json_t *set;
    json_array_foreach(json_object_get(route, "match"), i, set)
    {
        if (json_object_get(set, "host") != NULL)
            return true;
    }
    return false;
}

/* Behind the last route with a host matcher; without any, before all. */
static size_t insert_position(const json_t *routes)
{
    size_t at = json_array_size(routes);
    while (at > 0 && !has_host(json_array_get(routes, at - 1)))
        at--;
    return at;
}

static void append_catch_all(const struct redirects *r, json_t *routes)
{
    json_array_append_new(routes, make_route(r, r->https_port, NULL));
}

static void add_to_server(const struct redirects *r, json_t *server, const struct target *t,
                          bool any_certificate)
{
    json_t *old = json_object_get(server, "routes");
    json_t *routes = json_is_array(old) ? json_copy(old) : json_array();
    size_t at = insert_position(routes);
    for (size_t i = 0; any_certificate && i < t->count; i++)
        json_array_insert(routes, at + i, t->routes[i].json);
    append_catch_all(r, routes);
    json_object_set_new(server, "routes", routes);
}

static json_t *find_server(const struct redirects *r, json_t *servers, const char *const *order,
                           const struct network_address *at)
{
    for (size_t i = 0; order[i] != NULL; i++) {
        json_t *server = json_object_get(servers, order[i]);
        if (listens_at(r, server, at))
            return server;
    }
    return NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char **sorted_names(const struct redirects *r, json_t *servers)
{
    const char **names = ARENA_ARRAY(r->arena, const char *, json_object_size(servers) + 1), *name;
    json_t *ignored;
    size_t n = 0;
    json_object_foreach(servers, name, ignored)
        names[n++] = name;
    qsort(names, n, sizeof *names, by_name);
    return names;
}

void redirects_apply(struct redirects *r, json_t *servers, bool any_certificate, json_t *logs)
{
    size_t count;
    const char **order = sorted_names(r, servers);
    struct target *targets = make_targets(r, &count);
    json_t *listen = json_array(), *routes = json_array();
    qsort(targets, count, sizeof *targets, by_text);
    for (size_t i = 0; i < count; i++) {
        struct target *t = &targets[i];
        qsort(t->routes, t->count, sizeof *t->routes, by_specificity);
        json_t *server = find_server(r, servers, order, &t->at);
        if (server != NULL)
            add_to_server(r, server, t, any_certificate);
        else
            json_array_append_new(listen, json_stringn(t->text.ptr, t->text.len));
        for (size_t j = 0; j < t->count; j++) {
            if (server == NULL)
                json_array_append(routes, t->routes[j].json);
            json_decref(t->routes[j].json);
        }
    }
    if (json_array_size(listen) > 0) {
        append_catch_all(r, routes);
        json_t *own = json_pack("{s:O,s:O}", "listen", listen, "routes", routes);
        if (logs != NULL)
            json_object_set(own, "logs", logs);
        json_object_set_new(servers, "remaining_auto_https_redirects", own);
    }
    json_decref(listen);
    json_decref(routes);
}
