/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   "tls_connection_policies": [{"match": {"sni": ["example.com"]}, "protocol_min": "tls1.3",
 *                                "client_authentication": {"mode": "require_and_verify",
 *                                                          "ca": {"provider": "file", …}}}, {}]
 *
 * What the library shall do with it is decided in tls/; here is only what the words mean. Names that
 * Caddy would pass over without effect, such as an unknown curve, are refused.
 */
#include "http/tls_policies.h"

#include <limits.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/pem.h"
#include "base/text.h"
#include "http/tls_modules.h"

enum { POLICIES_MAX = 100000, DER_MAX = 1 << 20 };

static const char *const policy_members[] = {
    "match", "certificate_selection", "cipher_suites", "curves", "alpn", "protocol_min",
    "protocol_max", "drop", "client_authentication", "default_sni", "fallback_sni",
    "insecure_secrets_log", "handshake_context", NULL};

/* TLS 1.3's cannot be chosen, and are taken without effect. */
const char *const tls_suite_names[] = {
    "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    NULL};
enum { SUITES_OF_TLS_1_3 = 3 };

const char *const tls_curve_names[] = {"x25519mlkem768", "x25519", "secp256r1", "secp384r1",
                                       "secp521r1", NULL};

static const char *const modes[] = {"request", "require", "verify_if_given", "require_and_verify",
                                    NULL};

static size_t find_text(const char *const *list, struct slice text)
{
    for (size_t i = 0; list[i] != NULL; i++)
        if (slice_is(text, list[i]))
            return i;
    return SIZE_MAX;
}

static bool has(const struct slice *list, size_t count, struct slice text)
{
    for (size_t i = 0; i < count; i++)
        if (slice_eq(list[i], text))
            return true;
    return false;
}

/* --- matchers --- */

static enum err read_match(struct tls_policy *policy, const json_t *match, struct provision *p)
{
    const char *name;
    json_t *value;
    size_t n = 0;
    if (match == NULL || json_is_null(match))
        return OK;
    if (!json_is_object(match))
        return provision_fail(p, "\"match\" must be an object");
    struct tls_matcher *all = ARENA_ARRAY(p->arena, struct tls_matcher, json_object_size(match) + 1);
    json_object_foreach((json_t *)(uintptr_t)match, name, value)
    {
        const struct module *m;
        void *cfg;
        TRY(provision_module(p, "tls.handshake_match", name, value, &m, &cfg));
        const struct hello_match *face = m->face;
        policy->by_name |= face->names != NULL;
        if (face->names != NULL)
            policy->names = face->names(cfg, &policy->names_count);
        else
            all[n++] = (struct tls_matcher){face->matches, cfg};
    }
    policy->matchers = all;
    policy->matchers_count = n;
    return OK;
}

/* --- which certificate --- */

/* Decimal, without what leads to the same number. */
static enum err read_serials(struct tls_selection *s, struct provision *p)
{
    for (size_t i = 0; i < s->serials_count; i++) {
        struct slice n = s->serials[i];
        if (slice_starts(n, SLICE("+")))
            n = slice_skip(n, 1);
        while (n.len > 1 && n.ptr[0] == '0')
            n = slice_skip(n, 1);
        bool digits = n.len > 0;
        for (size_t j = 0; j < n.len; j++)
            digits = digits && ((n.ptr[j] >= '0' && n.ptr[j] <= '9') || (j == 0 && n.ptr[j] == '-'));
        if (!digits)
            return provision_fail(p, "\"serial_number\": not a valid big integer: " SLICE_FMT,
                                  SLICE_ARG(slice_take(s->serials[i], 100)));
        s->serials[i] = n;
    }
    return OK;
}

static enum err read_selection(struct tls_policy *policy, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"serial_number", "subject_organization",
                                        "public_key_algorithm", "any_tag", "all_tags", NULL};
    static const char *const algorithms[] = {"rsa", "dsa", "ecdsa", "ed25519", NULL};
    struct slice algorithm;
    if (json == NULL || json_is_null(json))
        return OK;
    struct tls_selection *s = ARENA_NEW(p->arena, struct tls_selection);
    TRY(provision_members(p, json, known));
    TRY(provision_texts(p, json, "serial_number", &s->serials, &s->serials_count));
    TRY(provision_texts(p, json, "subject_organization", &s->organizations,
                        &s->organizations_count));
    TRY(provision_texts(p, json, "any_tag", &s->any_tag, &s->any_tag_count));
    TRY(provision_texts(p, json, "all_tags", &s->all_tags, &s->all_tags_count));
    TRY(provision_text(p, json, "public_key_algorithm", SLICE_NONE, &algorithm));
    for (size_t i = 0; algorithm.len > 0; i++) {
        if (algorithms[i] == NULL)
            return provision_fail(p, "unrecognized public key algorithm: " SLICE_FMT
                                  " (expected rsa, dsa or ecdsa)", SLICE_ARG(algorithm));
        if (!slice_eq_nocase(algorithm, slice_from(algorithms[i])))
            continue;
        s->key_algorithm = (int)i + 1; /* Go's numbers */
        break;
    }
    policy->selection = s;
    return read_serials(s, p);
}

/* --- versions, suites, curves, ALPN --- */

static enum err read_version(struct provision *p, const json_t *json, const char *key, uint16_t *out)
{
    struct slice text;
    TRY(provision_text(p, json, key, SLICE_NONE, &text));
    if (slice_is(text, "tls1.2"))
        *out = TLS_1_2;
    else if (slice_is(text, "tls1.3"))
        *out = TLS_1_3;
    else if (text.len > 0)
        return provision_fail(p, "\"%s\": unsupported protocol version: " SLICE_FMT
                              " (tls1.2 and tls1.3 are there)", key, SLICE_ARG(text));
    return OK;
}

static enum err read_versions(struct tls_policy *policy, const json_t *json, struct provision *p)
{
    TRY(read_version(p, json, "protocol_min", &policy->min_version));
    TRY(read_version(p, json, "protocol_max", &policy->max_version));
    if (policy->min_version > 0 && policy->max_version > 0 &&
        policy->min_version > policy->max_version)
        return provision_fail(p, "protocol min (tls1.3) cannot be greater than protocol max (tls1.2)");
    return OK;
}

/* Those of the list, without repetitions. */
static enum err read_names(struct provision *p, const json_t *json, const char *key,
                           const char *what, const char *const *known, struct slice **out,
                           size_t *count)
{
    struct slice *texts;
    size_t n;
    *count = 0;
    TRY(provision_texts(p, json, key, &texts, &n));
    for (size_t i = 0; i < n; i++) {
        if (find_text(known, texts[i]) == SIZE_MAX)
            return provision_fail(p, "unsupported %s: " SLICE_FMT, what, SLICE_ARG(texts[i]));
        if (!has(texts, *count, texts[i]))
            texts[(*count)++] = texts[i];
    }
    *out = texts;
    return OK;
}

static enum err read_suites(struct tls_policy *policy, const json_t *json, struct provision *p)
{
    size_t n = 0;
    TRY(read_names(p, json, "cipher_suites", "cipher suite", tls_suite_names, &policy->ciphers,
                   &policy->ciphers_count));
    for (size_t i = 0; i < policy->ciphers_count; i++)
        if (find_text(tls_suite_names, policy->ciphers[i]) >= SUITES_OF_TLS_1_3)
            policy->ciphers[n++] = policy->ciphers[i];
    if (policy->ciphers_count > 0 && n == 0) /* nothing is left that TLS 1.2 could use */
        policy->min_version = TLS_1_3;
    policy->ciphers_count = n;
    return OK;
}

/* What the server does not speak is not offered. */
static enum err read_alpn(struct tls_policy *policy, const struct tls_server *server,
                          const json_t *json, struct provision *p)
{
    size_t n = 0;
    TRY(provision_texts(p, json, "alpn", &policy->alpn, &policy->alpn_count));
    for (size_t i = 0; i < policy->alpn_count; i++) {
        struct slice name = policy->alpn[i];
        if (name.len == 0 || name.len > 255)
            return provision_fail(p, "\"alpn\": a name has 1 to 255 bytes");
        if ((slice_is(name, "h2") && !server->h2) || (slice_is(name, "http/1.1") && !server->h1))
            continue;
        policy->alpn[n++] = name;
    }
    policy->alpn_count = n;
    return OK;
}

/* --- clients --- */

static enum err add_base64(struct certificate_list *list, const struct slice *texts, size_t count,
                           const char *key, struct provision *p)
{
    struct buffer der;
    enum err e = OK;
    buffer_init(&der, DER_MAX);
    for (size_t i = 0; i < count && e == OK; i++) {
        buffer_clear(&der);
        e = base64_decode(&der, texts[i]);
        if (e == OK && der.len > 0)
            certificate_list_add(list, arena_copy(p->arena, buffer_slice(&der)), p->arena);
        else
            e = provision_fail(p, "\"%s\": parsing certificate at index %zu: not base64", key, i);
    }
    buffer_deinit(&der);
    return e;
}

/* A PEM file of authorities; "trusted_ca_certs_pem_files" is an old name for the module "file". */
static enum err add_files(struct certificate_list *list, const json_t *files, struct provision *p)
{
    json_t *pool = json_pack("{s:s,s:O}", "provider", "file", "pem_files", files);
    enum err e = pool != NULL ? trust_pool_provision(list, pool, p)
                              : provision_fail(p, "\"trusted_ca_certs_pem_files\" must be an array");
    json_decref(pool);
    return e;
}

static enum err read_authorities(struct certificate_list *list, const json_t *json, bool *given,
                                 struct provision *p)
{
    struct slice *inline_certs;
    size_t count;
    const json_t *ca = json_object_get(json, "ca");
    const json_t *files = json_object_get(json, "trusted_ca_certs_pem_files");
    TRY(provision_texts(p, json, "trusted_ca_certs", &inline_certs, &count));
    bool old = count > 0 || json_array_size(files) > 0;
    bool fresh = ca != NULL && !json_is_null(ca);
    *given = old || fresh;
    if (old && fresh)
        return provision_fail(p, "conflicting config for client authentication trust CA");
    if (fresh)
        TRY(trust_pool_provision(list, ca, p));
    if (json_array_size(files) > 0)
        TRY(add_files(list, files, p));
    TRY(add_base64(list, inline_certs, count, "trusted_ca_certs", p));
    if (*given && list->count == 0 && !list->system)
        return provision_fail(p, "client authentication: no certificate of an authority is given");
    return OK;
}

/* Every verifier must know the certificate: what stays is what all of them have. */
static void narrow(struct certificate_list *leafs, const struct certificate_list *more, bool first,
                   struct arena *arena)
{
    size_t n = 0;
    if (first) {
        *leafs = *more;
    } else {
        for (size_t i = 0; i < leafs->count; i++)
            if (has(more->ders, more->count, leafs->ders[i]))
                leafs->ders[n++] = leafs->ders[i];
        leafs->count = n;
    }
    if (leafs->count == 0) /* equal to no certificate: nobody is let in */
        certificate_list_add(leafs, SLICE(""), arena);
}

static enum err read_leafs(struct certificate_list *leafs, const json_t *json, bool *given,
                           struct provision *p)
{
    struct slice *texts;
    size_t count, i;
    json_t *one;
    const json_t *verifiers = json_object_get(json, "verifiers");
    TRY(provision_texts(p, json, "trusted_leaf_certs", &texts, &count));
    bool first = true;
    *given = count > 0;
    if (count > 0) {
        LOG(LOG_WARN, "tls.connection_policy",
            "trusted_leaf_certs is deprecated; use leaf verifier module instead");
        TRY(add_base64(leafs, texts, count, "trusted_leaf_certs", p));
        first = false;
    }
    if (verifiers != NULL && !json_is_null(verifiers) && !json_is_array(verifiers))
        return provision_fail(p, "\"verifiers\" must be an array");
    json_array_foreach(verifiers, i, one)
    {
        struct certificate_list more = {0};
        TRY(certificate_module(&more, one, "tls.client_auth.verifier", "verifier", p));
        narrow(leafs, &more, first, p->arena);
        first = false;
    }
    return OK;
}

static enum err read_client_auth(struct tls_policy *policy, const json_t *json, struct provision *p,
                                 bool *active)
{
    static const char *const known[] = {"ca", "trusted_ca_certs", "trusted_ca_certs_pem_files",
                                        "trusted_leaf_certs", "verifiers", "mode", NULL};
    struct certificate_list authorities = {0}, leafs = {0};
    struct slice mode;
    bool has_authorities, has_leafs;
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, known));
    TRY(provision_text(p, json, "mode", SLICE_NONE, &mode));
    TRY(read_authorities(&authorities, json, &has_authorities, p));
    TRY(read_leafs(&leafs, json, &has_leafs, p));
    size_t chosen = find_text(modes, mode);
    if (mode.len > 0 && chosen == SIZE_MAX)
        return provision_fail(p, "client auth mode not recognized: " SLICE_FMT, SLICE_ARG(mode));
    policy->client_cas = authorities.ders;
    policy->client_cas_count = authorities.count;
    policy->client_leafs = leafs.ders;
    policy->client_leafs_count = leafs.count;
    if (mode.len > 0)
        policy->client_auth = (enum tls_client_auth)(TLS_CLIENT_REQUEST + (int)chosen);
    else if (has_authorities || has_leafs)
        policy->client_auth = TLS_CLIENT_REQUIRE_AND_VERIFY;
    else if (leafs.count > 0)
        policy->client_auth = TLS_CLIENT_REQUIRE;
    *active |= policy->client_auth != TLS_CLIENT_NONE;
    return OK;
}

/* --- the rest --- */

static enum err read_secrets_log(struct tls_policy *policy, const json_t *json, struct provision *p)
{
    struct slice path;
    TRY(provision_text(p, json, "insecure_secrets_log", SLICE_NONE, &path));
    if (path.len == 0)
        return OK;
    path = template_expand_now(path, p->arena);
    if (path.len == 0)
        return provision_fail(p, "\"insecure_secrets_log\" names no file");
    if (path.ptr[0] != '/') {
        char *here = realpath(".", NULL);
        path = arena_printf(p->arena, "%s/" SLICE_FMT, here != NULL ? here : "", SLICE_ARG(path));
        free(here);
    }
    LOG(LOG_WARN, "tls", "TLS SECURITY COMPROMISED: secrets logging is enabled!",
        LOG_STR("log_filename", path));
    policy->secrets_log = arena_copy(p->arena, path);
    return OK;
}

static enum err read_policy(struct tls_policy *policy, const struct tls_server *server,
                            const json_t *json, struct provision *p, bool *client_auth)
{
    const json_t *context = json_object_get(json, "handshake_context");
    TRY(provision_members(p, json, policy_members));
    if (context != NULL && !json_is_null(context))
        return provision_fail(p, "\"handshake_context\": there are no modules of tls.context");
    TRY(read_match(policy, json_object_get(json, "match"), p));
    TRY(read_selection(policy, json_object_get(json, "certificate_selection"), p));
    TRY(read_versions(policy, json, p));
    TRY(read_suites(policy, json, p));
    TRY(read_names(p, json, "curves", "curve", tls_curve_names, &policy->curves,
                   &policy->curves_count));
    TRY(read_alpn(policy, server, json, p));
    TRY(provision_bool(p, json, "drop", false, &policy->drop));
    TRY(provision_text(p, json, "default_sni", SLICE_NONE, &policy->default_sni));
    TRY(provision_text(p, json, "fallback_sni", SLICE_NONE, &policy->fallback_sni));
    TRY(read_secrets_log(policy, json, p));
    return read_client_auth(policy, json_object_get(json, "client_authentication"), p, client_auth);
}

enum err tls_policies_provision(struct tls_server *server, const json_t *policies,
                                struct provision *p, bool *client_auth)
{
    size_t i;
    json_t *one;
    struct slice outer = p->path;
    *client_auth = false;
    if (!json_is_array(policies))
        return provision_fail(p, "\"tls_connection_policies\" must be an array");
    if (json_array_size(policies) > POLICIES_MAX)
        return provision_fail(p, "more than %d connection policies", POLICIES_MAX);
    server->policies = ARENA_ARRAY(p->arena, struct tls_policy, json_array_size(policies) + 1);
    json_array_foreach((json_t *)(uintptr_t)policies, i, one)
    {
        p->path = arena_printf(p->arena, SLICE_FMT ".tls_connection_policies[%zu]",
                               SLICE_ARG(outer), i);
        TRY(read_policy(&server->policies[i], server, one, p, client_auth));
    }
    server->count = i;
    p->path = outer;
    return OK;
}

/* --- lists of certificates --- */

void certificate_list_add(struct certificate_list *list, struct slice der, struct arena *arena)
{
    if (list->count == list->cap) {
        size_t cap = list->cap > 0 ? list->cap * 2 : 8;
        struct slice *more = ARENA_ARRAY(arena, struct slice, cap);
        if (list->count > 0)
            memcpy(more, list->ders, list->count * sizeof *more);
        list->ders = more;
        list->cap = cap;
    }
    list->ders[list->count++] = der;
}

enum err certificate_list_add_pem(struct certificate_list *list, struct slice pem, bool only,
                                  const char *where, struct provision *p)
{
    struct pem_block b;
    struct slice der;
    while (pem_next(&pem, &b)) {
        if (!slice_is(b.type, "CERTIFICATE") && !only)
            continue;
        if (!slice_is(b.type, "CERTIFICATE"))
            return provision_fail(p, "no CERTIFICATE pem block found in %s", where);
        if (pem_decode(&b, p->arena, &der) != OK)
            return provision_fail(p, "parsing certificate in %s: not base64", where);
        certificate_list_add(list, der, p->arena);
    }
    return OK;
}

enum err certificate_module(struct certificate_list *list, const json_t *json, const char *space,
                            const char *key, struct provision *p)
{
    const struct module *m;
    void *cfg;
    const char *name = json_string_value(json_object_get(json, key));
    if (name == NULL)
        return provision_fail(p, "\"%s\" must name a module of %s", key, space);
    TRY(provision_module(p, space, name, json, &m, &cfg));
    const struct certificate_list *more = cfg;
    for (size_t i = 0; i < more->count; i++)
        certificate_list_add(list, more->ders[i], p->arena);
    list->system |= more->system;
    return OK;
}

enum err trust_pool_provision(struct certificate_list *list, const json_t *json,
                              struct provision *p)
{
    return certificate_module(list, json, "tls.ca_pool.source", "provider", p);
}
