/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Global options about certificates and the local authority.
 */
#include "adapter/tls_app.h"

#include "adapter/directives.h"
#include "adapter/dns_providers.h"
#include "adapter/issuer.h"
#include "base/text.h"

static enum err read_email(struct adapt *a, struct dispenser *d)
{
    return option_word(d, &a->tls.email);
}

static enum err read_acme_ca(struct adapt *a, struct dispenser *d)
{
    return option_word(d, &a->tls.acme_ca);
}

static enum err read_acme_ca_root(struct adapt *a, struct dispenser *d)
{
    return option_word(d, &a->tls.acme_ca_root);
}

static enum err read_key_type(struct adapt *a, struct dispenser *d)
{
    a->tls.has_key_type = true;
    return option_word(d, &a->tls.key_type);
}

static enum err read_local_certs(struct adapt *a, struct dispenser *d)
{
    (void)d;
    a->tls.local_certs = true;
    return OK;
}

static enum err read_skip_install_trust(struct adapt *a, struct dispenser *d)
{
    (void)d;
    a->tls.skip_install_trust = true;
    return OK;
}

/* With no provider, `acme_dns` means the one of `dns`. */
static enum err read_provider(struct adapt *a, struct dispenser *d, bool acme, json_t **provider)
{
    dispenser_next(d);
    if (!dispenser_next(d))
        return acme ? OK : dispenser_arg_err(d);
    return dns_provider_read(a, d, provider);
}

static enum err read_dns(struct adapt *a, struct dispenser *d)
{
    return read_provider(a, d, false, &a->tls.dns);
}

static enum err read_acme_dns(struct adapt *a, struct dispenser *d)
{
    a->tls.has_acme_dns = true;
    a->tls.acme_dns = NULL;
    return read_provider(a, d, true, &a->tls.acme_dns);
}

static enum err read_acme_eab(struct adapt *a, struct dispenser *d)
{
    static const char *const keys[] = {"key_id", "mac_key", NULL};
    json_t *o = j_object(a);
    dispenser_next(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0)) {
        struct slice name = dispenser_val(d);
        if (!slice_is(name, "key_id") && !slice_is(name, "mac_key"))
            return dispenser_err_f(d, "unrecognized parameter '" SLICE_FMT "'", SLICE_ARG(name));
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_set_key(a, o, name, j_text(a, dispenser_val(d)));
    }
    a->tls.acme_eab = j_ordered(a, o, keys);
    return OK;
}

static enum err read_cert_issuer(struct adapt *a, struct dispenser *d)
{
    json_t *issuer;
    dispenser_next(d);
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    TRY(issuer_read(a, d, &issuer));
    if (a->tls.issuers == NULL)
        a->tls.issuers = j_array(a);
    j_append(a->tls.issuers, issuer);
    return OK;
}

static enum err read_cert_lifetime(struct adapt *a, struct dispenser *d)
{
    return option_duration(a, d, &a->tls.cert_lifetime);
}

static enum err read_renew_interval(struct adapt *a, struct dispenser *d)
{
    return option_duration(a, d, &a->tls.renew_interval);
}

static enum err read_ocsp_interval(struct adapt *a, struct dispenser *d)
{
    return option_duration(a, d, &a->tls.ocsp_interval);
}

static enum err read_preferred_chains(struct adapt *a, struct dispenser *d)
{
    dispenser_next(d);
    return preferred_chains_read(a, d, &a->tls.preferred_chains);
}

static enum err read_resolvers(struct adapt *a, struct dispenser *d)
{
    dispenser_next(d);
    a->tls.resolver_count = dispenser_remaining_args(d, &a->tls.resolvers);
    return a->tls.resolver_count == 0 ? dispenser_arg_err(d) : OK;
}

static enum err read_ocsp_stapling(struct adapt *a, struct dispenser *d)
{
    struct slice word;
    dispenser_next(d);
    if (!dispenser_all_args(d, &word))
        return dispenser_arg_err(d);
    if (!slice_is(word, "off"))
        return dispenser_err_f(d, "invalid argument '" SLICE_FMT "'", SLICE_ARG(word));
    a->tls.stapling_off = true;
    return OK;
}

static enum err read_storage_check(struct adapt *a, struct dispenser *d)
{
    struct slice word;
    TRY(option_word(d, &word));
    if (!slice_is(word, "off"))
        return dispenser_err_f(d, "storage_check must be 'off'");
    a->tls.storage_check_off = true;
    return OK;
}

static enum err read_storage_clean(struct adapt *a, struct dispenser *d)
{
    struct slice word;
    TRY(option_word(d, &word));
    a->tls.storage_clean_off = slice_is(word, "off");
    a->tls.storage_clean_interval = 0;
    if (a->tls.storage_clean_off)
        return OK;
    if (duration_parse(word, &a->tls.storage_clean_interval) == OK)
        return OK;
    return dispenser_err_f(d,
                           "failed to parse storage_clean_interval, must be a duration or 'off' "
                           "time: invalid duration \"" SLICE_FMT "\"", SLICE_ARG(word));
}

static enum err read_ratio(struct adapt *a, struct dispenser *d)
{
    dispenser_next(d);
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    TRY(ratio_read(d, dispenser_val(d), &a->tls.renewal_window_ratio));
    return dispenser_next(d) ? dispenser_arg_err(d) : OK;
}

/* --- on demand --- */

static enum err read_permission(struct adapt *a, struct dispenser *d, bool ask, json_t *on_demand)
{
    json_t *o = j_object(a);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (json_object_get(on_demand, "permission") != NULL)
        return dispenser_err_f(
            d, "on-demand TLS permission module (or 'ask') already specified");
    if (ask) {
        j_set(a, o, "endpoint", j_text(a, dispenser_val(d)));
    } else {
        struct slice endpoint;
        if (!dispenser_val_is(d, "http"))
            return no_module(d, "tls.permission", dispenser_val(d));
        struct dispenser inner = dispenser_new_from_next_segment(d);
        dispenser_next(&inner);
        if (!dispenser_all_args(&inner, &endpoint))
            return dispenser_arg_err(&inner);
        j_set(a, o, "endpoint", j_text(a, endpoint));
    }
    j_set(a, on_demand, "permission", j_module(a, "module", "http", o));
    return OK;
}

static enum err read_on_demand(struct adapt *a, struct dispenser *d)
{
    json_t *o = j_object(a);
    int nesting;
    dispenser_next(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        struct slice name = dispenser_val(d);
        if (slice_is(name, "interval") || slice_is(name, "burst"))
            return dispenser_err_f(d,
                                   "the on_demand_tls '" SLICE_FMT "' option is no longer "
                                   "supported, remove it from your config", SLICE_ARG(name));
        if (!slice_is(name, "ask") && !slice_is(name, "permission"))
            return dispenser_err_f(d, "unrecognized parameter '" SLICE_FMT "'", SLICE_ARG(name));
        TRY(read_permission(a, d, slice_is(name, "ask"), o));
    }
    if (json_object_size(o) == 0)
        return dispenser_err_f(d, "expected at least one config parameter for on_demand_tls");
    a->tls.on_demand = o;
    return OK;
}

/* --- encrypted client hello --- */

static enum err read_ech(struct adapt *a, struct dispenser *d)
{
    struct slice *names;
    int nesting;
    json_t *o = j_object(a), *provider;
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &names);
    if (count == 0)
        return dispenser_arg_err(d);
    for (size_t i = 0; i < count; i++) {
        json_t *config = j_object(a);
        j_set(a, config, "public_name", j_text(a, names[i]));
        j_add_to_list(a, o, SLICE("configs"), config);
    }
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        if (!dispenser_val_is(d, "dns"))
            return dispenser_err_f(d, "ech: unrecognized subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        if (!dispenser_next(d))
            return dispenser_arg_err(d);
        TRY(dns_provider_read(a, d, &provider));
        json_t *publication = j_object(a);
        j_put_strings(a, publication, "configs", names, count);
        j_set(a, j_at(a, publication, "publishers.dns"), "provider", provider);
        j_add_to_list(a, o, SLICE("publication"), publication);
    }
    a->tls.ech = o;
    return OK;
}

/* --- pki --- */

static enum err key_pair(struct adapt *a, struct dispenser *d, json_t *ca, const char *kind)
{
    static const char *const names[][2] = {
        {"cert", "certificate"}, {"key", "private_key"}, {"format", "format"}};
    static const char *const keys[] = {"certificate", "private_key", "format", NULL};
    json_t *pair = j_at(a, ca, kind);
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        int i = 0;
        while (i < 3 && !dispenser_val_is(d, names[i][0]))
            i++;
        if (i == 3)
            return dispenser_err_f(d, "unrecognized pki ca %s option '" SLICE_FMT "'", kind,
                                   SLICE_ARG(dispenser_val(d)));
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_put_text(a, pair, names[i][1], dispenser_val(d));
    }
    j_set(a, ca, kind, j_ordered(a, pair, keys));
    return OK;
}

static enum err ca_ratio(struct adapt *a, struct dispenser *d, json_t *ca)
{
    double ratio = 0;
    bool good = ratio_read(d, dispenser_val(d), &ratio) == OK || ratio == 1;
    if (!good)
        return dispenser_err_f(d, "renewal_window_ratio must be a number in (0, 1], got " SLICE_FMT,
                               SLICE_ARG(dispenser_val(d)));
    j_set(a, ca, "renewal_window_ratio", keep(a, json_real(ratio)));
    return OK;
}

static enum err ca_option(struct adapt *a, struct dispenser *d, json_t *ca)
{
    static const char *const texts[][2] = {
        {"name", "name"}, {"root_cn", "root_common_name"},
        {"intermediate_cn", "intermediate_common_name"}};
    struct slice name = dispenser_val(d);
    int64_t ns;
    if (slice_is(name, "root") || slice_is(name, "intermediate"))
        return key_pair(a, d, ca, slice_is(name, "root") ? "root" : "intermediate");
    bool period = slice_is(name, "intermediate_lifetime") ||
                  slice_is(name, "maintenance_interval");
    int i = 0;
    while (i < 3 && !slice_is(name, texts[i][0]))
        i++;
    if (i == 3 && !period && !slice_is(name, "renewal_window_ratio"))
        return dispenser_err_f(d, "unrecognized pki ca option '" SLICE_FMT "'", SLICE_ARG(name));
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (i < 3) {
        j_put_text(a, ca, texts[i][1], dispenser_val(d));
        return OK;
    }
    if (!period)
        return ca_ratio(a, d, ca);
    TRY(bare_duration(a, d, &ns));
    j_put_int(a, ca, arena_str(a->arena, name), ns);
    return OK;
}

static enum err read_pki(struct adapt *a, struct dispenser *d)
{
    json_t *all = j_object(a);
    int nesting;
    dispenser_next(d);
    while (dispenser_next_block(d, 0)) {
        struct slice id = SLICE("local");
        json_t *ca = j_object(a);
        if (!dispenser_val_is(d, "ca"))
            return dispenser_err_f(d, "unrecognized pki option '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        if (dispenser_next_arg(d)) {
            id = dispenser_val(d).len > 0 ? dispenser_val(d) : id;
            if (dispenser_next_arg(d))
                return dispenser_arg_err(d);
        }
        nesting = dispenser_nesting(d);
        while (dispenser_next_block(d, nesting))
            TRY(ca_option(a, d, ca));
        j_set_key(a, all, id, ca);
    }
    a->tls.authorities = all;
    return OK;
}

static const struct {
    const char *name;
    enum err (*read)(struct adapt *, struct dispenser *);
} table[] = {
    {"acme_ca", read_acme_ca},
    {"acme_ca_root", read_acme_ca_root},
    {"acme_dns", read_acme_dns},
    {"acme_eab", read_acme_eab},
    {"cert_issuer", read_cert_issuer},
    {"cert_lifetime", read_cert_lifetime},
    {"dns", read_dns},
    {"ech", read_ech},
    {"email", read_email},
    {"key_type", read_key_type},
    {"local_certs", read_local_certs},
    {"ocsp_interval", read_ocsp_interval},
    {"ocsp_stapling", read_ocsp_stapling},
    {"on_demand_tls", read_on_demand},
    {"pki", read_pki},
    {"preferred_chains", read_preferred_chains},
    {"renew_interval", read_renew_interval},
    {"renewal_window_ratio", read_ratio},
    {"skip_install_trust", read_skip_install_trust},
    {"storage_check", read_storage_check},
    {"storage_clean_interval", read_storage_clean},
    {"tls_resolvers", read_resolvers},
};

enum err tls_option_read(struct adapt *a, struct slice name, struct dispenser *d, bool *known)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (slice_is(name, table[i].name)) {
            *known = true;
            return table[i].read(a, d);
        }
    *known = false;
    return OK;
}

const char *tls_option_name(size_t i)
{
    return i < sizeof table / sizeof *table ? table[i].name : NULL;
}
