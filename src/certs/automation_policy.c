/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One policy of automation. It may turn on certificates on demand only where something stands
 * between a stranger's handshake and an authority: a permission to ask for, a list of names, the local
 * authority, or somebody else who hands out the certificates.
 */
#include "certs/automation_parts.h"

#include <idn2.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/log.h"
#include "http/template.h"
#include "pki/subject.h"

static const char *const policy_members[] = {
    "subjects", "issuers", "get_certificate", "must_staple", "renewal_window_ratio", "key_type",
    "storage", "on_demand", "reuse_private_keys", "disable_ocsp_stapling", "ocsp_overrides", NULL};

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

static struct slice text_of(const json_t *v)
{
    return slice_of(json_string_value(v), json_string_length(v));
}

enum err policy_ascii(struct provision *p, struct slice name, struct slice *out)
{
    char *ascii = NULL;
    bool plain = true;
    for (size_t i = 0; i < name.len; i++)
        plain = plain && (unsigned char)name.ptr[i] < 0x80;
    if (plain) {
        *out = arena_copy(p->arena, name);
    } else {
        int e = idn2_to_ascii_8z(arena_str(p->arena, name), &ascii, IDN2_NONTRANSITIONAL);
        if (e != IDN2_OK)
            return provision_fail(p, "could not convert subject '" SLICE_FMT "' to punycode: %s",
                                  SLICE_ARG(name), idn2_strerror(e));
        *out = arena_copy(p->arena, slice_from(ascii));
        idn2_free(ascii);
    }
    for (size_t i = 0; i < out->len; i++)
        ((char *)(uintptr_t)out->ptr)[i] = ascii_lower(out->ptr[i]);
    return OK;
}

static enum err read_subjects(struct provision *p, const json_t *json, struct automation_policy *policy)
{
    TRY(provision_texts(p, json, "subjects", &policy->subjects, &policy->subjects_count));
    for (size_t i = 0; i < policy->subjects_count; i++) {
        struct slice expanded = template_expand_now(policy->subjects[i], p->arena);
        TRY(policy_ascii(p, expanded, &policy->subjects[i]));
    }
    return OK;
}

static enum err read_issuer(struct provision *p, const json_t *json, struct issuer *issuer)
{
    const struct module *m;
    void *cfg;
    if (!json_is_object(json))
        return provision_fail(p, "must be an object");
    TRY(provision_text(p, json, "module", SLICE_NONE, &issuer->module));
    if (issuer->module.len == 0)
        return provision_fail(p, "\"module\" is missing");
    TRY(provision_module(p, "tls.issuance", arena_str(p->arena, issuer->module), json, &m, &cfg));
    issuer->type = m->face;
    issuer->cfg = cfg;
    issuer->key = issuer->type->key(cfg, p->arena);
    return OK;
}

enum err automation_set_issuers(struct provision *p, struct automation_policy *policy,
                                const json_t *issuers)
{
    size_t i;
    json_t *v;
    struct slice path = p->path;
    if (!json_is_array(issuers))
        return provision_fail(p, "\"issuers\" must be an array");
    policy->issuers = ARENA_ARRAY(p->arena, struct issuer, json_array_size(issuers));
    policy->issuers_count = 0;
    policy->own_issuers = true;
    json_array_foreach((json_t *)(uintptr_t)issuers, i, v)
    {
        p->path = arena_printf(p->arena, SLICE_FMT ".issuers[%zu]", SLICE_ARG(path), i);
        TRY(read_issuer(p, v, &policy->issuers[i]));
        policy->issuers_count++;
    }
    p->path = path;
    return OK;
}

static enum err read_issuers(struct provision *p, const json_t *json, struct automation_policy *policy)
{
    const json_t *issuers = member(json, "issuers");
    if (issuers != NULL && json_array_size(issuers) > 0)
        return automation_set_issuers(p, policy, issuers);
    if (issuers != NULL && !json_is_array(issuers))
        return provision_fail(p, "\"issuers\" must be an array");
    json_t *acme = json_pack("[{s:s}]", "module", "acme");
    provision_on_release(p, (void (*)(void *))json_decref, acme);
    TRY(automation_set_issuers(p, policy, acme));
    policy->own_issuers = false;
    return OK;
}

static enum err read_getter(struct provision *p, const json_t *json, struct getter *getter)
{
    struct slice name;
    const struct module *m;
    void *cfg;
    if (!json_is_object(json))
        return provision_fail(p, "must be an object");
    TRY(provision_text(p, json, "via", SLICE_NONE, &name));
    if (slice_is(name, "tailscale"))
        return provision_fail(p, "get_certificate from Tailscale is not supported");
    if (name.len == 0)
        return provision_fail(p, "\"via\" is missing");
    TRY(provision_module(p, "tls.get_certificate", arena_str(p->arena, name), json, &m, &cfg));
    *getter = (struct getter){m->face, cfg};
    return OK;
}

static enum err read_getters(struct provision *p, const json_t *json, struct automation_policy *policy)
{
    size_t i;
    json_t *v;
    struct slice path = p->path;
    const json_t *getters = member(json, "get_certificate");
    if (getters == NULL)
        return OK;
    if (!json_is_array(getters))
        return provision_fail(p, "\"get_certificate\" must be an array");
    policy->getters = ARENA_ARRAY(p->arena, struct getter, json_array_size(getters));
    json_array_foreach((json_t *)(uintptr_t)getters, i, v)
    {
        p->path = arena_printf(p->arena, SLICE_FMT ".get_certificate[%zu]", SLICE_ARG(path), i);
        TRY(read_getter(p, v, &policy->getters[i]));
        policy->getters_count++;
    }
    p->path = path;
    return OK;
}

static enum err read_ratio(struct provision *p, const json_t *json, double *ratio)
{
    const json_t *v = member(json, "renewal_window_ratio");
    *ratio = 1.0 / 3.0;
    if (v == NULL)
        return OK;
    if (!json_is_number(v) || json_number_value(v) < 0 || json_number_value(v) >= 1)
        return provision_fail(p, "\"renewal_window_ratio\" must be a number from 0 to below 1");
    if (json_number_value(v) > 0)
        *ratio = json_number_value(v);
    return OK;
}

static enum err read_key_type(struct provision *p, const json_t *json, enum key_type *type)
{
    struct slice text;
    TRY(provision_text(p, json, "key_type", SLICE_NONE, &text));
    text = template_expand_now(text, p->arena);
    if (key_type_parse(text, type) != OK)
        return provision_fail(p, "unrecognized key type: " SLICE_FMT, SLICE_ARG(text));
    return OK;
}

static enum err read_overrides(struct provision *p, const json_t *json, struct automation_policy *policy)
{
    const char *key;
    json_t *v;
    const json_t *overrides = member(json, "ocsp_overrides");
    if (overrides == NULL)
        return OK;
    if (!json_is_object(overrides))
        return provision_fail(p, "\"ocsp_overrides\" must be an object");
    policy->overrides = ARENA_ARRAY(p->arena, struct ocsp_override, json_object_size(overrides));
    json_object_foreach((json_t *)(uintptr_t)overrides, key, v)
    {
        if (!json_is_string(v))
            return provision_fail(p, "\"ocsp_overrides\" must be an object of strings");
        policy->overrides[policy->overrides_count++] =
            (struct ocsp_override){arena_copy(p->arena, slice_from(key)),
                                   arena_copy(p->arena, text_of(v))};
    }
    return OK;
}

static bool is_unbounded(const struct automation_policy *policy)
{
    for (size_t i = 0; i < policy->subjects_count; i++) {
        if (slice_starts(policy->subjects[i], SLICE("*")))
            return true;
    }
    return policy->subjects_count == 0;
}

static enum err check_demand(struct provision *p, const struct automation *a,
                             struct automation_policy *policy)
{
    policy->on_demand = policy->on_demand || policy->getters_count > 0;
    bool protected = !is_unbounded(policy) || a->permission != NULL ||
                     (policy->own_issuers && policy->issuers_count == 1 &&
                      automation_is_internal(policy));
    if (!policy->on_demand || protected)
        return OK;
    if (policy->getters_count == 0)
        return provision_fail(p, "on-demand TLS cannot be enabled without a permission module to "
                              "prevent abuse; please refer to documentation for details");
    policy->getters_only = true;
    LOG(LOG_WARN, "tls", "on-demand TLS can only get certificates from the configured external "
        "manager(s) because no ask endpoint / permission module is specified");
    return OK;
}

/* What it says, where it is kept and on which ports challenges are answered. */
static uint64_t print_of(const struct provision *p, const struct automation_policy *policy,
                         const json_t *json)
{
    char *dump = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    const uint64_t key[2] = {p->http_port, p->https_port};
    uint64_t print = hash_keyed(slice_from(dump), key) ^ hash_keyed(policy->storage->root, key);
    for (size_t i = 0; i < policy->issuers_count; i++)
        print = print * 31 + hash_keyed(policy->issuers[i].key, key);
    free(dump);
    return print;
}

enum err policy_provision(struct provision *p, struct automation *a, const json_t *json,
                          struct automation_policy **out)
{
    struct slice path = p->path;
    struct automation_policy *policy = ARENA_NEW(p->arena, struct automation_policy);
    policy->storage = a->storage;
    if (json != NULL)
        TRY(provision_members(p, json, policy_members));
    TRY(read_subjects(p, json, policy));
    const json_t *storage = member(json, "storage");
    policy->own_storage = storage != NULL;
    if (storage != NULL) {
        p->path = arena_printf(p->arena, SLICE_FMT ".storage", SLICE_ARG(path));
        TRY(automation_storage(p, storage, a->data_folder, &policy->storage));
        p->path = path;
    }
    TRY(read_getters(p, json, policy));
    TRY(read_issuers(p, json, policy));
    TRY(provision_bool(p, json, "on_demand", false, &policy->on_demand));
    TRY(provision_bool(p, json, "must_staple", false, &policy->must_staple));
    TRY(provision_bool(p, json, "reuse_private_keys", false, &policy->reuse_private_keys));
    TRY(provision_bool(p, json, "disable_ocsp_stapling", false, &policy->no_stapling));
    TRY(read_ratio(p, json, &policy->renewal_ratio));
    TRY(read_key_type(p, json, &policy->key_type));
    TRY(read_overrides(p, json, policy));
    TRY(check_demand(p, a, policy));
    policy->print = print_of(p, policy, json);
    *out = policy;
    return OK;
}
