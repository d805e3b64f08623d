/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Automation policies: who gets certificates from where. Each site has one, the global options may
 * make one for all others; equal ones melt together, and none stays that says only what automatic
 * HTTPS does by itself (automation_merge.c).
 */
#include "adapter/tls_app.h"

#include <stdlib.h>

#include "adapter/automation_merge.h"
#include "adapter/conn_policy.h"
#include "adapter/issuer.h"
#include "pki/subject.h"
#include "base/map.h"

struct app {
    struct adapt *a;
    struct policy **policies;
    size_t count, cap;
    struct policy *catch_all;
    json_t *shared; /* hosts that share a block with a key without one */
    json_t *forced; /* names that are to be automated, whatever covers them */
    json_t *loaders;
};

static void add_policy(struct app *t, struct policy *p)
{
    if (t->count == t->cap) {
        t->cap = t->cap < 8 ? 8 : t->cap * 2;
        struct policy **grown = ARENA_ARRAY(t->a->arena, struct policy *, t->cap);
        if (t->count > 0)
            memcpy(grown, t->policies, t->count * sizeof *grown);
        t->policies = grown;
    }
    t->policies[t->count++] = p;
}

static bool has_acme_defaults(const struct adapt *a)
{
    const struct tls_options *o = &a->tls;
    return o->acme_ca.len > 0 || o->acme_ca_root.len > 0 || o->has_acme_dns ||
           o->acme_eab != NULL || o->preferred_chains != NULL;
}

/* A policy with what the global options say; NULL when they say nothing. */
static enum err base_policy(struct adapt *a, bool always, struct policy **out)
{
    const struct tls_options *o = &a->tls;
    bool says = o->issuers != NULL || o->local_certs || o->has_key_type || o->stapling_off ||
                o->renewal_window_ratio > 0 || has_acme_defaults(a);
    *out = says || always ? ARENA_NEW(a->arena, struct policy) : NULL;
    if (!says)
        return OK;
    struct policy *p = *out;
    if (o->issuers != NULL && o->local_certs)
        return diag_fail(a->diag, "global options are ambiguous: local_certs is confusing when "
                                  "combined with cert_issuer, because local_certs is also a "
                                  "specific kind of issuer");
    p->key_type = o->key_type;
    p->issuers = o->issuers;
    if (o->local_certs) {
        p->issuers = j_array(a);
        j_append(p->issuers, issuer_new(a, "internal"));
    }
    for (size_t i = 0; has_acme_defaults(a) && i < json_array_size(p->issuers); i++)
        if (issuer_defaults(a, json_array_get(p->issuers, i)) != OK) {
            diag_prefix(a, "filling in global issuer defaults for issuer %zu", i);
            return ERR_INVALID;
        }
    p->stapling_off = o->stapling_off;
    p->ratio = o->renewal_window_ratio;
    return OK;
}

/* --- what a site says --- */

static void apply_flags(struct policy *p, const struct tls_value *v, bool *has_ratio)
{
    p->on_demand = p->on_demand || v->on_demand;
    p->reuse_private_keys = p->reuse_private_keys || v->reuse_private_keys;
    if (!*has_ratio && v->renewal_window_ratio > 0) {
        p->ratio = v->renewal_window_ratio;
        *has_ratio = true;
    }
}

static enum err apply_tls(struct app *t, struct policy *p, const struct values *tls)
{
    struct adapt *a = t->a;
    json_t *issuers = NULL;
    bool has_ratio = false, has_key_type = false;
    for (size_t i = 0; i < tls->count; i++) {
        const struct tls_value *v = tls->items[i].tls;
        apply_flags(p, v, &has_ratio);
        if (!has_key_type && v->key_type.len > 0) {
            p->key_type = v->key_type;
            has_key_type = true;
        }
        if (v->issuers != NULL && issuers == NULL)
            issuers = j_array(a);
        if (v->issuers != NULL)
            json_array_extend(issuers, v->issuers);
        if (v->managers != NULL && p->managers == NULL)
            p->managers = j_array(a);
        if (v->managers != NULL)
            json_array_extend(p->managers, v->managers);
    }
    if (issuers == NULL)
        return OK;
    if (p == t->catch_all && !policy_same_issuers(p->issuers, issuers))
        return diag_fail(a->diag, "automation policy from site block is also default/catch-all "
                                  "policy because of key without hostname, and the two are in "
                                  "conflict");
    p->issuers = issuers;
    return OK;
}

/* The ACME client listens where the site does. */
static void apply_bind(struct adapt *a, struct policy *p, const struct values *binds)
{
    for (size_t b = 0; b < binds->count; b++)
        for (size_t i = 0; i < json_array_size(p->issuers); i++) {
            json_t *issuer = json_array_get(p->issuers, i);
            const struct bind_value *v = binds->items[b].bind;
            if (!issuer_is_acme(issuer))
                continue;
            json_t *challenges = j_at(a, issuer, "challenges");
            if (json_object_get(challenges, "bind_host") == NULL && v->address_count > 0)
                j_put_text(a, challenges, "bind_host", v->addresses[0]);
        }
}

static int by_text(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

/* Hosts of keys that are served by HTTPS, sorted. */
static size_t secure_hosts(struct adapt *a, const struct placed_site *p, struct slice **out)
{
    struct slice port = arena_printf(a->arena, "%lld", (long long)http_port(a));
    size_t n = 0, kept = 0;
    *out = ARENA_ARRAY(a->arena, struct slice, p->count + 1);
    for (size_t i = 0; i < p->count; i++) {
        const struct site_address *s = &p->addresses[i];
        if (s->host.len > 0 && !slice_is(s->scheme, "http") && !slice_eq(s->port, port))
            (*out)[n++] = s->host;
    }
    qsort(*out, n, sizeof **out, by_text);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || !slice_eq((*out)[kept - 1], (*out)[i]))
            (*out)[kept++] = (*out)[i];
    return kept;
}

/* Names that no public authority signs get a policy of their own; NULL when there is no mixture. */
static enum err split_internal(struct adapt *a, struct policy *p, struct policy **second)
{
    struct slice *internal = ARENA_ARRAY(a->arena, struct slice, p->count + 1);
    struct slice *external = ARENA_ARRAY(a->arena, struct slice, p->count + 1);
    size_t inside = 0, outside = 0;
    *second = NULL;
    for (size_t i = 0; json_array_size(p->issuers) == 0 && i < p->count; i++) {
        struct slice name = p->subjects[i];
        if (subject_is_tailscale(name))
            continue;
        if (!subject_qualifies(name))
            return diag_fail(a->diag, "subject does not qualify for certificate: '" SLICE_FMT "'%s",
                             SLICE_ARG(name), slice_is(name, "}") ? " - is this '}' one too many?" : "");
        if (policy_is_public(p, name))
            external[outside++] = name;
        else
            internal[inside++] = name;
    }
    if (inside == 0 || outside == 0)
        return OK;
    p->subjects = external;
    p->count = outside;
    *second = ARENA_NEW(a->arena, struct policy);
    **second = *p;
    (*second)->subjects = internal;
    (*second)->count = inside;
    (*second)->finished = j_array(a);
    j_append((*second)->finished, issuer_new(a, "internal"));
    return OK;
}

static void gather_loaders(struct app *t, const struct values *tls)
{
    static const char *const kinds[] = {"load_files", "load_folders"};
    for (size_t i = 0; i < tls->count; i++)
        for (int k = 0; k < 2; k++) {
            const json_t *list = json_object_get(tls->items[i].tls->loaders, kinds[k]);
            for (size_t n = 0; n < json_array_size(list); n++)
                j_add_to_list(t->a, t->loaders, slice_from(kinds[k]), json_array_get(list, n));
        }
}

static bool all_http(const struct placed_site *p)
{
    for (size_t i = 0; i < p->count; i++)
        if (!slice_is(p->addresses[i].scheme, "http"))
            return false;
    return true;
}

static enum err add_site(struct app *t, const struct placed_site *s)
{
    struct adapt *a = t->a;
    struct policy *p, *second;
    struct slice *hosts;
    size_t host_count = placed_hosts(a, s, false, &hosts);
    TRY(base_policy(a, true, &p));
    if (host_count == 0 && t->catch_all != NULL)
        p = t->catch_all;
    TRY(apply_tls(t, p, &s->site->tls));
    for (size_t i = 0; i < s->site->tls.count; i++)
        for (size_t k = 0; s->site->tls.items[i].tls->force_automate && k < host_count; k++)
            j_set_key(a, t->forced, hosts[k], json_true());
    apply_bind(a, p, &s->site->binds);
    if (host_count == 0 && t->catch_all == NULL)
        t->catch_all = p;
    p->count = secure_hosts(a, s, &p->subjects);
    TRY(split_internal(a, p, &second));
    add_policy(t, p);
    if (second != NULL)
        add_policy(t, second);
    gather_loaders(t, &s->site->tls);
    return OK;
}

/* Hosts that automatic HTTPS would not see, since a key without a host stands beside them. */
static void find_shared(struct app *t, const struct placed_site *s)
{
    struct adapt *a = t->a;
    struct slice port = arena_printf(a->arena, "%lld", (long long)http_port(a));
    for (size_t i = 0; i < s->count; i++) {
        if (s->addresses[i].host.len > 0)
            continue;
        for (size_t k = 0; k < s->count; k++) {
            const struct site_address *o = &s->addresses[k];
            if (!slice_eq(o->original, s->addresses[i].original) && o->host.len > 0 &&
                !slice_is(o->scheme, "http") && !slice_eq(o->port, port))
                j_set_key(a, t->shared, o->host, json_true());
        }
        return;
    }
}

/* --- certificates to load, names to automate --- */

static json_t *certificates(struct app *t, struct policy *internal)
{
    struct adapt *a = t->a;
    json_t *names = j_object(a), *list = j_array(a), *ignored;
    const char *name;
    internal->subjects = ARENA_ARRAY(a->arena, struct slice, json_object_size(t->shared) + 1);
    if (!auto_https_says(a, "off") && !auto_https_says(a, "disable_certs")) {
        json_t *sorted = j_by_name(a, t->shared);
        json_object_foreach(sorted, name, ignored) {
            j_set(a, names, name, json_true());
            if (!subject_qualifies_public(slice_from(name)))
                internal->subjects[internal->count++] = slice_from(name);
        }
    }
    json_object_foreach(t->forced, name, ignored)
        j_set(a, names, name, json_true());
    names = j_by_name(a, names);
    json_object_foreach(names, name, ignored)
        j_append_text(a, list, slice_from(name));
    if (json_array_size(list) > 0)
        j_set(a, t->loaders, "automate", list);
    return j_by_name(a, t->loaders);
}

/* --- defaults and verification --- */

static enum err finish_policies(struct app *t)
{
    struct adapt *a = t->a;
    bool global = has_acme_defaults(a) || a->tls.email.len > 0;
    for (size_t i = 0; i < t->count; i++) {
        struct policy *p = t->policies[i];
        bool all_public = true;
        for (size_t k = 0; k < p->count; k++)
            all_public = all_public && policy_is_public(p, p->subjects[k]) &&
                         !subject_is_tailscale(p->subjects[k]);
        if (global && json_array_size(p->issuers) == 0 && all_public)
            p->issuers =
                issuers_default(a, a->tls.acme_ca.len > 0 ? SLICE_NONE : a->tls.email);
    }
    for (size_t i = 0; i < t->count; i++) {
        struct policy *p = t->policies[i];
        for (size_t k = 0; k < json_array_size(p->issuers); k++)
            if (issuer_defaults(a, json_array_get(p->issuers, k)) != OK) {
                diag_prefix(a, "filling in global issuer defaults for AP %zu, issuer %zu", i, k);
                return ERR_INVALID;
            }
        if (json_array_size(p->issuers) > 0 && p->finished == NULL)
            p->finished = j_sorted(a, p->issuers);
    }
    return OK;
}

static enum err check_overlap(struct app *t)
{
    struct map seen;
    enum err e = OK;
    map_init(&seen, false);
    for (size_t i = 0; i < t->count && e == OK; i++)
        for (size_t k = 0; k < t->policies[i]->count && e == OK; k++) {
            struct slice name = t->policies[i]->subjects[k];
            if (map_get(&seen, name) != NULL)
                e = diag_fail(t->a->diag,
                              "hostname appears in more than one automation policy, making "
                              "certificate management ambiguous: " SLICE_FMT, SLICE_ARG(name));
            map_put(&seen, name, t);
        }
    map_deinit(&seen);
    return e;
}

/* --- the app --- */

static json_t *policy_json(struct adapt *a, const struct policy *p)
{
    json_t *o = j_object(a);
    j_put_strings(a, o, "subjects", p->subjects, p->count);
    if (json_array_size(p->finished) > 0)
        j_set(a, o, "issuers", p->finished);
    if (json_array_size(p->managers) > 0)
        j_set(a, o, "get_certificate", p->managers);
    if (p->ratio > 0)
        j_set(a, o, "renewal_window_ratio", keep(a, json_real(p->ratio)));
    j_put_text(a, o, "key_type", p->key_type);
    j_put_bool(a, o, "on_demand", p->on_demand);
    j_put_bool(a, o, "reuse_private_keys", p->reuse_private_keys);
    j_put_bool(a, o, "disable_ocsp_stapling", p->stapling_off);
    return o;
}

static json_t *automation(struct app *t)
{
    struct adapt *a = t->a;
    json_t *o = j_object(a), *list = j_array(a);
    for (size_t i = 0; i < t->count; i++)
        j_append(list, policy_json(a, t->policies[i]));
    if (t->count > 0)
        j_set(a, o, "policies", list);
    if (a->tls.on_demand != NULL)
        j_set(a, o, "on_demand", a->tls.on_demand);
    j_put_int(a, o, "ocsp_interval", a->tls.ocsp_interval);
    j_put_int(a, o, "renew_interval", a->tls.renew_interval);
    j_put_int(a, o, "storage_clean_interval", a->tls.storage_clean_interval);
    return o;
}

static enum err add_sites(struct app *t, const struct pairing *pairings, size_t count)
{
    struct adapt *a = t->a;
    for (size_t i = 0; i < count; i++)
        for (size_t s = 0; s < pairings[i].site_count; s++)
            if (!auto_https_says(a, "off"))
                find_shared(t, &pairings[i].sites[s]);
    TRY(base_policy(a, false, &t->catch_all));
    if (t->catch_all != NULL)
        add_policy(t, t->catch_all);
    for (size_t i = 0; i < count; i++) {
        if (!listeners_use_other_port(a, &pairings[i], http_port(a)))
            continue;
        for (size_t s = 0; s < pairings[i].site_count; s++)
            if (!all_http(&pairings[i].sites[s]))
                TRY(add_site(t, &pairings[i].sites[s]));
    }
    return OK;
}

/* The outer names of encrypted client hellos need certificates too. */
static enum err add_ech(struct app *t)
{
    struct adapt *a = t->a;
    const json_t *configs = json_object_get(a->tls.ech, "configs");
    struct policy *p;
    if (configs == NULL)
        return OK;
    TRY(base_policy(a, true, &p));
    p->subjects = ARENA_ARRAY(a->arena, struct slice, json_array_size(configs));
    for (size_t i = 0; i < json_array_size(configs); i++) {
        const json_t *name = json_object_get(json_array_get(configs, i), "public_name");
        if (json_string_length(name) > 0)
            p->subjects[p->count++] = slice_of(json_string_value(name), json_string_length(name));
    }
    add_policy(t, p);
    return OK;
}

static json_t *app_json(struct app *t, json_t *loaders)
{
    struct adapt *a = t->a;
    const struct tls_options *o = &a->tls;
    json_t *app = j_object(a), *auto_json = automation(t);
    if (json_object_size(loaders) > 0)
        j_set(a, app, "certificates", loaders);
    if (json_object_size(auto_json) > 0)
        j_set(a, app, "automation", auto_json);
    j_put_bool(a, app, "disable_ocsp_stapling", o->stapling_off);
    j_put_bool(a, app, "disable_storage_check", o->storage_check_off);
    j_put_bool(a, app, "disable_storage_clean", o->storage_clean_off);
    if (o->ech != NULL)
        j_set(a, app, "encrypted_client_hello", o->ech);
    if (o->dns != NULL)
        j_set(a, app, "dns", o->dns);
    j_put_strings(a, app, "resolvers", o->resolvers, o->resolver_count);
    return json_object_size(app) > 0 ? app : NULL;
}

enum err tls_app_build(struct adapt *a, const struct pairing *pairings, size_t count, json_t **app)
{
    struct app t = {.a = a, .shared = j_object(a), .forced = j_object(a), .loaders = j_object(a)};
    struct policy *internal = ARENA_NEW(a->arena, struct policy);
    TRY(add_sites(&t, pairings, count));
    TRY(add_ech(&t));
    json_t *loaders = certificates(&t, internal);
    internal->finished = j_array(a);
    j_append(internal->finished, issuer_new(a, "internal"));
    if (internal->count > 0)
        add_policy(&t, internal);
    TRY(finish_policies(&t));
    policies_merge(a, t.policies, &t.count);
    TRY(check_overlap(&t));
    *app = app_json(&t, loaders);
    return OK;
}

/* --- pki --- */

json_t *pki_app_build(struct adapt *a, const struct pairing *pairings, size_t count)
{
    static const char *const keys[] = {
        "name", "root_common_name", "intermediate_common_name", "intermediate_lifetime",
        "install_trust", "root", "intermediate", "maintenance_interval", "renewal_window_ratio",
        NULL};
    json_t *all = a->tls.authorities != NULL ? a->tls.authorities : j_object(a), *ca;
    json_t *out = j_object(a), *app = j_object(a);
    const char *id;
    for (size_t i = 0; i < count; i++)
        for (size_t s = 0; s < pairings[i].site_count; s++) {
            const struct values *named = &pairings[i].sites[s].site->authorities;
            for (size_t k = 0; k < named->count; k++)
                if (j_get(all, named->items[k].name) == NULL)
                    j_set_key(a, all, named->items[k].name, j_object(a));
        }
    if (json_object_size(all) == 0 && a->tls.skip_install_trust && !auto_https_says(a, "off"))
        j_set(a, all, "local", j_object(a));
    json_object_foreach(all, id, ca) {
        if (a->tls.skip_install_trust)
            j_set(a, ca, "install_trust", json_false());
        j_set(a, out, id, j_ordered(a, ca, keys));
    }
    if (json_object_size(out) == 0)
        return NULL;
    j_set(a, app, "certificate_authorities", j_by_name(a, out));
    return app;
}
