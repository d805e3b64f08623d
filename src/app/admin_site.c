/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One endpoint runs at a time. A configuration that wants it elsewhere, or for other origins, gets a
 * new one before the old one is closed, so that a bad address leaves the old one running; on the same
 * address the new one takes the old one's socket. Clients are bounded in time as in Caddy (5 s for a
 * head, 10 s for all of a request): each is a fiber, so that a slow one holds up nobody else.
 */
#include "app/admin_site.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "admin/admin.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

struct admin_site {
    struct h1_site site;
    struct op accept;
    struct timer pause; /* accepting again after an error, such as no descriptor left */
    struct http_server server;
    struct arena arena;
    struct provision provision;
    struct network_address address;
    struct slice listen;  /* what it was asked to listen on; in the arena, as is: */
    struct slice checks;  /* whom it answers to, as JSON */
    int fd;
    bool stopping, moved; /* moved: its successor has the socket now */
};

static struct {
    struct loop *loop;
    struct h1_worker *worker;
    const struct admin_host *host;
    struct admin_site *running;
} state;

void admin_site_init(struct loop *loop, struct h1_worker *worker, const struct admin_host *host)
{
    state.loop = loop;
    state.worker = worker;
    state.host = host;
}

/* --- connections --- */

static const struct http_server *current(struct h1_site *s, struct generation **g)
{
    *g = NULL;
    return &CONTAINER_OF(s, struct admin_site, site)->server;
}

static void on_exchange_done(struct h1_site *s, struct generation *g)
{
    (void)s;
    (void)g;
}

static void free_site(struct admin_site *a)
{
    if (a->accept.armed || a->site.count > 0)
        return;
    if (a->fd >= 0)
        loop_close(state.loop, a->fd);
    arena_deinit(&a->arena);
    mem_free(a);
}

static void on_empty(struct h1_site *s)
{
    struct admin_site *a = CONTAINER_OF(s, struct admin_site, site);
    if (a->stopping)
        free_site(a);
}

static void on_accept(struct op *op, int result)
{
    struct admin_site *a = CONTAINER_OF(op, struct admin_site, accept);
    if (result >= 0)
        h1_conn_open(state.worker, &a->site, result);
    if (op->armed)
        return;
    if (a->stopping)
        free_site(a);
    else if (result < 0)
        timer_start(state.loop, &a->pause, loop_now_ns(state.loop) + ACCEPT_PAUSE_NS);
    else
        op_accept(state.loop, &a->accept, a->fd);
}

static void on_pause_end(struct timer *t)
{
    struct admin_site *a = CONTAINER_OF(t, struct admin_site, pause);
    op_accept(state.loop, &a->accept, a->fd);
}

static void close_site(struct admin_site *a)
{
    a->stopping = true;
    if (!a->moved)
        state.host->release(&a->address);
    timer_stop(&a->pause);
    op_cancel(state.loop, &a->accept);
    h1_site_drain(state.worker, &a->site);
}

void admin_site_close(void)
{
    struct admin_site *a = state.running;
    state.running = NULL;
    if (a != NULL)
        close_site(a);
}

/* --- what a configuration asks for --- */

static bool is_loopback(struct slice host)
{
    return slice_is(host, "localhost") || slice_is(host, "::1") ||
           slice_starts(host, SLICE("127."));
}

static bool is_local_file(const struct network_address *a)
{
    return network_is_unix(a->network) || network_is_fd(a->network);
}

static void add_host(json_t *hosts, struct slice host, unsigned port)
{
    char text[320];
    bool v6 = slice_find(host, ':') != SIZE_MAX;
    snprintf(text, sizeof text, "%s" SLICE_FMT "%s:%u", v6 ? "[" : "",
             SLICE_ARG(slice_take(host, 255)), v6 ? "]" : "", port);
    json_array_append_new(hosts, json_string(text));
}

/* Which values of Host and Origin the API answers to. */
static json_t *allowed_hosts(const struct network_address *a, const struct generation *g)
{
    json_t *hosts = json_array();
    for (size_t i = 0; i < g->admin_origins_count; i++)
        json_array_append_new(hosts, json_stringn(g->admin_origins[i].ptr, g->admin_origins[i].len));
    if (g->admin_origins_given || is_local_file(a))
        return hosts;
    if (is_loopback(a->host)) {
        add_host(hosts, SLICE("localhost"), a->first_port);
        add_host(hosts, SLICE("::1"), a->first_port);
        add_host(hosts, SLICE("127.0.0.1"), a->first_port);
    } else {
        add_host(hosts, a->host, a->first_port);
    }
    return hosts;
}

/* The Host is not checked on a wildcard, where it may be anything, nor on a Unix socket, which no
 * browser can reach. */
static json_t *server_json(const struct network_address *a, const struct generation *g)
{
    bool open_to_all = a->host.len == 0 || slice_is(a->host, "0.0.0.0") || slice_is(a->host, "::") ||
                       is_local_file(a);
    return json_pack("{s:[{s:[{s:s,s:o,s:b,s:b}]}],s:s,s:s,s:s,s:i}", "routes", "handle", "handler",
                     "portico_admin", "hosts", allowed_hosts(a, g), "enforce_host", !open_to_all,
                     "enforce_origin", g->admin_enforce_origin, "read_header_timeout", "5s",
                     "read_timeout", "10s", "idle_timeout", "60s", "max_header_bytes", 64 * 1024);
}

static enum err provision_server(struct admin_site *a, const struct generation *g)
{
    static const struct module *const modules[] = {&module_admin_api, NULL};
    json_t *json = server_json(&a->address, g);
    char *text = json_dumps(json, JSON_COMPACT);
    a->checks = arena_copy(&a->arena, slice_from(text));
    mem_free(text);
    a->provision = (struct provision){.arena = &a->arena, .modules = modules};
    enum err e = http_server_provision(&a->server, SLICE("admin"), json, &a->provision);
    json_decref(json);
    return e;
}

static struct slice wanted(const struct generation *g)
{
    const char *env = getenv("CADDY_ADMIN");
    if (g->admin_listen.len > 0)
        return g->admin_listen;
    return slice_from(env != NULL && env[0] != '\0' ? env : ADMIN_DEFAULT);
}

static enum err parse_address(struct admin_site *a, char *error, size_t cap)
{
    struct address_error why;
    enum err e = address_parse(a->listen, SLICE("tcp"), 0, &a->address, &a->arena, &why);
    if (e != OK) {
        snprintf(error, cap, "parsing listener address: %s", why.text);
    } else if (a->address.first_port != a->address.last_port) {
        snprintf(error, cap, "must be exactly one listener address; cannot listen on: " SLICE_FMT,
                 SLICE_ARG(slice_take(a->listen, 300)));
        e = ERR_INVALID;
    } else if (!is_local_file(&a->address) && slice_find(a->listen, ':') == SIZE_MAX) {
        snprintf(error, cap, "the admin address " SLICE_FMT " has no port",
                 SLICE_ARG(slice_take(a->listen, 300)));
        e = ERR_INVALID;
    }
    return e;
}

/* One socket cannot be the API's and a site's: whoever accepts first would answer. */
static enum err check_apart(const struct admin_site *a, const struct generation *g, char *error,
                            size_t cap)
{
    for (size_t i = 0; i < g->bounds_count; i++) {
        const struct bound *b = &g->bounds[i];
        if (b->port == a->address.first_port && slice_eq(b->network, a->address.network) &&
            slice_eq(b->host, a->address.host)) {
            snprintf(error, cap, "the admin endpoint and a server both listen on " SLICE_FMT
                     ": give one of them another address", SLICE_ARG(a->listen));
            return ERR_EXISTS;
        }
    }
    return OK;
}

/* On the address that it has, the endpoint keeps its socket. */
static enum err take_socket(struct admin_site *a, char *error, size_t cap)
{
    const struct admin_site *old = state.running;
    if (old == NULL || !slice_eq(old->listen, a->listen))
        return state.host->open(&a->address, &a->fd, error, cap);
    a->fd = fcntl(old->fd, F_DUPFD_CLOEXEC, 0);
    if (a->fd >= 0)
        return OK;
    snprintf(error, cap, "the admin endpoint: out of file descriptors");
    return ERR_LIMIT;
}

static struct admin_site *new_site(struct slice listen)
{
    struct admin_site *a = NEW(struct admin_site);
    arena_init(&a->arena, 8192);
    a->fd = -1;
    a->listen = arena_copy(&a->arena, listen);
    a->site = (struct h1_site){.server = &a->server, .current = current, .done = on_exchange_done,
                               .on_empty = on_empty};
    a->accept.on_done = on_accept;
    timer_init(&a->pause, on_pause_end);
    return a;
}

enum err admin_site_prepare(const struct generation *g, struct admin_site **out, char *error,
                            size_t cap)
{
    *out = NULL;
    if (g->admin_disabled)
        return OK;
    struct admin_site *a = new_site(wanted(g));
    enum err e = parse_address(a, error, cap);
    if (e == OK)
        e = check_apart(a, g, error, cap);
    if (e == OK && (e = provision_server(a, g)) != OK)
        snprintf(error, cap, "%s", a->provision.error);
    const struct admin_site *old = state.running;
    bool same = e == OK && old != NULL && slice_eq(old->listen, a->listen) &&
                slice_eq(old->checks, a->checks);
    if (e == OK && !same)
        e = take_socket(a, error, cap);
    if (e == OK && !same)
        *out = a;
    else
        free_site(a);
    return e;
}

void admin_site_commit(const struct generation *g, struct admin_site *fresh)
{
    struct admin_site *old = state.running;
    if (g->admin_disabled) {
        LOG(LOG_WARN, "admin", "admin endpoint disabled");
        admin_site_close();
        return;
    }
    if (fresh == NULL)
        return;
    if (old != NULL) {
        old->moved = slice_eq(old->listen, fresh->listen);
        close_site(old);
    }
    state.running = fresh;
    op_accept(state.loop, &fresh->accept, fresh->fd);
    LOG(LOG_INFO, "admin", "admin endpoint started", LOG_STR("address", fresh->listen),
        LOG_BOOLEAN("enforce_origin", g->admin_enforce_origin));
}
