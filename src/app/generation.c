/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a document in Caddy's schema to servers and the addresses they answer on. The whole of it
 * happens before anything is opened, so that a bad configuration leaves no trace.
 */
#include "app/generation.h"

#include <stdio.h>

#include "admin/document.h"
#include "app/config_origins.h"
#include "app/https.h"
#include "app/modules.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/jsonx.h"
#include "http/events.h"
#include "http/http_metrics.h"
#include "net/address.h"
#include "services/service.h"

enum { ARENA_CHUNK = 65536, BOUNDS_MAX = 256 };

static const char *const document_members[] = {"admin", "logging", "storage", "apps", "portico",
                                               NULL};
static const char *const portico_members[] = {"sandbox", "user", NULL};
static const char *const app_members[] = {"http", "tls", "pki", "events",
                                          "ports", "services", NULL};
static const char *const http_members[] = {"http_port", "https_port", "grace_period",
                                           "shutdown_delay", "servers", "metrics", NULL};
static const char *const admin_members[] = {"disabled", "listen", "enforce_origin", "origins",
                                            "config", "identity", "remote", NULL};

static enum err read_admin_config(struct generation *g, const json_t *config)
{
    static const char *const known[] = {"persist", "load", "load_delay", NULL};
    struct provision *p = &g->provision;
    if (config == NULL || json_is_null(config))
        return OK;
    p->path = SLICE("admin.config");
    TRY(provision_members(p, config, known));
    if (json_object_get(config, "load") != NULL)
        return provision_fail(p, "loading the configuration from elsewhere is not supported yet");
    TRY(provision_bool(p, config, "persist", true, &g->persist));
    p->path = SLICE("admin");
    return OK;
}

static enum err read_admin(struct generation *g, const json_t *admin)
{
    struct provision *p = &g->provision;
    if (admin == NULL)
        return OK;
    p->path = SLICE("admin");
    TRY(provision_members(p, admin, admin_members));
    if (json_object_get(admin, "remote") != NULL || json_object_get(admin, "identity") != NULL)
        return provision_fail(p, "remote administration is not supported yet");
    TRY(provision_bool(p, admin, "disabled", false, &g->admin_disabled));
    TRY(provision_bool(p, admin, "enforce_origin", false, &g->admin_enforce_origin));
    TRY(provision_text(p, admin, "listen", SLICE_NONE, &g->admin_listen));
    TRY(read_admin_config(g, json_object_get(admin, "config")));
    g->admin_origins_given = json_is_array(json_object_get(admin, "origins"));
    return provision_texts(p, admin, "origins", &g->admin_origins, &g->admin_origins_count);
}

static enum err claim(struct generation *g, const struct http_server *s, struct bound b)
{
    struct provision *p = &g->provision;
    for (size_t i = 0; i < g->bounds_count; i++) {
        if (slice_eq(g->bounds[i].key, b.key))
            return provision_fail(p, "server " SLICE_FMT ": listener address repeated: " SLICE_FMT
                                  " (already claimed by server '" SLICE_FMT "')",
                                  SLICE_ARG(s->name), SLICE_ARG(b.key),
                                  SLICE_ARG(g->bounds[i].server->name));
    }
    if (g->bounds_count == BOUNDS_MAX)
        return provision_fail(p, "more than %d listen addresses", BOUNDS_MAX);
    g->bounds[g->bounds_count++] = b;
    return OK;
}

static enum err read_listen(struct generation *g, const struct http_server *s)
{
    struct network_address a;
    struct address_error why;
    struct provision *p = &g->provision;
    for (size_t i = 0; i < s->listen_count; i++) {
        if (address_parse(s->listen[i], SLICE("tcp"), 0, &a, &g->arena, &why) != OK)
            return provision_fail(p, "parsing listener address '" SLICE_FMT "': %s",
                                  SLICE_ARG(s->listen[i]), why.text);
        for (unsigned port = a.first_port; port <= a.last_port; port++) {
            struct slice host = network_is_unix(a.network) || network_is_fd(a.network)
                                    ? a.host
                                    : arena_printf(&g->arena, "%s" SLICE_FMT "%s:%u",
                                                   slice_find(a.host, ':') != SIZE_MAX ? "[" : "",
                                                   SLICE_ARG(a.host),
                                                   slice_find(a.host, ':') != SIZE_MAX ? "]" : "",
                                                   port);
            struct slice key = arena_join(&g->arena,
                                          (struct slice[]){a.network, SLICE("/"), host}, 3);
            TRY(claim(g, s, (struct bound){key, a.network, a.host, (uint16_t)port, s,
                                           s->listen_protocols[i],
                                           s->tls != NULL && port != g->http_port}));
        }
    }
    return OK;
}

static enum err read_server(struct generation *g, const char *name, const json_t *json)
{
    struct http_server *s = &g->servers[g->servers_count];
    TRY(http_server_provision(s, slice_from(name), json, &g->provision));
    if (g->metrics != NULL)
        http_metrics_attach(g->metrics, s, json, &g->arena);
    s->shutdown_ns = &g->shutdown_ns;
    TRY(https_finish_server(g, s));
    g->servers_count++;
    return read_listen(g, s);
}

/* "metrics" of the app; of a server, as it was once, it means the same. */
static enum err read_metrics(struct generation *g, const json_t *http)
{
    const char *name;
    json_t *server;
    const json_t *metrics = json_object_get(http, "metrics");
    json_object_foreach(json_object_get(http, "servers"), name, server)
    {
        const json_t *own = json_object_get(server, "metrics");
        if (own == NULL || json_is_null(own))
            continue;
        LOG(LOG_WARN, "http", "per-server 'metrics' is deprecated; use 'metrics' in the root 'http' "
            "app instead", LOG_CSTR("server", name));
        metrics = metrics == NULL || json_is_null(metrics) ? own : metrics;
    }
    if (metrics == NULL || json_is_null(metrics))
        return OK;
    g->provision.measuring = g->workers;
    return http_metrics_provision(&g->metrics, metrics, g->workers, &g->provision);
}

static bool absent(const json_t *v)
{
    return v == NULL || json_is_null(v);
}

static enum err read_ports(struct generation *g, const json_t *http)
{
    struct provision *p = &g->provision;
    int64_t port, secure_port;
    p->path = SLICE("apps.http");
    TRY(provision_int(p, http, "http_port", 0, 0, 65535, &port));
    TRY(provision_int(p, http, "https_port", 0, 0, 65535, &secure_port));
    g->http_port = port > 0 ? (uint16_t)port : 80;
    p->http_port = (uint16_t)port;
    p->https_port = (uint16_t)secure_port;
    return OK;
}

static enum err read_http(struct generation *g, const json_t *http)
{
    struct provision *p = &g->provision;
    int64_t ns;
    const char *name;
    json_t *server;
    p->path = SLICE("apps.http");
    TRY(provision_members(p, http, http_members));
    TRY(provision_duration(p, http, "grace_period", 0, &ns));
    g->grace_ns = ns > 0 ? (uint64_t)ns : 0;
    TRY(provision_duration(p, http, "shutdown_delay", 0, &ns));
    g->shutdown_delay_ns = ns > 0 ? (uint64_t)ns : 0;
    TRY(read_metrics(g, http));
    json_t *servers = json_object_get(http, "servers");
    if (servers == NULL)
        return OK;
    if (!json_is_object(servers))
        return provision_fail(p, "\"servers\" must be an object");
    g->servers = ARENA_ARRAY(&g->arena, struct http_server, json_object_size(servers));
    g->bounds = ARENA_ARRAY(&g->arena, struct bound, BOUNDS_MAX);
    json_object_foreach(servers, name, server)
        TRY(read_server(g, name, server));
    return OK;
}

static enum err read_services(struct generation *g, const json_t *app)
{
    struct provision *p = &g->provision;
    p->services = app;
    return services_read(app, g->origins, &g->arena, &g->services, &g->services_count, p->error,
                         sizeof p->error);
}

/* What only this server knows. */
static enum err read_portico(struct generation *g, const json_t *portico)
{
    struct provision *p = &g->provision;
    if (portico == NULL)
        return OK;
    p->path = SLICE("portico");
    TRY(provision_members(p, portico, portico_members));
    TRY(provision_bool(p, portico, "sandbox", false, &p->sandboxed));
    return provision_text(p, portico, "user", SLICE_NONE, &g->user);
}

/* What is declared, where that is known: by lines of the Caddyfile that was adapted here. */
static enum err read_declared(struct generation *g, const json_t *app)
{
    struct provision *p = &g->provision;
    g->has_ports = app != NULL;
    TRY(ports_policy_read(app, g->origins, &g->arena, &g->ports, p->error, sizeof p->error));
    return ports_declared(g->plain, g->origins, &g->arena, &g->declared, &g->declared_count,
                          p->error, sizeof p->error);
}

static enum err read_document(struct generation *g)
{
    struct provision *p = &g->provision;
    p->path = SLICE("config");
    if (!json_is_null(g->plain))
        TRY(provision_members(p, g->plain, document_members));
    TRY(logging_provision(&g->logging, json_object_get(g->plain, "logging"), p));
    p->logs = &g->logging.set;
    TRY(read_portico(g, json_object_get(g->plain, "portico")));
    TRY(read_admin(g, json_object_get(g->plain, "admin")));
    const json_t *apps = json_object_get(g->plain, "apps");
    if (absent(apps))
        return https_provision(g, NULL);
    p->path = SLICE("apps");
    TRY(provision_members(p, apps, app_members));
    TRY(events_provision(json_object_get(apps, "events"), p));
    TRY(read_services(g, json_object_get(apps, "services")));
    if (!absent(json_object_get(apps, "http")))
        TRY(read_ports(g, json_object_get(apps, "http")));
    TRY(read_declared(g, json_object_get(apps, "ports")));
    TRY(https_provision(g, apps));
    if (g->https.http != NULL)
        TRY(read_http(g, g->https.http));
    return https_want_names(g);
}

static enum err keep_document(struct generation *g, json_t *document)
{
    struct provision *p = &g->provision;
    p->path = SLICE("config");
    if (kept_json_set(&g->document, document) != OK)
        return provision_fail(p, "nested deeper than %d levels", JSONX_MAX_DEPTH);
    g->origins = config_origins_of(&g->document);
    bool ids = slice_find_slice(kept_json_text(&g->document), SLICE("\"@id\":")) != SIZE_MAX;
    g->plain = ids ? document_without_ids(document) : json_incref(document);
    return ids ? document_check_ids(document, p->error, sizeof p->error) : OK;
}

/* What was made of the tree has no pointer into it. */
static void drop_tree(struct generation *g)
{
    struct provision *p = &g->provision;
    p->server = p->services = p->tls = NULL;
    auto_https_drop_apps(&g->https);
    json_decref(g->plain);
    g->plain = NULL;
    g->origins = NULL;
}

enum err generation_create(json_t *document, unsigned workers, struct generation **out, char *error,
                           size_t cap)
{
    struct generation *g = NEW(struct generation);
    arena_init(&g->arena, ARENA_CHUNK);
    g->persist = !json_is_null(document);
    g->provision = (struct provision){.arena = &g->arena, .modules = all_modules};
    size_t slots = (size_t)workers * sizeof(struct generation_slot);
    char *raw = arena_zalloc(&g->arena, slots + 64);
    g->slots = (void *)(((uintptr_t)raw + 63) & ~(uintptr_t)63);
    atomic_init(&g->holders, workers);
    g->workers = workers > 0 ? workers : 1;
    *out = NULL;
    enum err e = keep_document(g, document);
    if (e == OK)
        e = read_document(g);
    if (e != OK) {
        snprintf(error, cap, "%s", g->provision.error);
        generation_free(g);
        return e;
    }
    drop_tree(g);
    *out = g;
    return OK;
}

void generation_free(struct generation *g)
{
    logging_close(&g->logging);
    for (struct provision_release *r = g->provision.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    auto_https_free(&g->https);
    kept_json_clear(&g->document);
    json_decref(g->plain);
    arena_deinit(&g->arena);
    mem_free(g);
}

static void on_freed(struct mail *m)
{
    generation_free(CONTAINER_OF(m, struct generation, freed));
    mem_give_back();
}

void generation_keep(struct generation *g)
{
    atomic_fetch_add_explicit(&g->holders, 1, memory_order_relaxed);
}

void generation_let_go(struct generation *g)
{
    if (atomic_fetch_sub_explicit(&g->holders, 1, memory_order_acq_rel) != 1)
        return;
    g->freed.run = on_freed;
    mailbox_post(g->control, &g->freed);
}

void generation_release(struct generation *g, unsigned worker)
{
    struct generation_slot *s = &g->slots[worker];
    if (--s->refs == 0 && s->retired)
        generation_let_go(g);
}

void generation_retire(struct generation *g, unsigned worker)
{
    struct generation_slot *s = &g->slots[worker];
    s->retired = true;
    if (s->refs == 0)
        generation_let_go(g);
}
