/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One server of each group of sites: the most specific site first, each as a route of its own that
 * ends the walk; its error routes, named routes, logs, and what the global options say of it. The
 * rules are those of Caddy's adapter, so that the JSON comes out equal.
 */
#include "adapter/sites.h"

#include <stdlib.h>

#include "adapter/directives.h"
#include "base/log.h"
#include "config/jsonx.h"

struct server {
    struct adapt *a;
    const struct pairing *p;
    json_t *routes, *errors, *named, *policies;
    json_t *skip; /* hosts without automatic HTTPS */
    json_t *logger_names, *skip_hosts;
    struct slice default_logger;
    bool has_logs, skip_unmapped, has_errors;
    bool qualifies_for_tls, https_adds_policy;
};

static bool option_says(const struct adapt *a, const char *word)
{
    for (size_t i = 0; i < a->options.auto_https_count; i++)
        if (slice_is(a->options.auto_https[i], word))
            return true;
    return false;
}

/* --- order of sites --- */

struct rank {
    int64_t host, path;
    size_t path_len;
    bool wildcard;
};

static struct rank rank_of(const struct mapped_site *s)
{
    struct rank r = {0};
    for (size_t i = 0; i < s->key_count; i++) {
        const struct site_address *at = &s->keys[i].address;
        r.wildcard |= at->host.len == 0 || slice_find(at->host, '*') != SIZE_MAX;
        int64_t host = pattern_specificity(at->host), path = pattern_specificity(at->path);
        if (host > r.host)
            r.host = host;
        if (path > r.path) {
            r.path = path;
            r.path_len = at->path.len;
        }
    }
    return r;
}

static bool comes_before(const struct mapped_site *x, const struct mapped_site *y)
{
    struct rank a = rank_of(x), b = rank_of(y);
    if (a.host == 0)
        return false;
    if (b.host == 0)
        return true;
    if (a.wildcard != b.wildcard)
        return b.wildcard;
    if (a.host == b.host)
        return a.path_len > b.path_len;
    return a.host > b.host;
}

static void sort_sites(struct pairing *p)
{
    for (size_t i = 1; i < p->site_count; i++)
        for (size_t k = i; k > 0 && comes_before(&p->sites[k], &p->sites[k - 1]); k--) {
            struct mapped_site t = p->sites[k];
            p->sites[k] = p->sites[k - 1];
            p->sites[k - 1] = t;
        }
}

static enum err check_ambiguous(struct adapt *a, const struct pairing *p)
{
    for (size_t i = 0; i < p->site_count; i++)
        for (size_t k = 0; k < p->site_count; k++)
            for (size_t n = 0; i != k && n < p->sites[i].key_count; n++)
                for (size_t m = 0; m < p->sites[k].key_count; m++)
                    if (slice_eq(p->sites[i].keys[n].token.text, p->sites[k].keys[m].token.text))
                        return diag_fail(a->diag, "ambiguous site definition: " SLICE_FMT,
                                         SLICE_ARG(p->sites[i].keys[n].token.text));
    return OK;
}

/* --- a site's matchers --- */

static bool list_has(const json_t *list, struct slice text)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (slice_is(text, json_string_value(json_array_get(list, i))))
            return true;
    return false;
}

struct host_path {
    json_t *hosts;
    struct slice path;
};

/* Keys with the same path share a matcher set; a key without a host stands for all hosts. */
static json_t *matcher_sets(struct adapt *a, const struct mapped_site *s)
{
    struct host_path *pairs = ARENA_ARRAY(a->arena, struct host_path, s->key_count);
    json_t *sets = j_array(a);
    size_t count = 0;
    bool all_hosts = false;
    for (size_t i = 0; i < s->key_count; i++) {
        const struct site_address *at = &s->keys[i].address;
        size_t k = 0;
        while (k < count && !slice_eq(pairs[k].path, at->path))
            k++;
        if (k == count)
            pairs[count++] = (struct host_path){.hosts = j_array(a), .path = at->path};
        if (at->host.len == 0 && !all_hosts) {
            pairs[k].hosts = j_array(a);
            all_hosts = true;
        }
        if (!all_hosts && !list_has(pairs[k].hosts, at->host))
            j_append_text(a, pairs[k].hosts, at->host);
    }
    for (size_t k = 0; k < count; k++) {
        json_t *set = j_object(a);
        if (json_array_size(pairs[k].hosts) > 0)
            j_set(a, set, "host", pairs[k].hosts);
        j_put_strings(a, set, "path", &pairs[k].path, pairs[k].path.len > 0);
        if (json_object_size(set) > 0)
            j_append(sets, set);
    }
    return sets;
}

static bool any_host_matcher(const struct route *routes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < json_array_size(routes[i].match); k++)
            if (json_object_get(json_array_get(routes[i].match, k), "host") != NULL)
                return true;
    return false;
}

/* A site's routes at the end of the server's: wrapped, unless the site is alone and for all. */
static void append_site(struct server *s, json_t *list, const struct route *routes, size_t count,
                        json_t *sets)
{
    struct adapt *a = s->a;
    bool matches = json_array_size(sets) > 0;
    if (!matches && count == 0)
        return;
    if (!matches && s->p->site_count == 1 && !any_host_matcher(routes, count)) {
        json_array_extend(list, routes_json(a, routes, count));
        return;
    }
    struct route site = {.match = sets, .handle = j_array(a), .terminal = true};
    if (count > 0)
        j_append(site.handle, j_module(a, "handler", "subroute",
                                       subroute_handler(a, routes, count)));
    json_array_extend(list, routes_json(a, &site, 1));
}

/* --- a site's values --- */

static enum err add_routes(struct server *s, const struct mapped_site *site, json_t *sets,
                           struct counter *groups)
{
    struct values routes = {0};
    struct route *built;
    size_t count;
    const struct values *pile = &site->site->pile;
    for (size_t i = 0; i < pile->count; i++)
        if (pile->items[i].kind == VALUE_ROUTE || pile->items[i].kind == VALUE_ROUTES)
            *values_add(s->a, &routes, VALUE_ROUTE) = pile->items[i];
    TRY(build_routes(s->a, &routes, groups, true, &built, &count));
    append_site(s, s->routes, built, count, sets);
    return OK;
}

/* Caddy's rule, which puts those for any status last and turns the order of the others round. */
static bool goes_behind(const struct route *x, const struct route *y)
{
    return x->match == NULL && y->match != NULL;
}

static void add_errors(struct server *s, const struct mapped_site *site, json_t *sets)
{
    const struct values *pile = &site->site->pile;
    struct route *routes = ARENA_ARRAY(s->a->arena, struct route, pile->count + 1);
    size_t count = 0;
    for (size_t i = 0; i < pile->count; i++) {
        if (pile->items[i].kind != VALUE_ERRORS)
            continue;
        routes[count] = *pile->items[i].routes;
        for (size_t k = count++; k > 0 && !goes_behind(&routes[k], &routes[k - 1]); k--) {
            struct route t = routes[k];
            routes[k] = routes[k - 1];
            routes[k - 1] = t;
        }
    }
    if (count == 0)
        return;
    s->has_errors = true;
    append_site(s, s->errors, routes, count, sets);
}

static enum err add_named(struct server *s, struct slice name)
{
    const struct named_route *n = s->a->named_routes;
    if (j_get(s->named, name) != NULL)
        return OK;
    while (n != NULL && !slice_eq(n->name, name))
        n = n->next;
    if (n == NULL)
        return diag_fail(s->a->diag, "cannot invoke named route '" SLICE_FMT
                         "', which was not defined", SLICE_ARG(name));
    j_set_key(s->a, s->named, name, json_array_get(routes_json(s->a, &n->route, 1), 0));
    for (size_t i = 0; i < n->invoked.count; i++)
        TRY(add_named(s, n->invoked.items[i].name));
    return OK;
}

static void add_host(struct adapt *a, json_t *list, struct slice host)
{
    if (!list_has(list, host))
        j_append_text(a, list, host);
}

static bool has_catch_all(const struct mapped_site *s)
{
    for (size_t i = 0; i < s->key_count; i++)
        if (s->keys[i].address.host.len == 0)
            return true;
    return false;
}

/* Hosts as access logs name them: with a port that is none of the usual ones. */
static json_t *log_hosts(struct adapt *a, const struct mapped_site *s)
{
    json_t *list = j_array(a);
    for (size_t i = 0; i < s->key_count; i++) {
        const struct site_address *at = &s->keys[i].address;
        if (at->host.len == 0)
            continue;
        bool usual = at->port.len == 0 || slice_is(at->port, "80") || slice_is(at->port, "443");
        add_host(a, list, usual ? at->host
                                : address_join(SLICE_NONE, at->host, at->port, a->arena));
    }
    return list;
}

static struct slice without_port(struct slice host)
{
    size_t colon = slice_find_last(host, ':'), bracket = slice_find_last(host, ']');
    if (colon == SIZE_MAX || (bracket != SIZE_MAX && bracket > colon))
        return host;
    host = slice_take(host, colon);
    if (slice_find(host, ':') == SIZE_MAX)
        return host;
    return host.len > 2 && host.ptr[0] == '[' ? slice_of(host.ptr + 1, host.len - 2) : host;
}

static void add_log(struct server *s, const struct mapped_site *site, const struct log_value *v,
                    const json_t *hosts)
{
    struct adapt *a = s->a;
    if (v->no_hostname)
        return;
    if (has_catch_all(site) && v->hostname_count == 0) {
        s->default_logger = v->name;
        return;
    }
    for (size_t i = 0; i < v->hostname_count; i++)
        j_add_to_list(a, s->logger_names, v->hostnames[i], j_text(a, v->name));
    for (size_t i = 0; v->hostname_count == 0 && i < json_array_size(hosts); i++) {
        const json_t *host = json_array_get(hosts, i);
        struct slice text = slice_of(json_string_value(host), json_string_length(host));
        if (slice_find_last(text, ':') != SIZE_MAX && slice_find(text, ':') ==
            slice_find_last(text, ':'))
            text = without_port(text);
        else if (text.len > 0 && text.ptr[0] == '[')
            text = without_port(text);
        j_add_to_list(a, s->logger_names, text, j_text(a, v->name));
    }
}

static void add_logs(struct server *s, const struct mapped_site *site)
{
    json_t *hosts = log_hosts(s->a, site);
    const struct values *pile = &site->site->pile;
    bool any = false;
    for (size_t i = 0; i < pile->count; i++) {
        if (pile->items[i].kind != VALUE_LOG)
            continue;
        any = true;
        add_log(s, site, pile->items[i].log, hosts);
    }
    if (!s->has_logs || any)
        return;
    if (has_catch_all(site))
        s->skip_unmapped = true;
    for (size_t i = 0; i < json_array_size(hosts); i++)
        j_append(s->skip_hosts, json_array_get(hosts, i));
}

/* --- what a site's addresses mean for HTTPS --- */

static bool other_port_than(struct adapt *a, const struct pairing *p, struct slice port)
{
    uint64_t n;
    struct network_address at;
    struct address_error why;
    if (!slice_to_u64(port, 65535, &n))
        return false;
    for (size_t i = 0; i < p->listen_count; i++)
        if (address_parse(p->listen[i].address, SLICE("tcp"), 0, &at, a->arena, &why) == OK &&
            (n > at.last_port || n < at.first_port))
            return true;
    return false;
}

static void look_https(struct server *s, const struct mapped_site *site)
{
    struct adapt *a = s->a;
    struct slice http = option_http_port(a), https = option_https_port(a);
    for (size_t i = 0; i < site->key_count; i++) {
        const struct site_address *at = &site->keys[i].address;
        bool is_http = slice_is(at->scheme, "http");
        if (other_port_than(a, s->p, http) && is_http && at->host.len > 0)
            add_host(a, s->skip, at->host);
        bool enabled = at->host.len > 0 && !list_has(s->skip, at->host);
        if (slice_is(at->scheme, "https") ||
            (!is_http && !slice_eq(at->port, http) && enabled))
            s->qualifies_for_tls = true;
        s->https_adds_policy = s->https_adds_policy &&
                               (slice_eq(at->port, https) ||
                                (!slice_eq(at->port, http) && at->host.len > 0));
    }
}

static void warn_unspecified(const struct mapped_site *site)
{
    for (size_t i = 0; i < site->key_count; i++) {
        const struct site_address *at = &site->keys[i].address;
        if (slice_is(at->host, "0.0.0.0") || slice_is(at->host, "::"))
            LOG(LOG_WARN, "caddyfile",
                "Site block has an unspecified IP address which only matches requests having that "
                "Host header; you probably want the 'bind' directive to configure the socket",
                LOG_STR("address", at->host));
        if (at->path.len > 0)
            LOG(LOG_WARN, "caddyfile", "Using a path in a site address is deprecated; please use "
                "the 'handle' directive instead", LOG_STR("address", at->original));
    }
}

static enum err check_schemes(struct server *s)
{
    struct adapt *a = s->a;
    struct slice http = option_http_port(a), https = option_https_port(a);
    enum { NEITHER, HTTP, HTTPS } kind = NEITHER;
    struct slice listen = SLICE_NONE;
    for (size_t i = 0; i < s->p->listen_count; i++)
        listen = arena_join(a->arena, (struct slice[]){listen, i > 0 ? SLICE(" ") : SLICE(""),
                                                       s->p->listen[i].address}, 3);
    for (size_t i = 0; i < s->p->site_count; i++)
        for (size_t k = 0; k < s->p->sites[i].key_count; k++) {
            const struct site_address *at = &s->p->sites[i].keys[k].address;
            bool policies = json_array_size(s->policies) > 0;
            bool plain = slice_is(at->scheme, "http") || slice_eq(at->port, http);
            bool secure = !plain && (slice_is(at->scheme, "https") || slice_eq(at->port, https) ||
                                     policies);
            if (!plain && !secure && at->host.len > 0)
                continue;
            if (secure && kind == HTTP)
                return diag_fail(a->diag,
                                 "server listening on [" SLICE_FMT "] is configured for HTTP and "
                                 "cannot natively multiplex HTTP and HTTPS: " SLICE_FMT,
                                 SLICE_ARG(listen), SLICE_ARG(at->original));
            if (!secure && kind == HTTPS)
                return diag_fail(a->diag,
                                 "server listening on [" SLICE_FMT "] is configured for HTTPS and "
                                 "cannot natively multiplex HTTP and HTTPS: " SLICE_FMT "%s",
                                 SLICE_ARG(listen), SLICE_ARG(at->original),
                                 at->scheme.len == 0 && at->host.len == 0
                                     ? " (try specifying https:// in the address)" : "");
            if (!secure && policies)
                return diag_fail(a->diag,
                                 "server listening on [" SLICE_FMT "] is HTTP, but attempts to "
                                 "configure TLS connection policies", SLICE_ARG(listen));
            kind = secure ? HTTPS : HTTP;
        }
    return OK;
}

/* --- the server's JSON --- */

static const struct server_options *options_of(const struct adapt *a, const struct pairing *p)
{
    for (size_t i = 0; i < a->options.server_count; i++) {
        const struct server_options *o = &a->options.servers[i];
        if (o->listener.len == 0)
            return o;
        for (size_t k = 0; k < p->listen_count; k++)
            if (slice_eq(p->listen[k].address, o->listener))
                return o;
    }
    return NULL;
}

static void put_listen(struct adapt *a, const struct pairing *p, json_t *out)
{
    json_t *listen = j_array(a), *protocols = j_array(a);
    bool any = false;
    for (size_t i = 0; i < p->listen_count; i++) {
        const struct listen_at *l = &p->listen[i];
        bool usual = true;
        for (size_t k = 0; k < l->protocol_count; k++)
            usual = usual && l->protocols[k].len == 0;
        j_append_text(a, listen, l->address);
        j_append(protocols, usual ? json_null() : j_strings(a, l->protocols, l->protocol_count));
        any = any || !usual;
    }
    if (p->listen_count > 0)
        j_set(a, out, "listen", listen);
    if (any)
        j_set(a, out, "listen_protocols", protocols);
}

static json_t *auto_https_json(struct server *s)
{
    struct adapt *a = s->a;
    json_t *o = j_object(a);
    j_put_bool(a, o, "disable", option_says(a, "off"));
    j_put_bool(a, o, "disable_redirects", option_says(a, "disable_redirects"));
    j_put_bool(a, o, "disable_certificates", option_says(a, "disable_certs"));
    if (json_array_size(s->skip) > 0)
        j_set(a, o, "skip", s->skip);
    j_put_bool(a, o, "ignore_loaded_certificates", option_says(a, "ignore_loaded_certs"));
    return o;
}

static int by_text(const void *x, const void *y)
{
    return strcmp(json_string_value(*(json_t *const *)x), json_string_value(*(json_t *const *)y));
}

static json_t *sorted_list(struct adapt *a, const json_t *list)
{
    size_t n = json_array_size(list);
    json_t *out = j_array(a), **items = ARENA_ARRAY(a->arena, json_t *, n + 1);
    for (size_t i = 0; i < n; i++)
        items[i] = json_array_get(list, i);
    qsort(items, n, sizeof *items, by_text);
    for (size_t i = 0; i < n; i++)
        j_append(out, items[i]);
    return out;
}

static json_t *logs_json(struct server *s, const struct server_options *so)
{
    struct adapt *a = s->a;
    bool credentials = so != NULL && so->log_credentials, trace = so != NULL && so->trace;
    if (!s->has_logs && !credentials && !trace)
        return NULL;
    json_t *o = j_object(a);
    j_put_text(a, o, "default_logger_name", s->default_logger);
    if (json_object_size(s->logger_names) > 0)
        j_set(a, o, "logger_names", keep(a, jsonx_sorted(s->logger_names)));
    if (json_array_size(s->skip_hosts) > 0)
        j_set(a, o, "skip_hosts", sorted_list(a, s->skip_hosts));
    j_put_bool(a, o, "skip_unmapped_hosts", s->skip_unmapped);
    j_put_bool(a, o, "should_log_credentials", credentials);
    j_put_bool(a, o, "trace", trace);
    return o;
}

/* Consolidates neighbours of the finished list, as for any list of routes. */
static json_t *consolidated(struct adapt *a, const json_t *list)
{
    size_t n = json_array_size(list);
    struct route *routes = ARENA_ARRAY(a->arena, struct route, n + 1);
    for (size_t i = 0; i < n; i++) {
        json_t *o = json_array_get(list, i);
        routes[i] = (struct route){
            .group = slice_from(json_string_value(json_object_get(o, "group"))),
            .match = json_object_get(o, "match"),
            .handle = json_object_get(o, "handle"),
            .terminal = json_is_true(json_object_get(o, "terminal"))};
    }
    return routes_json(a, routes, consolidate_routes(a, routes, n));
}

/* The members in the order in which Caddy writes them. */
static json_t *server_json(struct server *s)
{
    static const char *const order[] = {
        "listen", "listener_wrappers", "packet_conn_wrappers", "read_timeout",
        "read_header_timeout", "read_idle_timeout", "read_min_rate", "write_timeout",
        "write_idle_timeout", "write_min_rate", "max_write_chunk", "idle_timeout",
        "keepalive_interval", "keepalive_idle", "keepalive_count", "max_header_bytes",
        "enable_full_duplex", "expected_underscore_headers", "expected_dot_headers", "routes",
        "errors", "named_routes", "tls_connection_policies", "automatic_https", "strict_sni_host",
        "trusted_proxies", "client_ip_headers", "trusted_proxies_strict", "trusted_proxies_unix",
        "logs", "protocols", "listen_protocols", "allow_0rtt"};
    struct adapt *a = s->a;
    const struct server_options *so = options_of(a, s->p);
    json_t *all = so != NULL ? keep(a, json_copy(so->members)) : j_object(a), *out = j_object(a);
    json_t *https = auto_https_json(s), *logs = logs_json(s, so), *errors = j_object(a);
    put_listen(a, s->p, all);
    if (json_array_size(s->routes) > 0)
        j_set(a, all, "routes", consolidated(a, s->routes));
    if (json_array_size(s->errors) > 0)
        j_set(a, errors, "routes", s->errors);
    if (s->has_errors)
        j_set(a, all, "errors", errors);
    if (json_object_size(s->named) > 0)
        j_set(a, all, "named_routes", keep(a, jsonx_sorted_keys(s->named)));
    if (json_array_size(s->policies) > 0)
        j_set(a, all, "tls_connection_policies", s->policies);
    if (json_object_size(https) > 0)
        j_set(a, all, "automatic_https", https);
    if (logs != NULL)
        j_set(a, all, "logs", logs);
    json_t *metrics = json_object_get(all, "metrics");
    if (metrics != NULL && a->options.metrics == NULL)
        a->options.metrics = j_object(a);
    if (metrics != NULL && json_is_true(json_object_get(metrics, "per_host")))
        j_put_bool(a, a->options.metrics, "per_host", true);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        json_t *v = json_object_get(all, order[i]);
        if (v != NULL)
            j_set(a, out, order[i], v);
    }
    return out;
}

static enum err build_site(struct server *s, const struct mapped_site *site,
                           struct counter *groups)
{
    json_t *sets = matcher_sets(s->a, site);
    warn_unspecified(site);
    look_https(s, site);
    TRY(add_routes(s, site, sets, groups));
    add_errors(s, site, sets);
    add_logs(s, site);
    return OK;
}

static void add_default_policy(struct server *s)
{
    struct adapt *a = s->a;
    const struct options *o = &a->options;
    if (!s->qualifies_for_tls || (s->https_adds_policy && o->default_sni.len == 0 &&
                                  o->fallback_sni.len == 0))
        return;
    json_t *policy = j_object(a);
    j_put_text(a, policy, "default_sni", o->default_sni);
    j_put_text(a, policy, "fallback_sni", o->fallback_sni);
    j_append(s->policies, policy);
}

static enum err build_server(struct adapt *a, struct pairing *p, struct counter *groups,
                             json_t **out)
{
    struct server s = {.a = a, .p = p, .routes = j_array(a), .errors = j_array(a),
                       .named = j_object(a), .policies = j_array(a), .skip = j_array(a),
                       .logger_names = j_object(a), .skip_hosts = j_array(a),
                       .https_adds_policy = !option_says(a, "off")};
    TRY(check_ambiguous(a, p));
    sort_sites(p);
    for (size_t i = 0; i < p->site_count; i++) {
        const struct site *site = p->sites[i].site;
        for (size_t k = 0; k < site->pile.count; k++)
            s.has_logs |= site->pile.items[k].kind == VALUE_LOG;
        for (size_t k = 0; k < site->invoked.count; k++)
            TRY(add_named(&s, site->invoked.items[k].name));
    }
    for (size_t i = 0; i < p->site_count; i++)
        TRY(build_site(&s, &p->sites[i], groups));
    TRY(check_schemes(&s));
    add_default_policy(&s);
    *out = server_json(&s);
    return OK;
}

static enum err check_names(const struct adapt *a)
{
    const struct options *o = &a->options;
    for (size_t i = 0; i < o->server_count; i++)
        for (size_t k = 0; k < i; k++)
            if (o->servers[i].name.len > 0 && slice_eq(o->servers[i].name, o->servers[k].name))
                return diag_fail(a->diag, "applying global server options: cannot use duplicate "
                                 "server name '" SLICE_FMT "'", SLICE_ARG(o->servers[i].name));
    return OK;
}

enum err servers_build(struct adapt *a, struct pairing *pairings, size_t count,
                       struct counter *groups, json_t **servers)
{
    json_t *all = j_object(a);
    for (size_t i = 0; i < count; i++) {
        json_t *server;
        TRY(build_server(a, &pairings[i], groups, &server));
        const struct server_options *so = options_of(a, &pairings[i]);
        struct slice name = so != NULL && so->name.len > 0
                                ? so->name
                                : arena_printf(a->arena, "srv%zu", i);
        j_set_key(a, all, name, server);
    }
    TRY(check_names(a));
    *servers = keep(a, jsonx_sorted_keys(all));
    return OK;
}
