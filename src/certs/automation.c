/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The app "tls" read from its JSON. The rules are Caddy's: the first policy that has a name decides,
 * a policy without subjects has every name, and a name without a policy gets the default one of
 * its kind, made when such a name comes up. What Caddy knows and this program does not yet is
 * refused by its name, so that nothing is silently left out.
 */
#include "certs/automation.h"

#include "base/clock.h"
#include "base/mem.h"
#include "certs/automation_parts.h"
#include "http/template.h"
#include "http/tls_modules.h"
#include "pki/subject.h"

#define OCSP_INTERVAL_NS (3600 * (int64_t)NS_PER_S)
#define RENEW_INTERVAL_NS (600 * (int64_t)NS_PER_S)
#define CLEAN_INTERVAL_NS (24 * 3600 * (int64_t)NS_PER_S)

enum { CAPACITY = 10000, INTERVAL_MIN_NS = 1000 * 1000 * 1000 };

static const char *const tls_members[] = {
    "certificates", "automation", "session_tickets", "cache", "disable_ocsp_stapling",
    "disable_storage_check", "disable_storage_clean", "encrypted_client_hello", "dns", "resolvers",
    NULL};
static const char *const automation_members[] = {"policies", "on_demand", "ocsp_interval",
                                                 "renew_interval", "storage_clean_interval", NULL};
static const char *const demand_members[] = {"ask", "permission", "rate_limit", NULL};
static const char *const certificates_members[] = {"automate", "load_files", "load_folders",
                                                   "load_pem", "load_storage", NULL};
static const char *const cache_members[] = {"capacity", NULL};

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

/* --- storage --- */

/* Opened storages stay open: the generation after the next one will want them again. */
static struct opened {
    struct opened *next;
    struct storage *storage;
    struct slice root;
} *opened;

static struct storage *open_root(struct slice root)
{
    for (struct opened *o = opened; o != NULL; o = o->next) {
        if (slice_eq(o->root, root))
            return o->storage;
    }
    struct opened *o = NEW(struct opened);
    o->root = slice_of(slice_dup(root), root.len);
    o->storage = storage_open_files(o->root);
    o->next = opened;
    opened = o;
    return o->storage;
}

enum err automation_storage(struct provision *p, const json_t *storage, struct slice data_folder,
                            struct storage **out)
{
    static const char *const known[] = {"module", "root", NULL};
    struct slice module, root;
    if (storage == NULL || json_is_null(storage)) {
        *out = open_root(data_folder);
        return OK;
    }
    if (!json_is_object(storage))
        return provision_fail(p, "must be an object");
    TRY(provision_text(p, storage, "module", SLICE_NONE, &module));
    if (!slice_is(module, "file_system"))
        return provision_fail(p, "unknown module: caddy.storage." SLICE_FMT, SLICE_ARG(module));
    TRY(provision_members(p, storage, known));
    TRY(provision_text(p, storage, "root", SLICE_NONE, &root));
    *out = open_root(root.len > 0 ? root : data_folder);
    return OK;
}

/* --- names --- */

static bool has_subject(const struct automation_policy *policy, struct slice name)
{
    for (size_t i = 0; i < policy->subjects_count; i++) {
        if (subject_matches(name, policy->subjects[i]))
            return true;
    }
    return policy->subjects_count == 0;
}

static const struct automation_policy *configured(const struct automation *a, struct slice name)
{
    for (size_t i = 0; i < a->policies_count; i++) {
        if (has_subject(a->policies[i], name))
            return a->policies[i];
    }
    return NULL;
}

const struct automation_policy *automation_find(const struct automation *a, struct slice name)
{
    const struct automation_policy *policy = configured(a, name);
    if (policy != NULL)
        return policy;
    if (a->fallback_internal == NULL || subject_qualifies_public(name))
        return a->fallback_public;
    return a->fallback_internal;
}

bool automation_is_internal(const struct automation_policy *policy)
{
    for (size_t i = 0; i < policy->issuers_count; i++) {
        if (!slice_is(policy->issuers[i].module, "internal"))
            return false;
    }
    return policy->issuers_count > 0;
}

static enum err need_fallback(struct provision *p, struct automation *a, struct slice name)
{
    if (configured(a, name) != NULL)
        return OK;
    p->path = SLICE("apps.tls.automation");
    if (subject_qualifies_public(name))
        return a->fallback_public != NULL ? OK : policy_provision(p, a, NULL, &a->fallback_public);
    if (a->fallback_internal != NULL)
        return OK;
    json_t *internal = json_pack("{s:[{s:s}]}", "issuers", "module", "internal");
    provision_on_release(p, (void (*)(void *))json_decref, internal);
    return policy_provision(p, a, internal, &a->fallback_internal);
}

enum err automation_add_name(struct provision *p, struct automation *a, struct slice name)
{
    TRY(policy_ascii(p, slice_trim(name), &name));
    if (map_get(a->names_set, name) != NULL)
        return OK;
    TRY(need_fallback(p, a, name));
    if (a->names_count == a->names_cap) {
        size_t cap = a->names_cap < 64 ? 64 : a->names_cap * 2;
        struct slice *grown = ARENA_ARRAY(p->arena, struct slice, cap);
        if (a->names_count > 0)
            memcpy(grown, a->names, a->names_count * sizeof *grown);
        a->names = grown;
        a->names_cap = cap;
    }
    a->names[a->names_count++] = name;
    map_put(a->names_set, name, a);
    return OK;
}

bool automation_has_manual(const struct automation *a, struct slice name)
{
    char text[SUBJECT_MAX + 1];
    struct slice wildcard;
    if (map_get(a->manual_names, name) != NULL)
        return true;
    for (size_t stars = 1; subject_wildcard(name, stars, text, &wildcard); stars++) {
        if (map_get(a->manual_names, wildcard) != NULL)
            return true;
    }
    return false;
}

static enum err read_automate(struct provision *p, struct automation *a, const json_t *names)
{
    size_t i;
    json_t *v;
    if (names == NULL)
        return OK;
    p->path = SLICE("apps.tls.certificates.automate");
    if (!json_is_array(names))
        return provision_fail(p, "must be an array of strings");
    json_array_foreach((json_t *)(uintptr_t)names, i, v)
    {
        struct slice name;
        if (!json_is_string(v))
            return provision_fail(p, "must be an array of strings");
        name = template_expand_now(slice_of(json_string_value(v), json_string_length(v)), p->arena);
        if (!subject_qualifies(name))
            return provision_fail(p, "'" SLICE_FMT "' does not qualify for a certificate",
                                  SLICE_ARG(name));
        TRY(policy_ascii(p, slice_trim(name), &name));
        map_put(a->forced, name, a);
        TRY(automation_add_name(p, a, name));
    }
    return OK;
}

/* --- manual certificates --- */

static void free_manual(void *loaded)
{
    struct loaded_credentials *l = loaded;
    for (size_t i = 0; i < l->count; i++)
        credential_unref(l->all[i]);
    mem_free(l->all);
}

static enum err read_loaders(struct provision *p, struct automation *a, const json_t *certificates)
{
    static const char *const names[] = {"load_files", "load_folders", "load_pem", "load_storage"};
    struct loaded_credentials *l = ARENA_NEW(p->arena, struct loaded_credentials);
    if (certificates == NULL)
        return OK;
    p->path = SLICE("apps.tls.certificates");
    TRY(provision_members(p, certificates, certificates_members));
    provision_on_release(p, free_manual, l);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct module *m;
        void *cfg;
        const json_t *v = member(certificates, names[i]);
        p->path = arena_printf(p->arena, "apps.tls.certificates.%s", names[i]);
        if (v == NULL)
            continue;
        TRY(provision_module(p, "tls.certificates", names[i], v, &m, &cfg));
        TRY(((const struct certificate_loader *)m->face)->load(cfg, p, l));
    }
    a->manual = l->all;
    a->manual_count = l->count;
    for (size_t i = 0; i < l->count; i++) {
        const struct certificate_facts *f = credential_facts(l->all[i]);
        for (size_t n = 0; n < f->names_count; n++)
            map_put(a->manual_names, f->names[n], a);
    }
    return OK;
}

/* --- on demand --- */

static enum err read_ask(struct provision *p, struct automation *a, struct slice url)
{
    const struct module *m;
    void *cfg;
    json_t *ask = json_pack("{s:s%}", "endpoint", url.ptr, url.len);
    if (ask == NULL)
        return provision_fail(p, "\"ask\" is not UTF-8");
    provision_on_release(p, (void (*)(void *))json_decref, ask);
    TRY(provision_module(p, "tls.permission", "http", ask, &m, &cfg));
    a->permission = m->face;
    a->permission_cfg = cfg;
    return OK;
}

static enum err read_permission(struct provision *p, struct automation *a, const json_t *json)
{
    struct slice name;
    const struct module *m;
    void *cfg;
    p->path = SLICE("apps.tls.automation.on_demand.permission");
    if (!json_is_object(json))
        return provision_fail(p, "must be an object");
    TRY(provision_text(p, json, "module", SLICE_NONE, &name));
    if (name.len == 0)
        return provision_fail(p, "\"module\" is missing");
    TRY(provision_module(p, "tls.permission", arena_str(p->arena, name), json, &m, &cfg));
    a->permission = m->face;
    a->permission_cfg = cfg;
    return OK;
}

static enum err read_demand(struct provision *p, struct automation *a, const json_t *json)
{
    struct slice ask;
    if (json == NULL)
        return OK;
    p->path = SLICE("apps.tls.automation.on_demand");
    TRY(provision_members(p, json, demand_members));
    if (member(json, "rate_limit") != NULL)
        return provision_fail(p, "\"rate_limit\" is not supported any more: the permission module "
                              "is to be asked for every name; remove it");
    TRY(provision_text(p, json, "ask", SLICE_NONE, &ask));
    const json_t *permission = member(json, "permission");
    if (ask.len > 0 && permission != NULL)
        return provision_fail(p, "both an 'ask' endpoint and a 'permission' module are specified; "
                              "'ask' is deprecated, so use only the permission module");
    if (ask.len > 0)
        return read_ask(p, a, ask);
    return permission != NULL ? read_permission(p, a, permission) : OK;
}

/* --- the app --- */

static enum err read_interval(struct provision *p, const json_t *json, const char *key,
                              int64_t fallback, uint64_t *out)
{
    int64_t ns;
    TRY(provision_duration(p, json, key, fallback, &ns));
    if (ns <= 0)
        ns = fallback;
    *out = (uint64_t)(ns < INTERVAL_MIN_NS ? INTERVAL_MIN_NS : ns);
    return OK;
}

static enum err read_policies(struct provision *p, struct automation *a, const json_t *policies)
{
    size_t i;
    json_t *v;
    if (policies == NULL)
        return OK;
    if (!json_is_array(policies))
        return provision_fail(p, "\"policies\" must be an array");
    a->policies_cap = json_array_size(policies) + 8;
    a->policies = ARENA_ARRAY(p->arena, struct automation_policy *, a->policies_cap);
    json_array_foreach((json_t *)(uintptr_t)policies, i, v)
    {
        p->path = arena_printf(p->arena, "apps.tls.automation.policies[%zu]", i);
        TRY(policy_provision(p, a, v, &a->policies[i]));
        a->policies_count++;
    }
    return OK;
}

/* Each name and "every name" in one policy only: a second one would never be used. */
static enum err check_policies(struct provision *p, const struct automation *a)
{
    enum err e = OK;
    struct map seen;
    bool catch_all = false;
    map_init(&seen, true);
    p->path = SLICE("apps.tls");
    for (size_t i = 0; i < a->policies_count && e == OK; i++) {
        const struct automation_policy *policy = a->policies[i];
        if (policy->subjects_count == 0 && catch_all)
            e = provision_fail(p, "automation policy %zu is the second policy that acts as "
                               "default/catch-all, but will never be used", i);
        catch_all = catch_all || policy->subjects_count == 0;
        for (size_t s = 0; s < policy->subjects_count && e == OK; s++) {
            struct slice name = policy->subjects[s];
            uintptr_t first = (uintptr_t)map_put(&seen, name, (void *)(i + 1));
            if (first != 0)
                e = provision_fail(p, "automation policy %zu: cannot apply more than one "
                                   "automation policy to host: " SLICE_FMT " (first match in "
                                   "policy %zu)", i, SLICE_ARG(name), (size_t)first - 1);
        }
    }
    map_deinit(&seen);
    return e;
}

static enum err read_automation(struct provision *p, struct automation *a, const json_t *json)
{
    p->path = SLICE("apps.tls.automation");
    if (json != NULL)
        TRY(provision_members(p, json, automation_members));
    TRY(read_interval(p, json, "ocsp_interval", OCSP_INTERVAL_NS, &a->ocsp_interval_ns));
    TRY(read_interval(p, json, "renew_interval", RENEW_INTERVAL_NS, &a->renew_interval_ns));
    TRY(read_interval(p, json, "storage_clean_interval", CLEAN_INTERVAL_NS, &a->clean_interval_ns));
    TRY(read_demand(p, a, member(json, "on_demand")));
    TRY(read_policies(p, a, member(json, "policies")));
    return check_policies(p, a);
}

static enum err read_cache(struct provision *p, struct automation *a, const json_t *cache)
{
    int64_t n = 0;
    if (cache != NULL) {
        p->path = SLICE("apps.tls.cache");
        TRY(provision_members(p, cache, cache_members));
        TRY(provision_int(p, cache, "capacity", 0, 0, INT32_MAX, &n));
    }
    a->capacity = n > 0 ? (size_t)n : CAPACITY;
    return OK;
}

static enum err read_app(struct provision *p, struct automation *a, const json_t *tls)
{
    if (tls != NULL) {
        TRY(provision_members(p, tls, tls_members));
        if (member(tls, "encrypted_client_hello") != NULL)
            return provision_fail(p, "\"encrypted_client_hello\" needs a TLS library that has it, "
                                  "which this one has not; leave it out");
    }
    TRY(provision_bool(p, tls, "disable_ocsp_stapling", false, &a->manual_no_stapling));
    TRY(provision_bool(p, tls, "disable_storage_check", false, &a->no_storage_check));
    TRY(provision_bool(p, tls, "disable_storage_clean", false, &a->no_storage_clean));
    TRY(read_cache(p, a, member(tls, "cache")));
    const json_t *certificates = member(tls, "certificates");
    TRY(read_loaders(p, a, certificates));
    TRY(read_automation(p, a, member(tls, "automation")));
    return read_automate(p, a, member(certificates, "automate"));
}

static void free_map(void *map)
{
    map_deinit(map);
}

static struct map *new_map(struct provision *p, bool nocase)
{
    struct map *m = ARENA_NEW(p->arena, struct map);
    map_init(m, nocase);
    provision_on_release(p, free_map, m);
    return m;
}

enum err automation_provision(struct provision *p, const struct automation_origin *o,
                              struct automation **out)
{
    struct automation *a = ARENA_NEW(p->arena, struct automation);
    const json_t *tls = json_is_null(o->tls) ? NULL : o->tls;
    a->names_set = new_map(p, false);
    a->forced = new_map(p, false);
    a->manual_names = new_map(p, true);
    a->data_folder = arena_copy(p->arena, o->data_folder);
    p->path = SLICE("storage");
    TRY(automation_storage(p, o->storage, o->data_folder, &a->storage));
    p->storage = a->storage;
    p->tls = tls;
    p->path = SLICE("apps.tls");
    TRY(read_app(p, a, tls));
    *out = a;
    return OK;
}

/* --- additions of automatic HTTPS --- */

static bool is_more_general(const struct automation_policy *other, const struct automation_policy *fresh)
{
    if (other->subjects_count < fresh->subjects_count)
        return true;
    for (size_t i = 0; i < fresh->subjects_count; i++) {
        for (size_t s = 0; s < other->subjects_count; s++) {
            if (subject_matches(fresh->subjects[i], other->subjects[s]))
                return true;
        }
    }
    return false;
}

enum err automation_add_policy(struct provision *p, struct automation *a, const json_t *json)
{
    struct automation_policy *fresh;
    p->path = SLICE("apps.tls.automation");
    TRY(policy_provision(p, a, json, &fresh));
    if (a->policies_count == a->policies_cap) {
        size_t cap = a->policies_cap + 8;
        struct automation_policy **grown = ARENA_ARRAY(p->arena, struct automation_policy *, cap);
        if (a->policies_count > 0)
            memcpy(grown, a->policies, a->policies_count * sizeof *grown);
        a->policies = grown;
        a->policies_cap = cap;
    }
    size_t at = 0;
    while (at < a->policies_count && !is_more_general(a->policies[at], fresh))
        at++;
    memmove(a->policies + at + 1, a->policies + at, (a->policies_count - at) * sizeof *a->policies);
    a->policies[at] = fresh;
    a->policies_count++;
    return check_policies(p, a);
}
