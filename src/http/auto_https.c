/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules, server by server in the order of their names, as Caddy's:
 *
 *  - "automatic_https": {"disable": true} leaves a server as it is; so does listening on nothing but
 *    the HTTP port.
 *  - Names are those of host matchers of the top-level routes, but those in "skip". They are managed
 *    when they can have a certificate, none is loaded that has them, and nothing says otherwise.
 *  - A server with names, or on nothing but the HTTPS port, is served over TLS: it gets an empty
 *    connection policy where it has none.
 *  - Each name (or, without any, each address) is redirected to from the HTTP port.
 *  - Names that no public authority gives certificates for, and that no policy of the user's names,
 *    get a policy of their own with the internal issuer, made of the catch-all policy.
 */
#include "http/auto_https.h"

#include <stdlib.h>

#include "base/log.h"
#include "http/auto_redirects.h"
#include "http/host_name.h"
#include "pki/subject.h"

struct rules {
    struct auto_https *a;
    struct provision *p;
    struct redirects *redirects;
    struct map managed;   /* name → anything: of all servers */
    struct map in_policy; /* names that automation policies of the user's have */
    json_t *servers;
    json_t *logs;         /* of the last server over TLS that has some; borrowed */
    size_t disabled, policies; /* servers; automation policies of the user's */
};

struct site_names { /* of one server */
    struct slice *all;
    size_t count, cap;
    struct map seen;
};

static struct slice text_of(const json_t *v)
{
    return slice_of(json_string_value(v), json_string_length(v));
}

static bool has_text(const json_t *array, struct slice text)
{
    size_t i;
    json_t *v;
    json_array_foreach((json_t *)(uintptr_t)array, i, v)
    {
        if (json_is_string(v) && slice_eq(text_of(v), text))
            return true;
    }
    return false;
}

static bool absent(const json_t *v)
{
    return v == NULL || json_is_null(v);
}

/* --- names --- */

/* Whether each placeholder is one of the process, which the start can settle. */
static bool is_settled(struct slice text)
{
    static const struct slice global[] = {{"{env.", 5}, {"{system.", 8}, {"{time.", 6}, {"{file.", 6}};
    for (size_t at; (at = slice_find(text, '{')) != SIZE_MAX; text = slice_skip(text, at + 1)) {
        bool known = false;
        for (size_t i = 0; i < sizeof global / sizeof global[0]; i++)
            known |= slice_starts(slice_skip(text, at), global[i]);
        if (!known)
            return false;
    }
    return true;
}

static enum err settle(struct slice *text, struct provision *p)
{
    if (slice_find(*text, '{') == SIZE_MAX || !is_settled(*text))
        return OK;
    struct slice settled = template_expand_now(*text, p->arena);
    if (settled.len == 0)
        return provision_fail(p, "evaluated placeholder " SLICE_FMT " is empty", SLICE_ARG(*text));
    *text = settled;
    return OK;
}

static void add_name(struct site_names *names, struct slice name, struct arena *arena)
{
    if (map_put(&names->seen, name, names) != NULL)
        return;
    if (names->count == names->cap) {
        size_t cap = names->cap > 0 ? names->cap * 2 : 8;
        struct slice *all = ARENA_ARRAY(arena, struct slice, cap);
        if (names->count > 0)
            memcpy(all, names->all, names->count * sizeof *all);
        names->all = all;
        names->cap = cap;
    }
    names->all[names->count++] = name;
}

static enum err add_hosts(struct site_names *names, const json_t *hosts, const json_t *skip,
                          struct provision *p)
{
    size_t i;
    json_t *v;
    json_array_foreach((json_t *)(uintptr_t)hosts, i, v)
    {
        const char *why;
        if (!json_is_string(v))
            continue; /* the matcher will say so */
        struct slice name = arena_copy(p->arena, text_of(v));
        (void)!host_name_ascii(&name, p->arena, &why); /* likewise */
        TRY(settle(&name, p));
        if (!has_text(skip, name))
            add_name(names, name, p->arena);
    }
    return OK;
}

static enum err find_names(struct site_names *names, const json_t *server, const json_t *skip,
                           struct provision *p)
{
    size_t r, m;
    json_t *route, *set;
    json_array_foreach(json_object_get(server, "routes"), r, route)
    {
        json_array_foreach(json_object_get(route, "match"), m, set)
            TRY(add_hosts(names, json_object_get(set, "host"), skip, p));
    }
    return OK;
}

/* --- addresses --- */

/* Every address with its placeholders settled; what cannot be read is told by who opens them. */
static enum err settle_listen(json_t *server, struct provision *p)
{
    size_t i;
    json_t *v, *listen = json_object_get(server, "listen");
    if (!json_is_array(listen))
        return OK;
    json_t *settled = json_copy(listen);
    enum err e = OK;
    json_array_foreach(listen, i, v)
    {
        if (!json_is_string(v) || slice_find(text_of(v), '{') == SIZE_MAX)
            continue;
        struct slice text = template_expand_now(text_of(v), p->arena);
        if (text.len == 0)
            e = provision_fail(p, "listener %zu: evaluated placeholder in %s is empty", i,
                               json_string_value(v));
        json_array_set_new(settled, i, json_stringn(text.ptr, text.len));
    }
    json_object_set_new(server, "listen", settled);
    return e;
}

static bool listens_beside(const json_t *server, uint16_t port, struct arena *arena)
{
    size_t i;
    json_t *v;
    struct network_address a;
    struct address_error why;
    json_array_foreach(json_object_get(server, "listen"), i, v)
    {
        if (json_is_string(v) && address_parse(text_of(v), SLICE("tcp"), 0, &a, arena, &why) == OK &&
            (port > a.last_port || port < a.first_port))
            return true;
    }
    return false;
}

static enum err record_redirects(struct rules *r, const json_t *server, const struct site_names *names)
{
    size_t i;
    json_t *v;
    struct network_address a;
    struct address_error why;
    struct provision *p = r->p;
    json_array_foreach(json_object_get(server, "listen"), i, v)
    {
        if (!json_is_string(v))
            continue;
        if (address_parse(text_of(v), SLICE("tcp"), 0, &a, p->arena, &why) != OK)
            return provision_fail(p, "invalid listener address: %s", why.text);
        enum err e = names->count == 0 ? redirects_record(r->redirects, SLICE(""), &a) : OK;
        for (size_t n = 0; n < names->count && e == OK; n++)
            e = redirects_record(r->redirects, names->all[n], &a);
        if (e != OK)
            return provision_fail(p, "more than %d addresses are redirected to",
                                  REDIRECT_ADDRESSES_MAX);
    }
    return OK;
}

/* --- one server --- */

static bool too_wide(struct slice name)
{
    size_t dots = 0;
    for (size_t i = 0; i < name.len; i++)
        dots += name.ptr[i] == '.';
    return slice_find(name, '*') != SIZE_MAX && dots == 1;
}

static void manage(struct rules *r, struct slice name, const char *server, const json_t *automatic)
{
    struct auto_https *a = r->a;
    if (!subject_qualifies(name) || has_text(json_object_get(automatic, "skip_certificates"), name))
        return;
    if (!json_is_true(json_object_get(automatic, "ignore_loaded_certificates")) &&
        a->has_certificate != NULL && a->has_certificate(a->arg, name)) {
        LOG(LOG_INFO, "http.auto_https", "skipping automatic certificate management because one or "
            "more matching certificates are already loaded", LOG_STR("domain", name),
            LOG_CSTR("server_name", server));
        return;
    }
    if (too_wide(name))
        LOG(LOG_WARN, "http.auto_https", "most clients do not trust second-level wildcard "
            "certificates (*.tld)", LOG_STR("domain", name));
    if (map_put(&r->managed, name, r) == NULL)
        json_array_append_new(a->names, json_stringn(name.ptr, name.len));
}

static bool is_on(const json_t *automatic, const char *key)
{
    return json_is_true(json_object_get(automatic, key));
}

static void add_policy(json_t *server)
{
    json_object_set_new(server, "tls_connection_policies", json_pack("[{}]"));
}

/* False: there is nothing that would make it HTTPS. */
static bool wants_tls(struct rules *r, const char *name, json_t *server, const json_t *automatic)
{
    const struct auto_https *a = r->a;
    if (is_on(automatic, "disable")) {
        LOG(LOG_INFO, "http.auto_https", "automatic HTTPS is completely disabled for server",
            LOG_CSTR("server_name", name));
        r->disabled++;
        return false;
    }
    if (!listens_beside(server, a->http_port, r->p->arena)) {
        LOG(LOG_WARN, "http.auto_https", "server is listening only on the HTTP port, so no automatic "
            "HTTPS will be applied to this server", LOG_CSTR("server_name", name),
            LOG_NUM("http_port", a->http_port));
        r->disabled++;
        return false;
    }
    if (absent(json_object_get(server, "tls_connection_policies")) &&
        !listens_beside(server, a->https_port, r->p->arena)) {
        LOG(LOG_INFO, "http.auto_https", "server is listening only on the HTTPS port but has no TLS "
            "connection policies; adding one to enable TLS", LOG_CSTR("server_name", name),
            LOG_NUM("https_port", a->https_port));
        add_policy(server);
    }
    return true;
}

static enum err secure(struct rules *r, const char *name, json_t *server, const json_t *automatic,
                       const struct site_names *names)
{
    json_t *logs = json_object_get(server, "logs");
    if (!absent(logs))
        r->logs = logs;
    if (is_on(automatic, "disable_certificates"))
        LOG(LOG_WARN, "http.auto_https", "skipping automated certificate management for server "
            "because it is disabled", LOG_CSTR("server_name", name));
    for (size_t i = 0; i < names->count && !is_on(automatic, "disable_certificates"); i++)
        manage(r, names->all[i], name, automatic);
    if (absent(json_object_get(server, "tls_connection_policies")))
        add_policy(server);
    if (is_on(automatic, "disable_redirects")) {
        LOG(LOG_INFO, "http.auto_https", "automatic HTTP->HTTPS redirects are disabled",
            LOG_CSTR("server_name", name));
        return OK;
    }
    LOG(LOG_INFO, "http.auto_https", "enabling automatic HTTP->HTTPS redirects",
        LOG_CSTR("server_name", name));
    return record_redirects(r, server, names);
}

static enum err check_members(const json_t *automatic, struct provision *p)
{
    static const char *const known[] = {"disable", "disable_redirects", "disable_certificates", "skip",
                                        "skip_certificates", "ignore_loaded_certificates",
                                        "prefer_wildcard", NULL}; /* older; it is so by itself */
    static const char *const switches[] = {"disable", "disable_redirects", "disable_certificates",
                                           "ignore_loaded_certificates", "prefer_wildcard", NULL};
    struct slice *texts;
    size_t count;
    bool on;
    if (absent(automatic))
        return OK;
    TRY(provision_members(p, automatic, known));
    for (const char *const *s = switches; *s != NULL; s++)
        TRY(provision_bool(p, automatic, *s, false, &on));
    TRY(provision_texts(p, automatic, "skip", &texts, &count));
    return provision_texts(p, automatic, "skip_certificates", &texts, &count);
}

static enum err apply_to_server(struct rules *r, const char *name, json_t *server)
{
    struct site_names names = {0};
    const json_t *automatic = json_object_get(server, "automatic_https");
    r->p->path = arena_printf(r->p->arena, "apps.http.servers.%s", name);
    TRY(check_members(automatic, r->p));
    TRY(settle_listen(server, r->p));
    if (!wants_tls(r, name, server, automatic))
        return OK;
    map_init(&names.seen, true);
    enum err e = find_names(&names, server, json_object_get(automatic, "skip"), r->p);
    if (e == OK && (names.count > 0 ||
                    json_array_size(json_object_get(server, "tls_connection_policies")) > 0))
        e = secure(r, name, server, automatic, &names);
    map_deinit(&names.seen);
    return e;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum err apply_to_servers(struct rules *r)
{
    const char *name, **order = ARENA_ARRAY(r->p->arena, const char *,
                                            json_object_size(r->servers) + 1);
    json_t *server;
    size_t n = 0;
    json_object_foreach(r->servers, name, server)
        if (json_is_object(server))
            order[n++] = name;
    qsort(order, n, sizeof *order, by_name);
    for (size_t i = 0; i < n; i++)
        TRY(apply_to_server(r, order[i], json_object_get(r->servers, order[i])));
    return OK;
}

/* --- automation policies --- */

static json_t *policies_of(const json_t *tls)
{
    return json_object_get(json_object_get(tls, "automation"), "policies");
}

static struct slice subject_of(const json_t *v, struct arena *arena)
{
    struct slice name = template_expand_now(text_of(v), arena);
    return host_name_ascii_labels(name, arena);
}

static void note_policies(struct rules *r)
{
    size_t i, s;
    json_t *policy, *v;
    json_array_foreach(policies_of(r->a->tls), i, policy)
    {
        json_array_foreach(json_object_get(policy, "subjects"), s, v)
            if (json_is_string(v))
                map_put(&r->in_policy, subject_of(v, r->p->arena), r);
    }
    r->policies = i;
}

static bool needs_internal(const struct rules *r, struct slice name)
{
    return !subject_qualifies_public(name) || (subject_is_ip(name) && r->policies == 0);
}

/* The names that are left to the internal issuer; those of Tailscale are taken out of `names`. */
static json_t *internal_names(struct rules *r)
{
    json_t *internal = json_array(), *v;
    for (size_t i = 0; (v = json_array_get(r->a->names, i)) != NULL; i++) {
        struct slice name = text_of(v);
        if (map_get(&r->in_policy, name) != NULL)
            continue;
        if (subject_is_tailscale(name)) {
            LOG(LOG_WARN, "http.auto_https", "certificates of Tailscale names are not obtained here: "
                "name a \"get_certificate\" module for them", LOG_STR("domain", name));
            json_array_remove(r->a->names, i--);
        } else if (needs_internal(r, name)) {
            json_array_append(internal, v);
        }
    }
    return internal;
}

static json_t *base_policy(const json_t *tls)
{
    size_t i;
    json_t *policy;
    json_array_foreach(policies_of(tls), i, policy)
    {
        if (json_array_size(json_object_get(policy, "subjects")) == 0)
            return policy;
    }
    return NULL;
}

static void add_policies(struct rules *r)
{
    json_t *internal = internal_names(r), *base = base_policy(r->a->tls);
    if (base == NULL)
        json_array_append_new(r->a->policies, json_object());
    if (json_array_size(internal) > 0) {
        json_t *own = base != NULL ? json_copy(base) : json_object();
        json_object_set(own, "subjects", internal);
        json_object_set_new(own, "issuers", json_pack("[{s:s}]", "module", "internal"));
        json_array_append_new(r->a->policies, own);
    }
    json_decref(internal);
}

/* --- the whole --- */

static enum err apply_rules(struct rules *r)
{
    TRY(apply_to_servers(r));
    if (r->disabled == json_object_size(r->servers) && json_array_size(r->a->names) == 0)
        return OK;
    note_policies(r);
    add_policies(r);
    redirects_apply(r->redirects, r->servers, json_array_size(r->a->names) > 0, r->logs);
    return OK;
}

enum err auto_https_apply(struct auto_https *a, struct provision *p)
{
    struct rules r = {.a = a, .p = p, .servers = json_object_get(a->http, "servers")};
    struct slice outer = p->path;
    if (!json_is_object(r.servers))
        return OK;
    r.redirects = ARENA_NEW(p->arena, struct redirects);
    redirects_init(r.redirects, p->arena, a->http_port, a->https_port);
    map_init(&r.managed, true);
    map_init(&r.in_policy, true);
    enum err e = apply_rules(&r);
    map_deinit(&r.managed);
    map_deinit(&r.in_policy);
    redirects_deinit(r.redirects);
    p->path = e == OK ? outer : p->path;
    return e;
}

/* --- the beginning --- */

/* Servers are changed member by member: what lies deeper is shared with the document. */
static json_t *copy_http(const json_t *http)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)http), *server;
    json_t *servers = json_object_get(http, "servers"), *own;
    const char *name;
    if (!json_is_object(servers))
        return copy;
    own = json_object();
    json_object_foreach(servers, name, server)
        json_object_set_new(own, name, json_copy(server));
    json_object_set_new(copy, "servers", own);
    return copy;
}

/* All its names are internal, and it does not say who issues. */
static bool lacks_issuer(const json_t *policy)
{
    size_t i;
    json_t *v;
    const json_t *subjects = json_object_get(policy, "subjects");
    if (json_array_size(subjects) == 0 || json_array_size(json_object_get(policy, "issuers")) > 0)
        return false;
    json_array_foreach((json_t *)(uintptr_t)subjects, i, v)
    {
        if (!json_is_string(v) || !subject_is_internal(text_of(v)))
            return false;
    }
    return true;
}

static bool route_has(const json_t *route, const json_t *subjects)
{
    size_t m, h;
    json_t *set, *host;
    json_array_foreach(json_object_get(route, "match"), m, set)
    {
        json_array_foreach(json_object_get(set, "host"), h, host)
            if (json_is_string(host) && has_text(subjects, text_of(host)))
                return true;
    }
    return false;
}

/* Whether a host matcher of any server has one of the subjects. */
static bool is_served(const json_t *http, const json_t *subjects)
{
    const char *name;
    size_t r;
    json_t *server, *route;
    json_object_foreach(json_object_get(http, "servers"), name, server)
    {
        json_array_foreach(json_object_get(server, "routes"), r, route)
            if (route_has(route, subjects))
                return true;
    }
    return false;
}

/* Public authorities, which would be the default, give no certificates for such names. */
static json_t *copy_tls(const json_t *tls, const json_t *http)
{
    size_t i;
    json_t *policy, *policies = policies_of(tls), *own = NULL;
    json_array_foreach(policies, i, policy)
    {
        if (!lacks_issuer(policy) || !is_served(http, json_object_get(policy, "subjects")))
            continue;
        if (own == NULL)
            own = json_copy(policies);
        json_t *with = json_copy(policy);
        json_object_set_new(with, "issuers", json_pack("[{s:s}]", "module", "internal"));
        json_array_set_new(own, i, with);
    }
    if (own == NULL)
        return json_incref((json_t *)(uintptr_t)tls);
    json_t *copy = json_copy((json_t *)(uintptr_t)tls);
    json_t *automation = json_copy(json_object_get(tls, "automation"));
    json_object_set_new(automation, "policies", own);
    json_object_set_new(copy, "automation", automation);
    return copy;
}

void auto_https_begin(struct auto_https *a, const json_t *http, const json_t *tls)
{
    a->http = copy_http(http);
    a->tls = absent(tls) ? NULL : copy_tls(tls, http);
    a->names = json_array();
    a->policies = json_array();
}

void auto_https_drop_apps(struct auto_https *a)
{
    json_decref(a->http);
    json_decref(a->tls);
    json_decref(a->policies);
    a->http = a->tls = a->policies = NULL;
}

void auto_https_free(struct auto_https *a)
{
    auto_https_drop_apps(a);
    json_decref(a->names);
    a->names = NULL;
}
