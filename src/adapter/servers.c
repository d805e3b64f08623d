/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server of Caddy's JSON for each pairing: its sites from the most specific to the one that
 * catches all, each a route that matches its hosts and ends there.
 */
#include "adapter/sites.h"

#include <stdio.h>
#include <stdlib.h>

#include "adapter/conn_policy.h"
#include "adapter/directives.h"
#include "base/log.h"
#include "base/map.h"
#include "net/address.h"

static const char *const server_keys[] = {
    "listen", "listener_wrappers", "packet_conn_wrappers", "read_timeout", "read_header_timeout",
    "read_idle_timeout", "read_min_rate", "write_timeout", "write_idle_timeout", "write_min_rate",
    "max_write_chunk", "idle_timeout", "keepalive_interval", "keepalive_idle", "keepalive_count",
    "max_header_bytes", "enable_full_duplex", "expected_underscore_headers",
    "expected_dot_headers", "routes", "errors", "named_routes", "tls_connection_policies",
    "automatic_https", "strict_sni_host", "trusted_proxies", "client_ip_headers",
    "trusted_proxies_strict", "trusted_proxies_unix", "logs", "protocols", "listen_protocols",
    "allow_0rtt", NULL,
};

static const char *const logs_keys[] = {
    "default_logger_name", "logger_names", "skip_hosts", "skip_unmapped_hosts",
    "should_log_credentials", "trace", NULL,
};

static const char *const automatic_keys[] = {
    "disable", "disable_redirects", "disable_certificates", "skip", "skip_certificates",
    "ignore_loaded_certificates", NULL,
};

/* A server while it is built. */
struct build {
    struct adapt *a;
    struct pairing *pairing;
    struct counter *groups;
    json_t *server;
    json_t *logs;  /* NULL: no site of it has a `log` */
    json_t *skip;  /* of automatic HTTPS */
    struct route *routes, *error_routes;
    size_t route_count, error_count, route_cap, error_cap;
    bool has_errors;
    struct conn_policies policies;
    bool qualifies_for_tls, auto_https_adds_policy;
};

/* --- which site comes first --- */

struct rank {
    long host, path;
    size_t path_len;
    bool wildcard;
};

static struct rank rank_of(const struct placed_site *p)
{
    struct rank r = {0};
    for (size_t i = 0; i < p->count; i++) {
        const struct site_address *s = &p->addresses[i];
        long host = specificity(s->host), path = specificity(s->path);
        if (s->host.len == 0 || slice_find(s->host, '*') != SIZE_MAX)
            r.wildcard = true;
        if (host > r.host)
            r.host = host;
        if (path > r.path) {
            r.path = path;
            r.path_len = s->path.len;
        }
    }
    return r;
}

static bool site_before(const void *first, const void *second, const void *context)
{
    struct rank x = rank_of(first), y = rank_of(second);
    (void)context;
    if (x.host == 0)
        return false;
    if (y.host == 0)
        return true;
    if (x.wildcard != y.wildcard)
        return y.wildcard;
    return x.host == y.host ? x.path_len > y.path_len : x.host > y.host;
}

/* --- checks --- */

/* The first key that stands in two sites of the server. */
static enum err check_ambiguous(struct adapt *a, const struct pairing *p)
{
    struct map first;
    struct slice worst = SLICE_NONE;
    size_t worst_site = SIZE_MAX, worst_key = SIZE_MAX;
    map_init(&first, false);
    for (size_t s = 0; s < p->site_count; s++)
        for (size_t k = 0; k < p->sites[s].count; k++) {
            struct slice key = p->sites[s].keys[k];
            const struct placed_site *before = map_get(&first, key);
            if (before == NULL) {
                map_put(&first, key, &p->sites[s]);
                continue;
            }
            size_t at = (size_t)(before - p->sites), i = 0;
            if (at == s)
                continue;
            while (!slice_eq(before->keys[i], key))
                i++;
            if (at < worst_site || (at == worst_site && i < worst_key)) {
                worst_site = at;
                worst_key = i;
                worst = key;
            }
        }
    map_deinit(&first);
    if (worst_site == SIZE_MAX)
        return OK;
    return diag_fail(a->diag, "ambiguous site definition: " SLICE_FMT, SLICE_ARG(worst));
}

static struct slice listen_text(struct adapt *a, const struct pairing *p)
{
    struct slice text = SLICE("[");
    for (size_t i = 0; i < p->listener_count && i < 20; i++) {
        struct slice parts[] = {text, i > 0 ? SLICE(" ") : SLICE_NONE, p->listeners[i].address};
        text = arena_join(a->arena, parts, 3);
    }
    return arena_join(a->arena, (struct slice[]){text, SLICE("]")}, 2);
}

static bool is_port(struct adapt *a, struct slice port, int64_t number)
{
    return slice_eq(port, arena_printf(a->arena, "%lld", (long long)number));
}

/* A server speaks HTTP or HTTPS, never both. */
static enum err check_schemes(struct build *b)
{
    struct adapt *a = b->a;
    const struct pairing *p = b->pairing;
    enum { NONE, PLAIN, SECURE } kind = NONE;
    size_t policies = json_array_size(b->policies.list);
    for (size_t s = 0; s < p->site_count; s++)
        for (size_t k = 0; k < p->sites[s].count; k++) {
            const struct site_address *at = &p->sites[s].addresses[k];
            bool plain = slice_is(at->scheme, "http") || is_port(a, at->port, http_port(a));
            bool secure = slice_is(at->scheme, "https") || is_port(a, at->port, https_port(a)) ||
                          policies > 0;
            if (!plain && !secure && at->host.len > 0)
                continue;
            if (!plain && secure) {
                if (kind == PLAIN)
                    return diag_fail(a->diag,
                                     "server listening on " SLICE_FMT " is configured for HTTP and "
                                     "cannot natively multiplex HTTP and HTTPS: " SLICE_FMT,
                                     SLICE_ARG(listen_text(a, p)), SLICE_ARG(at->original));
                kind = SECURE;
                continue;
            }
            if (kind == SECURE)
                return diag_fail(a->diag,
                                 "server listening on " SLICE_FMT " is configured for HTTPS and "
                                 "cannot natively multiplex HTTP and HTTPS: " SLICE_FMT "%s",
                                 SLICE_ARG(listen_text(a, p)), SLICE_ARG(at->original),
                                 at->scheme.len == 0 && at->host.len == 0
                                     ? " (try specifying https:// in the address)" : "");
            if (policies > 0)
                return diag_fail(a->diag,
                                 "server listening on " SLICE_FMT " is HTTP, but attempts to "
                                 "configure TLS connection policies",
                                 SLICE_ARG(listen_text(a, p)));
            kind = PLAIN;
        }
    return OK;
}

/* --- parts of a server --- */

static void put_listen(struct build *b)
{
    struct adapt *a = b->a;
    const struct pairing *p = b->pairing;
    json_t *listen = j_array(a), *protocols = j_array(a);
    bool any = false;
    for (size_t i = 0; i < p->listener_count; i++) {
        const struct listen_address *l = &p->listeners[i];
        bool own = false;
        j_append_text(a, listen, l->address);
        for (size_t k = 0; k < l->protocol_count; k++)
            own = own || l->protocols[k].len > 0;
        j_append(protocols, own ? j_strings(a, l->protocols, l->protocol_count) : json_null());
        any = any || own;
    }
    j_set(a, b->server, "listen", listen);
    if (json_array_size(listen) == 0)
        json_object_del(b->server, "listen");
    if (any)
        j_set(a, b->server, "listen_protocols", protocols);
}

static void put_auto_https(struct build *b)
{
    static const char *const words[][2] = {
        {"off", "disable"},
        {"disable_redirects", "disable_redirects"},
        {"disable_certs", "disable_certificates"},
        {"ignore_loaded_certs", "ignore_loaded_certificates"},
    };
    for (size_t i = 0; i < 4; i++)
        if (auto_https_says(b->a, words[i][0]))
            j_put_bool(b->a, j_at(b->a, b->server, "automatic_https"), words[i][1], true);
    b->auto_https_adds_policy = !auto_https_says(b->a, "off");
    b->skip = j_array(b->a);
}

/* The named routes that a site invokes, and those that these invoke. */
static enum err put_named_route(struct build *b, struct slice first)
{
    struct adapt *a = b->a;
    struct values todo = {0};
    values_add(a, &todo, VALUE_INVOKED)->name = first;
    for (size_t i = 0; i < todo.count; i++) {
        struct slice name = todo.items[i].name;
        json_t *all = j_at(a, b->server, "named_routes");
        const struct named_route *n = a->named_routes;
        if (j_get(all, name) != NULL)
            continue;
        while (n != NULL && !slice_eq(n->name, name))
            n = n->next;
        if (n == NULL)
            return diag_fail(a->diag,
                             "cannot invoke named route '" SLICE_FMT "', which was not defined",
                             SLICE_ARG(name));
        j_set_key(a, all, name, json_array_get(routes_json(a, &n->route, 1), 0));
        for (size_t k = 0; k < n->invoked.count; k++)
            values_add(a, &todo, VALUE_INVOKED)->name = n->invoked.items[k].name;
    }
    return OK;
}

static enum err put_named_routes(struct build *b)
{
    const struct pairing *p = b->pairing;
    for (size_t s = 0; s < p->site_count; s++)
        for (size_t i = 0; i < p->sites[s].site->invoked.count; i++)
            TRY(put_named_route(b, p->sites[s].site->invoked.items[i].name));
    return OK;
}

/* --- a site's matchers --- */

struct host_path {
    struct slice path;
    json_t *hosts;
    struct map seen;
};

/* The hosts of the site's keys, by path. A key without a host matches all of them. */
static json_t *matcher_sets(struct adapt *a, const struct placed_site *p)
{
    struct host_path *pairs = ARENA_ARRAY(a->arena, struct host_path, p->count + 1);
    json_t *sets = j_array(a);
    size_t count = 0;
    bool all = false;
    for (size_t i = 0; i < p->count; i++) {
        const struct site_address *s = &p->addresses[i];
        size_t at = 0;
        while (at < count && !slice_eq(pairs[at].path, s->path))
            at++;
        if (at == count) {
            pairs[count++] = (struct host_path){.path = s->path, .hosts = j_array(a)};
            map_init(&pairs[at].seen, false);
        }
        if (s->host.len == 0 && !all) {
            pairs[at].hosts = j_array(a);
            all = true;
        }
        if (all || map_get(&pairs[at].seen, s->host) != NULL)
            continue;
        map_put(&pairs[at].seen, s->host, p->site);
        j_append_text(a, pairs[at].hosts, s->host);
    }
    for (size_t i = 0; i < count; i++) {
        json_t *set = j_object(a);
        if (json_array_size(pairs[i].hosts) > 0)
            j_set(a, set, "host", pairs[i].hosts);
        if (pairs[i].path.len > 0)
            j_set(a, set, "path", j_strings(a, &pairs[i].path, 1));
        if (json_object_size(set) > 0)
            j_append(sets, set);
        map_deinit(&pairs[i].seen);
    }
    return sets;
}

static bool has_host_matcher(const struct route *routes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < json_array_size(routes[i].match); k++)
            if (json_object_get(json_array_get(routes[i].match, k), "host") != NULL)
                return true;
    return false;
}

static void add_routes(struct build *b, bool errors, const struct route *routes, size_t count)
{
    struct route **list = errors ? &b->error_routes : &b->routes;
    size_t *have = errors ? &b->error_count : &b->route_count;
    size_t *cap = errors ? &b->error_cap : &b->route_cap;
    if (*have + count > *cap) {
        *cap = (*have + count) * 2;
        struct route *grown = ARENA_ARRAY(b->a->arena, struct route, *cap);
        if (*have > 0)
            memcpy(grown, *list, *have * sizeof *grown);
        *list = grown;
    }
    if (count > 0)
        memcpy(*list + *have, routes, count * sizeof *routes);
    *have += count;
}

/* A site's routes in one route of its own, which ends there; without one when the site is alone and
 * has no hosts (but a host matcher inside must not become one that automatic HTTPS looks at). */
static void append_site(struct build *b, bool errors, const struct route *routes, size_t count,
                        json_t *sets)
{
    struct adapt *a = b->a;
    if (json_array_size(sets) == 0 && count == 0)
        return;
    if (json_array_size(sets) == 0 && b->pairing->site_count == 1 &&
        !has_host_matcher(routes, count)) {
        add_routes(b, errors, routes, count);
        return;
    }
    struct route wrap = {.terminal = true, .match = sets, .handle = j_array(a)};
    if (count > 0)
        j_append(wrap.handle,
                 j_module(a, "handler", "subroute", subroute_handler(a, routes, count)));
    add_routes(b, errors, &wrap, 1);
}

/* As Caddy compares them: equal ones change places, those for all statuses come last. */
static bool error_before(const void *first, const void *second, const void *context)
{
    const struct config_value *x = first, *y = second;
    (void)context;
    return !(json_array_size(x->routes->match) == 0 && json_array_size(y->routes->match) > 0);
}

static void append_errors(struct build *b, struct site *site, json_t *sets)
{
    struct values *errors = &site->errors;
    if (errors->count == 0)
        return;
    sort_stable(errors->items, errors->count, sizeof *errors->items, error_before, NULL);
    struct route *all = ARENA_ARRAY(b->a->arena, struct route, errors->count);
    for (size_t i = 0; i < errors->count; i++)
        all[i] = errors->items[i].routes[0];
    b->has_errors = true;
    append_site(b, true, all, errors->count, sets);
}

/* --- logs --- */

static struct slice without_port(struct adapt *a, struct slice host)
{
    struct slice network, name, port;
    struct address_error why;
    if (slice_find(host, ':') != SIZE_MAX &&
        address_split(host, &network, &name, &port, a->arena, &why) == OK && port.len > 0)
        return name;
    return host;
}

static void name_logger(struct build *b, const struct log_value *log, const struct placed_site *p,
                        const struct slice *hosts, size_t count)
{
    struct adapt *a = b->a;
    if (log->no_hostname)
        return;
    if (log->hostname_count == 0 && placed_catches_all(p)) {
        json_object_del(b->logs, "default_logger_name");
        j_put_text(a, b->logs, "default_logger_name", log->name);
        return;
    }
    bool own = log->hostname_count > 0;
    for (size_t i = 0; i < (own ? log->hostname_count : count); i++) {
        struct slice host = own ? log->hostnames[i] : without_port(a, hosts[i]);
        j_add_to_list(a, j_at(a, b->logs, "logger_names"), host, j_text(a, log->name));
    }
}

static void put_logs(struct build *b, const struct placed_site *p, size_t host_count)
{
    struct adapt *a = b->a;
    const struct values *logs = &p->site->logs;
    struct slice *hosts;
    size_t count = placed_hosts(a, p, true, &hosts);
    for (size_t i = 0; i < logs->count; i++)
        name_logger(b, logs->items[i].log, p, hosts, count);
    if (b->logs == NULL || logs->count > 0)
        return;
    if (host_count == 0)
        j_put_bool(a, b->logs, "skip_unmapped_hosts", true);
    for (size_t i = 0; i < count; i++)
        j_add_to_list(a, b->logs, SLICE("skip_hosts"), j_text(a, hosts[i]));
}

/* --- a site --- */

static bool skipped(const struct build *b, struct slice host)
{
    for (size_t i = 0; i < json_array_size(b->skip); i++) {
        const json_t *s = json_array_get(b->skip, i);
        if (slice_eq(slice_of(json_string_value(s), json_string_length(s)), host))
            return true;
    }
    return false;
}

/* What the key says about HTTPS. */
static void note_scheme(struct build *b, const struct placed_site *p,
                        const struct site_address *at, bool other_port)
{
    struct adapt *a = b->a;
    bool plain = slice_is(at->scheme, "http");
    bool on_plain_port = is_port(a, at->port, http_port(a));
    if (other_port && plain && at->host.len > 0 && !skipped(b, at->host))
        j_append_text(a, b->skip, at->host);
    bool wants = p->site->tls.count > 0 || (at->host.len > 0 && !skipped(b, at->host));
    if (slice_is(at->scheme, "https") || (!plain && !on_plain_port && wants))
        b->qualifies_for_tls = true;
    b->auto_https_adds_policy =
        b->auto_https_adds_policy && (is_port(a, at->port, https_port(a)) ||
                                      (!on_plain_port && at->host.len > 0));
}

static enum err add_site(struct build *b, struct placed_site *p)
{
    struct adapt *a = b->a;
    struct slice *hosts;
    struct route *routes;
    size_t count;
    json_t *sets = matcher_sets(a, p);
    size_t host_count = placed_hosts(a, p, false, &hosts);
    bool other_port = listeners_use_other_port(a, b->pairing, http_port(a));
    for (size_t i = 0; i < host_count; i++)
        if (slice_is(hosts[i], "0.0.0.0") || slice_is(hosts[i], "::"))
            LOG(LOG_WARN, "caddyfile",
                "Site block has an unspecified IP address which only matches requests having that "
                "Host header; you probably want the 'bind' directive to configure the socket",
                LOG_STR("address", hosts[i]));
    host_count = conn_policies_of_site(a, &b->policies, p, hosts, host_count);
    for (size_t i = 0; i < p->count; i++)
        note_scheme(b, p, &p->addresses[i], other_port);
    TRY(build_routes(a, &p->site->routes, b->groups, true, &routes, &count));
    append_site(b, false, routes, count, sets);
    append_errors(b, p->site, sets);
    put_logs(b, p, host_count);
    return OK;
}

/* --- a server --- */

static int by_text(const void *x, const void *y)
{
    return strcmp(json_string_value(*(json_t *const *)x), json_string_value(*(json_t *const *)y));
}

static void sort_texts(struct adapt *a, json_t *object, const char *key)
{
    const json_t *list = json_object_get(object, key);
    size_t count = json_array_size(list);
    if (count < 2)
        return;
    json_t **items = ARENA_ARRAY(a->arena, json_t *, count), *sorted = j_array(a);
    for (size_t i = 0; i < count; i++)
        items[i] = json_array_get(list, i);
    qsort(items, count, sizeof *items, by_text);
    for (size_t i = 0; i < count; i++)
        j_append(sorted, items[i]);
    j_set(a, object, key, sorted);
}

static void finish_logs(struct build *b)
{
    struct adapt *a = b->a;
    if (b->logs == NULL)
        return;
    sort_texts(a, b->logs, "skip_hosts");
    json_t *names = json_object_get(b->logs, "logger_names");
    if (names != NULL)
        j_set(a, b->logs, "logger_names", j_sorted(a, names));
    j_set(a, b->server, "logs", j_ordered(a, b->logs, logs_keys));
}

static enum err finish(struct build *b)
{
    struct adapt *a = b->a;
    TRY(check_schemes(b));
    TRY(conn_policies_finish(a, &b->policies, b->qualifies_for_tls, b->auto_https_adds_policy));
    if (json_array_size(b->policies.list) > 0)
        j_set(a, b->server, "tls_connection_policies", b->policies.list);
    if (json_array_size(b->skip) > 0)
        j_set(a, j_at(a, b->server, "automatic_https"), "skip", b->skip);
    json_t *automatic = json_object_get(b->server, "automatic_https");
    if (automatic != NULL)
        j_set(a, b->server, "automatic_https", j_ordered(a, automatic, automatic_keys));
    b->route_count = consolidate_routes(a, b->routes, b->route_count);
    if (b->route_count > 0)
        j_set(a, b->server, "routes", routes_json(a, b->routes, b->route_count));
    if (b->has_errors) {
        json_t *errors = j_at(a, b->server, "errors");
        if (b->error_count > 0)
            j_set(a, errors, "routes", routes_json(a, b->error_routes, b->error_count));
    }
    json_t *named = json_object_get(b->server, "named_routes");
    if (named != NULL)
        j_set(a, b->server, "named_routes", j_by_name(a, named));
    finish_logs(b);
    return OK;
}

static void warn_paths(const struct pairing *p, struct arena *arena)
{
    for (size_t s = 0; s < p->site_count; s++)
        for (size_t k = 0; k < p->sites[s].count; k++)
            if (p->sites[s].addresses[k].path.len > 0)
                LOG(LOG_WARN, "caddyfile",
                    "Using a path in a site address is deprecated; please use the 'handle' "
                    "directive instead",
                    LOG_STR("address", site_address_text(&p->sites[s].addresses[k], arena)));
}

static enum err build_server(struct adapt *a, struct pairing *p, struct counter *groups,
                             json_t **server)
{
    struct build b = {.a = a, .pairing = p, .groups = groups, .server = j_object(a)};
    *server = b.server;
    conn_policies_init(a, &b.policies);
    TRY(check_ambiguous(a, p));
    put_listen(&b);
    put_auto_https(&b);
    warn_paths(p, a->arena);
    sort_stable(p->sites, p->site_count, sizeof *p->sites, site_before, NULL);
    for (size_t s = 0; s < p->site_count; s++)
        if (p->sites[s].site->logs.count > 0 && b.logs == NULL)
            b.logs = j_object(a);
    TRY(put_named_routes(&b));
    for (size_t s = 0; s < p->site_count; s++)
        TRY(add_site(&b, &p->sites[s]));
    return finish(&b);
}

enum err servers_build(struct adapt *a, struct pairing *pairings, size_t count, json_t **servers)
{
    *servers = j_object(a);
    for (size_t i = 0; i < count; i++) {
        json_t *server;
        TRY(build_server(a, &pairings[i], &a->groups, &server));
        j_set_key(a, *servers, arena_printf(a->arena, "srv%zu", i), server);
    }
    TRY(server_options_apply(a, servers));
    const char *name;
    json_t *server, *ordered = j_object(a);
    json_object_foreach(*servers, name, server)
        j_set(a, ordered, name, j_ordered(a, server, server_keys));
    *servers = j_by_name(a, ordered);
    return OK;
}
