/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An ACME issuer is made of three layers: its own options, those of a `cert_issuer` of the global
 * options, and single global options (`email`, `acme_ca` …), which fill what is still open.
 */
#include "adapter/issuer.h"

#include "adapter/dns_providers.h"
#include "base/text.h"

json_t *issuer_new(struct adapt *a, const char *module)
{
    json_t *o = j_object(a);
    j_put_text(a, o, "module", slice_from(module));
    return o;
}

bool issuer_is_acme(const json_t *issuer)
{
    const char *module = json_string_value(json_object_get(issuer, "module"));
    return module != NULL && strcmp(module, "acme") == 0;
}

/* --- options that several share --- */

static enum err duration_arg(struct dispenser *d, struct slice name, int64_t *ns)
{
    struct slice text;
    if (!dispenser_all_args(d, &text))
        return dispenser_arg_err(d);
    if (slice_is(text, "-1") && slice_is(name, "propagation_timeout")) {
        *ns = -1;
        return OK;
    }
    if (duration_parse(text, ns) == OK)
        return OK;
    return dispenser_err_f(d,
                           "invalid " SLICE_FMT " duration " SLICE_FMT ": time: invalid duration \""
                           SLICE_FMT "\"", SLICE_ARG(name), SLICE_ARG(text), SLICE_ARG(text));
}

enum err dns_option_read(struct adapt *a, struct dispenser *d, json_t *owner, const char *path,
                         bool *known)
{
    static const char *const durations[][2] = {{"propagation_delay", "propagation_delay"},
                                               {"propagation_timeout", "propagation_timeout"},
                                               {"dns_ttl", "ttl"}};
    struct slice name = dispenser_val(d), *args;
    int64_t ns;
    *known = true;
    if (slice_is(name, "resolvers")) {
        size_t count = dispenser_remaining_args(d, &args);
        json_t *dns = j_at(a, owner, path);
        if (count == 0)
            return dispenser_arg_err(d);
        j_put_strings(a, dns, "resolvers", args, count);
        return OK;
    }
    for (int i = 0; i < 3; i++)
        if (slice_is(name, durations[i][0])) {
            TRY(duration_arg(d, name, &ns));
            j_put_int(a, j_at(a, owner, path), durations[i][1], ns);
            return OK;
        }
    *known = false;
    return OK;
}

static enum err chain_names(struct adapt *a, struct dispenser *d, json_t *o, bool root)
{
    const char *key = root ? "root_common_name" : "any_common_name";
    TRY(more_words(a, d, o, key));
    if (json_object_get(o, root ? "any_common_name" : "root_common_name") != NULL)
        return dispenser_err_f(d, "Can't set %s when %s is already set", key,
                               root ? "any_common_name" : "root_common_name");
    return OK;
}

enum err preferred_chains_read(struct adapt *a, struct dispenser *d, json_t **chains)
{
    json_t *o = *chains = j_object(a);
    int nesting;
    if (dispenser_next_arg(d)) {
        if (!dispenser_val_is(d, "smallest"))
            return dispenser_err_f(d, "Invalid argument '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        j_put_bool(a, o, "smallest", true);
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
        nesting = dispenser_nesting(d);
        if (dispenser_next_block(d, nesting))
            return dispenser_err_f(
                d, "No more options are accepted when using the 'smallest' option");
    }
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        bool root = dispenser_val_is(d, "root_common_name");
        if (!root && !dispenser_val_is(d, "any_common_name"))
            return dispenser_err_f(d, "Received unrecognized parameter '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        TRY(chain_names(a, d, o, root));
    }
    return json_object_size(o) > 0
               ? OK : dispenser_err_f(d, "No options for preferred_chains received");
}

/* --- issuers --- */

static enum err challenge_option(struct adapt *a, struct dispenser *d, json_t *o, bool *known)
{
    *known = true;
    bool http = dispenser_val_is(d, "disable_http_challenge");
    if (http || dispenser_val_is(d, "disable_tlsalpn_challenge")) {
        j_put_bool(a, j_at(a, o, http ? "challenges.http" : "challenges.tls-alpn"), "disabled",
                   true);
        return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
    }
    bool port = dispenser_val_is(d, "alt_http_port");
    if (port || dispenser_val_is(d, "alt_tlsalpn_port")) {
        int64_t n;
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        if (!slice_to_i64(dispenser_val(d), &n))
            return dispenser_err_f(d,
                                   "invalid port " SLICE_FMT ": strconv.Atoi: parsing \"" SLICE_FMT
                                   "\": invalid syntax", SLICE_ARG(dispenser_val(d)),
                                   SLICE_ARG(dispenser_val(d)));
        j_put_int(a, j_at(a, o, port ? "challenges.http" : "challenges.tls-alpn"),
                  "alternate_port", n);
        return OK;
    }
    if (dispenser_val_is(d, "distributed")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        if (!dispenser_val_is(d, "false"))
            return dispenser_err_f(d, "only accepted value is 'false'");
        j_set(a, j_at(a, o, "challenges"), "distributed", json_false());
        return OK;
    }
    if (dispenser_val_is(d, "dns")) {
        json_t *provider, *dns = j_at(a, o, "challenges.dns");
        if (!dispenser_next_arg(d))
            return OK;
        TRY(dns_provider_read(a, d, &provider));
        j_set(a, dns, "provider", provider);
        return OK;
    }
    if (dispenser_val_is(d, "dns_challenge_override_domain")) {
        struct slice domain;
        if (!dispenser_all_args(d, &domain))
            return dispenser_arg_err(d);
        j_put_text(a, j_at(a, o, "challenges.dns"), "override_domain", domain);
        return OK;
    }
    return dns_option_read(a, d, o, "challenges.dns", known);
}

static enum err acme_text(struct adapt *a, struct dispenser *d, json_t *o, bool *known)
{
    static const char *const texts[][2] = {
        {"dir", "ca"}, {"test_dir", "test_ca"}, {"email", "email"}, {"profile", "profile"}};
    struct slice value;
    for (int i = 0; i < 4; i++) {
        if (!dispenser_val_is(d, texts[i][0]))
            continue;
        *known = true;
        if (i == 0 && json_object_get(o, "ca") != NULL)
            return dispenser_err_f(d, "directory is already specified: %s",
                                   json_string_value(json_object_get(o, "ca")));
        if (!dispenser_all_args(d, &value))
            return dispenser_arg_err(d);
        j_put_text(a, o, texts[i][1], value);
        return OK;
    }
    *known = false;
    return OK;
}

static enum err acme_period(struct adapt *a, struct dispenser *d, json_t *o)
{
    bool life = dispenser_val_is(d, "lifetime");
    struct slice text;
    int64_t ns;
    if (!dispenser_all_args(d, &text))
        return dispenser_arg_err(d);
    if (duration_parse(text, &ns) != OK)
        return dispenser_err_f(d,
                               "invalid %s " SLICE_FMT ": time: invalid duration \"" SLICE_FMT "\"",
                               life ? "lifetime" : "timeout duration", SLICE_ARG(text),
                               SLICE_ARG(text));
    if (life && ns < 0)
        return dispenser_err_f(d, "lifetime must be >= 0: " SLICE_FMT, SLICE_ARG(text));
    j_put_int(a, o, life ? "certificate_lifetime" : "acme_timeout", ns);
    return OK;
}

static enum err acme_option(struct adapt *a, struct dispenser *d, json_t *o)
{
    bool known;
    TRY(acme_text(a, d, o, &known));
    if (!known)
        TRY(challenge_option(a, d, o, &known));
    if (known)
        return OK;
    if (dispenser_val_is(d, "lifetime") || dispenser_val_is(d, "timeout"))
        return acme_period(a, d, o);
    if (dispenser_val_is(d, "eab")) {
        struct slice id, key;
        if (!dispenser_all_args(d, &id, &key))
            return dispenser_arg_err(d);
        json_t *eab = j_at(a, o, "external_account");
        j_put_text(a, eab, "key_id", id);
        j_put_text(a, eab, "mac_key", key);
        return OK;
    }
    if (dispenser_val_is(d, "trusted_roots")) {
        struct slice *args;
        size_t count = dispenser_remaining_args(d, &args);
        j_put_strings(a, o, "trusted_roots_pem_files", args, count);
        return OK;
    }
    if (dispenser_val_is(d, "preferred_chains")) {
        json_t *chains;
        TRY(preferred_chains_read(a, d, &chains));
        j_set(a, o, "preferred_chains", chains);
        return OK;
    }
    return dispenser_err_f(d, "unrecognized ACME issuer property: " SLICE_FMT,
                           SLICE_ARG(dispenser_val(d)));
}

static enum err read_acme(struct adapt *a, struct dispenser *d, json_t *o)
{
    dispenser_next(d);
    if (dispenser_next_arg(d)) {
        j_put_text(a, o, "ca", dispenser_val(d));
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
    }
    while (dispenser_next_block(d, 0))
        TRY(acme_option(a, d, o));
    return OK;
}

static enum err read_internal(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice ca;
    int64_t ns;
    dispenser_next(d);
    while (dispenser_next_block(d, 0)) {
        if (dispenser_val_is(d, "ca")) {
            if (!dispenser_all_args(d, &ca))
                return dispenser_arg_err(d);
            j_put_text(a, o, "ca", ca);
        } else if (dispenser_val_is(d, "lifetime")) {
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            TRY(bare_duration(a, d, &ns));
            j_put_int(a, o, "lifetime", ns);
        } else if (dispenser_val_is(d, "sign_with_root")) {
            if (dispenser_next_arg(d))
                return dispenser_arg_err(d);
            j_put_bool(a, o, "sign_with_root", true);
        } else {
            return dispenser_err_f(d, "unrecognized subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        }
    }
    return OK;
}

static enum err zerossl_option(struct adapt *a, struct dispenser *d, json_t *o)
{
    bool known, days = dispenser_val_is(d, "validity_days");
    int64_t n;
    TRY(dns_option_read(a, d, o, "cname_validation", &known));
    if (known)
        return OK;
    if (days || dispenser_val_is(d, "alt_http_port")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        TRY(read_int(d, dispenser_val(d), days ? "invalid number of days" : "invalid port", &n));
        j_put_int(a, o, days ? "validity_days" : "alternate_http_port", n);
        return OK;
    }
    if (!dispenser_val_is(d, "dns"))
        return dispenser_err_f(d, "unrecognized zerossl issuer property: " SLICE_FMT,
                               SLICE_ARG(dispenser_val(d)));
    json_t *provider;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    TRY(dns_provider_read(a, d, &provider));
    j_set(a, j_at(a, o, "cname_validation"), "provider", provider);
    return OK;
}

static enum err read_zerossl(struct adapt *a, struct dispenser *d, json_t *o)
{
    int nesting;
    dispenser_next(d);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    j_put_text(a, o, "api_key", dispenser_val(d));
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting))
        TRY(zerossl_option(a, d, o));
    return OK;
}

enum err issuer_read(struct adapt *a, struct dispenser *outer, json_t **issuer)
{
    struct slice name = dispenser_val(outer);
    bool acme = slice_is(name, "acme"), internal = slice_is(name, "internal");
    if (!acme && !internal && !slice_is(name, "zerossl"))
        return no_module(outer, "tls.issuance", name);
    struct dispenser d = dispenser_new_from_next_segment(outer);
    *issuer = issuer_new(a, acme ? "acme" : internal ? "internal" : "zerossl");
    return acme       ? read_acme(a, &d, *issuer)
           : internal ? read_internal(a, &d, *issuer)
                      : read_zerossl(a, &d, *issuer);
}

/* --- layers --- */

void add_once(struct adapt *a, json_t *object, const char *key, json_t *text)
{
    const json_t *list = json_object_get(object, key);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(json_array_get(list, i), text))
            return;
    j_add_to_list(a, object, slice_from(key), text);
}

json_t *issuers_default(struct adapt *a, struct slice email)
{
    json_t *list = j_array(a), *second;
    j_append(list, issuer_new(a, "acme"));
    if (slice_trim(email).len == 0)
        return list;
    second = issuer_new(a, "acme");
    j_put_text(a, second, "ca", SLICE("https://acme.zerossl.com/v2/DV90"));
    j_put_text(a, second, "email", email);
    j_append(list, second);
    return list;
}

/* What stands in `over` wins, down to single values of the challenges. */
static json_t *merge(struct adapt *a, const json_t *base, json_t *over, unsigned depth)
{
    json_t *out = keep(a, json_deep_copy(base)), *value;
    const char *key;
    json_object_foreach(over, key, value) {
        json_t *old = json_object_get(out, key);
        bool inner = (depth == 0 && strcmp(key, "challenges") == 0) ||
                     (depth == 1 && json_is_object(value));
        if (depth == 0 && strcmp(key, "trusted_roots_pem_files") == 0)
            for (size_t i = 0; i < json_array_size(value); i++)
                add_once(a, out, key, json_array_get(value, i));
        else
            j_set(a, out, key, inner && old != NULL ? merge(a, old, value, depth + 1)
                                                    : keep(a, json_deep_copy(value)));
    }
    return out;
}

json_t *issuers_implied(struct adapt *a, json_t *own)
{
    const json_t *global = a->tls.issuers;
    json_t *list = j_array(a);
    for (size_t i = 0; i < json_array_size(global); i++)
        if (issuer_is_acme(json_array_get(global, i)))
            j_append(list, merge(a, json_array_get(global, i), own, 0));
    if (json_array_size(list) > 0)
        return list;
    const json_t *email = json_object_get(own, "email");
    struct slice address = slice_of(json_string_value(email), json_string_length(email));
    bool one = json_object_get(own, "ca") != NULL;
    json_t *defaults = issuers_default(a, one ? SLICE_NONE : address);
    for (size_t i = 0; i < json_array_size(defaults); i++)
        j_append(list, merge(a, json_array_get(defaults, i), own, 0));
    return list;
}

static void fill_text(struct adapt *a, json_t *issuer, const char *key, struct slice value)
{
    if (json_object_get(issuer, key) == NULL)
        j_put_text(a, issuer, key, value);
}

static json_t *challenge(const json_t *issuer, const char *kind)
{
    return json_object_get(json_object_get(issuer, "challenges"), kind);
}

static enum err fill_dns(struct adapt *a, json_t *issuer)
{
    const struct tls_options *t = &a->tls;
    if (!t->has_acme_dns || json_object_get(challenge(issuer, "dns"), "provider") != NULL)
        return OK;
    if (t->dns == NULL && t->acme_dns == NULL)
        return diag_fail(a->diag, "acme_dns specified without DNS provider config, but no provider "
                                  "specified with 'dns' global option");
    json_t *dns = j_at(a, issuer, "challenges.dns");
    if (t->acme_dns != NULL)
        j_set(a, dns, "provider", t->acme_dns);
    return OK;
}

static void fill_ports(struct adapt *a, json_t *issuer)
{
    const struct options *o = &a->options;
    if (challenge(issuer, "dns") != NULL)
        return;
    if (o->has_http_port &&
        json_object_get(challenge(issuer, "http"), "alternate_port") == NULL)
        j_put_int(a, j_at(a, issuer, "challenges.http"), "alternate_port", o->http_port);
    if (o->has_https_port &&
        json_object_get(challenge(issuer, "tls-alpn"), "alternate_port") == NULL)
        j_put_int(a, j_at(a, issuer, "challenges.tls-alpn"), "alternate_port", o->https_port);
}

static void fill_bind(struct adapt *a, json_t *issuer)
{
    const struct options *o = &a->options;
    const json_t *challenges = json_object_get(issuer, "challenges");
    if (challenges != NULL && (json_object_get(challenges, "dns") != NULL ||
                               json_object_get(challenges, "bind_host") != NULL))
        return;
    if (o->default_bind_count > 0 && o->default_bind[0]->address_count > 0)
        j_put_text(a, j_at(a, issuer, "challenges"), "bind_host", o->default_bind[0]->addresses[0]);
}

enum err issuer_defaults(struct adapt *a, json_t *issuer)
{
    const struct tls_options *t = &a->tls;
    if (!issuer_is_acme(issuer))
        return OK;
    fill_text(a, issuer, "email", t->email);
    fill_text(a, issuer, "ca", t->acme_ca);
    if (t->acme_ca_root.len > 0)
        add_once(a, issuer, "trusted_roots_pem_files", j_text(a, t->acme_ca_root));
    TRY(fill_dns(a, issuer));
    if (t->acme_eab != NULL && json_object_get(issuer, "external_account") == NULL)
        j_set(a, issuer, "external_account", t->acme_eab);
    if (t->preferred_chains != NULL && json_object_get(issuer, "preferred_chains") == NULL)
        j_set(a, issuer, "preferred_chains", t->preferred_chains);
    fill_ports(a, issuer);
    fill_bind(a, issuer);
    if (json_object_get(issuer, "certificate_lifetime") == NULL)
        j_put_int(a, issuer, "certificate_lifetime", t->cert_lifetime);
    json_t *dns = challenge(issuer, "dns");
    if (t->resolver_count > 0 && dns != NULL && json_object_get(dns, "resolvers") == NULL &&
        (t->has_acme_dns || json_object_get(dns, "provider") != NULL))
        j_put_strings(a, dns, "resolvers", t->resolvers, t->resolver_count);
    return OK;
}
