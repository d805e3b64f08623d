/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All ports that a document names. Sites are told by the keys of the Caddyfile where these are
 * known, else by the first host that their server's routes match. The redirects of automatic HTTPS
 * are no part of a document; where they will be is worked out here as far as a reader needs it: a
 * server on HTTPS's port that has names, and none on HTTP's.
 */
#include "ports/declared.h"

#include <stdio.h>

#include "net/address.h"

enum { DEPTH_MAX = 1000, NAMES_MAX = 32 };

/* Of a walk over JSON. */
struct frame {
    const json_t *value;
    void *iter;
    size_t index;
};

struct walk {
    struct frame *stack; /* DEPTH_MAX of them */
    const struct origins *origins;
    struct declarations list;
    const json_t *apps;
    uint16_t http_port, https_port;
    bool http_port_taken; /* by a server of the document */
};

struct port_declaration *declarations_add(struct declarations *l)
{
    if (l->count == l->cap) {
        size_t cap = l->cap > 0 ? 2 * l->cap : 32;
        struct port_declaration *more = ARENA_ARRAY(l->arena, struct port_declaration, cap);
        if (l->count > 0)
            memcpy(more, l->items, l->count * sizeof *more);
        l->items = more;
        l->cap = cap;
    }
    return &l->items[l->count++];
}

bool host_is_loopback(struct slice host)
{
    return slice_is(host, "localhost") || slice_is(host, "::1") || slice_starts(host, SLICE("127."));
}

static struct slice text_of(const json_t *v)
{
    return slice_of(json_string_value(v), json_string_length(v));
}

static const struct origin *find_origins(const struct walk *w, struct slice path, size_t *count)
{
    *count = 0;
    return w->origins != NULL ? origins_find(w->origins, path, count) : NULL;
}

static void take_origin(struct walk *w, struct port_declaration *d, const struct origin *o)
{
    d->name = arena_copy(w->list.arena, o->name);
    d->file = arena_copy(w->list.arena, o->file);
    d->line = o->line;
}

/* False for what is no port: Unix sockets, descriptors, what does not parse, placeholders. */
static bool read_address(struct walk *w, struct slice text, struct port_declaration *d)
{
    struct network_address a;
    struct address_error why;
    if (slice_find(text, '{') != SIZE_MAX ||
        address_parse(text, SLICE("tcp"), 0, &a, w->list.arena, &why) != OK ||
        network_is_unix(a.network) || network_is_fd(a.network) || a.first_port == 0)
        return false;
    d->protocol = slice_starts(a.network, SLICE("udp")) ? PORT_UDP : PORT_TCP;
    d->first = a.first_port;
    d->last = a.last_port;
    bool any = slice_is(a.host, "0.0.0.0") || slice_is(a.host, "::");
    d->host = any ? SLICE_NONE : arena_copy(w->list.arena, a.host);
    d->reach = host_is_loopback(d->host) ? REACH_DEVICE : REACH_UNKNOWN;
    return true;
}

/* --- sites --- */

/* Whether a handler does nothing but send to HTTPS, or help others to. */
static bool is_redirect(const json_t *handler)
{
    struct slice name = text_of(json_object_get(handler, "handler"));
    if (slice_is(name, "static_response"))
        return json_object_get(json_object_get(handler, "headers"), "Location") != NULL;
    return slice_is(name, "vars") || slice_is(name, "headers") || slice_is(name, "log_append");
}

/* Visits every object and list below `root`, without recursion; `visit` says whether to go on. */
static void walk_json(const json_t *root, struct frame *stack,
                      bool (*visit)(void *arg, const json_t *), void *arg)
{
    size_t depth = 0;
    const json_t *next = root;
    for (;;) {
        if (next != NULL && (json_is_object(next) || json_is_array(next)) && depth < DEPTH_MAX) {
            if (!visit(arg, next))
                return;
            stack[depth++] = (struct frame){next, json_object_iter((json_t *)next), 0};
        }
        if (depth == 0)
            return;
        struct frame *f = &stack[depth - 1];
        if (json_is_array(f->value)) {
            next = json_array_get(f->value, f->index++);
            depth -= next == NULL;
        } else {
            next = json_object_iter_value(f->iter);
            depth -= f->iter == NULL;
            f->iter = json_object_iter_next((json_t *)f->value, f->iter);
        }
    }
}

static bool visit_handler(void *arg, const json_t *value)
{
    bool *plain = arg;
    const json_t *name = json_object_get(value, "handler");
    if (json_is_string(name) && !slice_is(text_of(name), "subroute") && !is_redirect(value))
        *plain = true;
    return !*plain;
}

struct names {
    struct slice first;
};

static bool visit_host(void *arg, const json_t *value)
{
    struct names *n = arg;
    const json_t *host = json_object_get(value, "host");
    if (json_is_array(host) && json_is_string(json_array_get(host, 0)))
        n->first = text_of(json_array_get(host, 0));
    return n->first.len == 0;
}

static struct slice first_host(struct walk *w, const json_t *server)
{
    struct names n = {SLICE_NONE};
    const json_t *routes = json_object_get(server, "routes");
    for (size_t i = 0; i < json_array_size(routes) && n.first.len == 0; i++)
        walk_json(json_object_get(json_array_get(routes, i), "match"), w->stack, visit_host, &n);
    return n.first;
}

static void add_listener(struct walk *w, const char *name, const json_t *server, struct slice text)
{
    struct port_declaration d = {.by = DECLARED_SITE};
    if (!read_address(w, text, &d))
        return;
    struct slice host = first_host(w, server);
    d.name = arena_copy(w->list.arena, host.len > 0 ? host : slice_from(name));
    if (d.first == w->http_port)
        walk_json(json_object_get(server, "routes"), w->stack, visit_handler, &d.plain);
    struct slice path = arena_printf(w->list.arena, "listen " SLICE_FMT, SLICE_ARG(text));
    size_t count;
    const struct origin *o = find_origins(w, path, &count);
    for (size_t i = 0; i < count && i < NAMES_MAX; i++) {
        take_origin(w, &d, &o[i]);
        *declarations_add(&w->list) = d;
    }
    if (count == 0)
        *declarations_add(&w->list) = d;
    w->http_port_taken = w->http_port_taken || (d.first <= w->http_port && d.last >= w->http_port);
}

/* The redirects that automatic HTTPS will add: on HTTP's port, for the sites from `first` on. */
static void add_redirects(struct walk *w, const json_t *server, size_t first)
{
    const json_t *automatic = json_object_get(server, "automatic_https");
    if (json_is_true(json_object_get(automatic, "disable")) ||
        json_is_true(json_object_get(automatic, "disable_redirects")) || first_host(w, server).len == 0)
        return;
    size_t end = w->list.count;
    for (size_t i = first; i < end; i++) {
        struct port_declaration d = w->list.items[i];
        if (d.first != w->https_port || d.by != DECLARED_SITE)
            continue;
        d.first = d.last = w->http_port;
        *declarations_add(&w->list) = d;
    }
}

static uint16_t port_member(const json_t *o, const char *key, uint16_t fallback)
{
    json_int_t n = json_integer_value(json_object_get(o, key));
    return n > 0 && n < 65536 ? (uint16_t)n : fallback;
}

static void add_servers(struct walk *w)
{
    const json_t *http = json_object_get(w->apps, "http");
    json_t *servers = json_object_get(http, "servers"), *server;
    const char *name;
    w->http_port = port_member(http, "http_port", 80);
    w->https_port = port_member(http, "https_port", 443);
    size_t first = w->list.count;
    json_object_foreach(servers, name, server) {
        const json_t *listen = json_object_get(server, "listen");
        for (size_t i = 0; i < json_array_size(listen); i++)
            add_listener(w, name, server, text_of(json_array_get(listen, i)));
    }
    if (w->http_port_taken)
        return;
    json_object_foreach(servers, name, server) {
        size_t before = w->list.count;
        add_redirects(w, server, first);
        if (w->list.count > before)
            return;
    }
}

/* --- services --- */

/* Each replica has a port of its own, upwards from the service's. One that is given from a range is
 * found by its owner's name: port 0 here. */
static void add_service(struct walk *w, const json_t *s, size_t index)
{
    struct port_declaration d = {.by = DECLARED_SERVICE, .reach = REACH_DEVICE};
    size_t count;
    json_int_t replicas = json_integer_value(json_object_get(s, "replicas"));
    const json_t *host = json_object_get(s, "host");
    const struct origin *o = find_origins(
        w, arena_printf(w->list.arena, "apps.services.services[%zu]", index), &count);
    if (o != NULL)
        take_origin(w, &d, o);
    d.name = arena_copy(w->list.arena, text_of(json_object_get(s, "name")));
    d.host = host != NULL ? arena_copy(w->list.arena, text_of(host)) : SLICE("127.0.0.1");
    if (!host_is_loopback(d.host))
        d.reach = REACH_UNKNOWN;
    d.first = port_member(s, "port", 0);
    if (slice_is(d.host, "0.0.0.0") || slice_is(d.host, "::"))
        d.host = SLICE_NONE;
    json_int_t last = d.first + (replicas > 1 && replicas <= 64 ? replicas - 1 : 0);
    d.last = d.first == 0 ? 0 : (uint16_t)(last < 65536 ? last : 65535);
    d.on_demand = json_object_get(s, "on_demand") != NULL;
    *declarations_add(&w->list) = d;
}

static void add_services(struct walk *w)
{
    const json_t *list = json_object_get(json_object_get(w->apps, "services"), "services");
    for (size_t i = 0; i < json_array_size(list); i++)
        add_service(w, json_array_get(list, i), i);
}

/* --- upstreams --- */

/* Those of this machine; others are no ports of ours. */
static void add_upstream(struct walk *w, struct slice dial)
{
    struct port_declaration d = {.by = DECLARED_UPSTREAM};
    size_t count;
    if (!read_address(w, dial, &d) || (d.host.len > 0 && !host_is_loopback(d.host)))
        return;
    for (size_t i = 0; i < w->list.count; i++) {
        const struct port_declaration *o = &w->list.items[i];
        if (o->by == DECLARED_UPSTREAM && o->first == d.first && slice_eq(o->name, dial))
            return;
    }
    d.reach = REACH_UNKNOWN;
    d.name = arena_copy(w->list.arena, dial);
    const struct origin *o = find_origins(
        w, arena_printf(w->list.arena, "upstream " SLICE_FMT, SLICE_ARG(dial)), &count);
    if (o != NULL)
        take_origin(w, &d, o);
    *declarations_add(&w->list) = d;
}

/* "dynamic_upstreams": {"source": "service", "name": "simon"}, or one of those of "multi". */
static void note_use(struct walk *w, const json_t *source)
{
    struct slice name = text_of(json_object_get(source, "name"));
    if (!slice_is(text_of(json_object_get(source, "source")), "service"))
        return;
    for (size_t i = 0; i < w->list.count; i++) {
        struct port_declaration *d = &w->list.items[i];
        d->used = d->used || (d->by == DECLARED_SERVICE && slice_eq(d->name, name));
    }
}

static bool visit_proxy(void *arg, const json_t *value)
{
    note_use(arg, value);
    const json_t *list = json_object_get(value, "upstreams");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *dial = json_object_get(json_array_get(list, i), "dial");
        if (json_is_string(dial))
            add_upstream(arg, text_of(dial));
    }
    const json_t *mirror = json_object_get(json_object_get(value, "mirror"), "dial");
    if (json_is_string(mirror))
        add_upstream(arg, text_of(mirror));
    return true;
}

/* --- the rest --- */

static void add_admin(struct walk *w, const json_t *document)
{
    const json_t *admin = json_object_get(document, "admin");
    struct slice listen = text_of(json_object_get(admin, "listen"));
    struct port_declaration d = {.by = DECLARED_ADMIN};
    if (json_is_true(json_object_get(admin, "disabled")) ||
        !read_address(w, listen.len > 0 ? listen : SLICE("localhost:2019"), &d))
        return;
    size_t count;
    const struct origin *o = find_origins(w, SLICE("admin"), &count);
    if (o != NULL)
        take_origin(w, &d, o);
    d.name = SLICE("admin API");
    *declarations_add(&w->list) = d;
}

enum err ports_declared(const json_t *document, const struct origins *origins, struct arena *arena,
                        const struct port_declaration **out, size_t *count, char *error, size_t cap)
{
    struct walk w = {.origins = origins, .list = {.arena = arena},
                     .apps = json_object_get(document, "apps")};
    struct ports_policy policy;
    *out = NULL;
    *count = 0;
    if (document == NULL || json_is_null(document))
        return OK;
    w.stack = ARENA_ARRAY(arena, struct frame, DEPTH_MAX);
    TRY(ports_policy_read(json_object_get(w.apps, "ports"), origins, arena, &policy, error, cap));
    for (size_t i = 0; i < policy.count; i++)
        *declarations_add(&w.list) = policy.items[i];
    add_servers(&w);
    add_services(&w);
    walk_json(json_object_get(w.apps, "http"), w.stack, visit_proxy, &w);
    add_admin(&w, document);
    *out = w.list.items;
    *count = w.list.count;
    return declarations_conflict(w.list.items, w.list.count, error, cap);
}
