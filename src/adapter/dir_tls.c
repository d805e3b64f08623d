/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `tls` directive: how a site's connections are secured (a connection policy), and where its
 * certificates come from.
 */
#include "adapter/directives.h"

#include <stdlib.h>

#include "adapter/client_auth.h"
#include "adapter/dns_providers.h"
#include "adapter/issuer.h"
#include "base/text.h"
#include "http/tls_policies.h"

struct tls {
    struct helper *h;
    struct tls_value *v;
    json_t *acme;      /* implicit issuer; NULL: nothing was said of it */
    json_t *explicit_; /* those of "issuer" */
    json_t *files, *folders;
    struct slice set[8]; /* options of the DNS challenge */
    size_t set_count;
    bool internal, has_block;
};

static json_t *acme_of(struct tls *t)
{
    if (t->acme == NULL)
        t->acme = issuer_new(t->h->a, "acme");
    return t->acme;
}

/* --- the first line --- */

/* A certificate's file has one tag, however many sites name it. */
static void certificate_pair(struct tls *t, struct slice certificate, struct slice key)
{
    struct adapt *a = t->h->a;
    struct cert_tag *tag = map_get(&a->cert_tags, certificate);
    if (tag == NULL) {
        tag = ARENA_NEW(a->arena, struct cert_tag);
        *tag = (struct cert_tag){certificate, (unsigned)a->cert_tags.count};
        map_put(&a->cert_tags, tag->certificate, tag);
        json_t *pair = j_object(a), *tags = j_array(a);
        j_append_text(a, tags, arena_printf(a->arena, "cert%u", tag->number));
        j_put_text(a, pair, "certificate", certificate);
        j_put_text(a, pair, "key", key);
        j_set(a, pair, "tags", tags);
        j_append(t->files, pair);
    }
    j_add_to_list(a, j_at(a, t->v->policy, "certificate_selection"), SLICE("any_tag"),
                  j_text(a, arena_printf(a->arena, "cert%u", tag->number)));
}

static enum err first_line(struct tls *t, const struct slice *args, size_t count)
{
    if (count == 0)
        return OK;
    if (count > 2)
        return dispenser_arg_err(&t->h->d);
    if (count == 2)
        certificate_pair(t, args[0], args[1]);
    else if (slice_is(args[0], "internal"))
        t->internal = true;
    else if (slice_is(args[0], "force_automate"))
        t->v->force_automate = true;
    else if (slice_find(args[0], '@') != SIZE_MAX)
        j_put_text(t->h->a, acme_of(t), "email", args[0]);
    else
        return dispenser_err_f(&t->h->d, "single argument must either be 'internal', "
                                         "'force_automate', or an email address");
    return OK;
}

/* --- connection policy --- */

static bool is_one_of(struct slice word, const char *const *list)
{
    while (*list != NULL && !slice_is(word, *list))
        list++;
    return *list != NULL;
}

static enum err read_protocols(struct tls *t)
{
    static const char *const known[] = {"tls1.2", "tls1.3", NULL};
    struct dispenser *d = &t->h->d;
    struct slice *args;
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 0)
        return dispenser_err_f(d, "protocols requires one or two arguments");
    for (size_t i = 0; i < count && i < 2; i++) {
        if (!is_one_of(args[i], known))
            return dispenser_err_f(
                d, "wrong protocol name or protocol not supported: '" SLICE_FMT "'",
                SLICE_ARG(args[i]));
        j_put_text(t->h->a, t->v->policy, i == 0 ? "protocol_min" : "protocol_max", args[i]);
    }
    return OK;
}

static enum err read_names(struct tls *t, bool ciphers)
{
    struct dispenser *d = &t->h->d;
    while (dispenser_next_arg(d)) {
        struct slice name = dispenser_val(d);
        if (!is_one_of(name, ciphers ? tls_suite_names : tls_curve_names))
            return dispenser_err_f(
                d, "%s name or %s not supported: '" SLICE_FMT "'",
                ciphers ? "wrong cipher suite" : "Wrong curve", ciphers ? "cipher suite" : "curve",
                SLICE_ARG(name));
        j_add_to_list(t->h->a, t->v->policy, slice_from(ciphers ? "cipher_suites" : "curves"),
                      j_text(t->h->a, name));
    }
    return OK;
}

static enum err policy_option(struct tls *t, bool *known)
{
    struct dispenser *d = &t->h->d;
    struct adapt *a = t->h->a;
    *known = true;
    if (dispenser_val_is(d, "protocols"))
        return read_protocols(t);
    if (dispenser_val_is(d, "ciphers") || dispenser_val_is(d, "curves"))
        return read_names(t, dispenser_val_is(d, "ciphers"));
    if (dispenser_val_is(d, "client_auth")) {
        json_t *o;
        TRY(client_auth_read(a, d, &o));
        j_set(a, t->v->policy, "client_authentication", o);
        return OK;
    }
    if (dispenser_val_is(d, "alpn")) {
        struct slice *args;
        size_t count = dispenser_remaining_args(d, &args);
        j_put_strings(a, t->v->policy, "alpn", args, count);
        return count == 0 ? dispenser_arg_err(d) : OK;
    }
    if (dispenser_val_is(d, "insecure_secrets_log")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_put_text(a, t->v->policy, "insecure_secrets_log", dispenser_val(d));
        return OK;
    }
    *known = false;
    return OK;
}

/* --- certificates --- */

enum err ratio_read(struct dispenser *d, struct slice text, double *ratio)
{
    char copy[64], *end;
    if (text.len == 0 || text.len >= sizeof copy)
        return dispenser_err_f(d, "parsing renewal_window_ratio: strconv.ParseFloat: parsing \""
                               SLICE_FMT "\": invalid syntax", SLICE_ARG(text));
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    *ratio = strtod(copy, &end);
    if (*end != '\0')
        return dispenser_err_f(d, "parsing renewal_window_ratio: strconv.ParseFloat: parsing \""
                               SLICE_FMT "\": invalid syntax", SLICE_ARG(text));
    if (!(*ratio > 0 && *ratio < 1))
        return dispenser_err_f(d, "renewal_window_ratio must be between 0 and 1 (exclusive)");
    return OK;
}

static enum err one_arg(struct tls *t, struct slice *out)
{
    return dispenser_all_args(&t->h->d, out) ? OK : dispenser_arg_err(&t->h->d);
}

static enum err acme_setting(struct tls *t, bool *known)
{
    struct dispenser *d = &t->h->d;
    struct adapt *a = t->h->a;
    struct slice name = dispenser_val(d), value, key;
    *known = true;
    if (slice_is(name, "ca")) {
        TRY(one_arg(t, &value));
        j_put_text(a, acme_of(t), "ca", value);
        return OK;
    }
    if (slice_is(name, "ca_root")) {
        TRY(one_arg(t, &value));
        j_add_to_list(a, acme_of(t), SLICE("trusted_roots_pem_files"), j_text(a, value));
        return OK;
    }
    if (slice_is(name, "eab")) {
        if (!dispenser_all_args(d, &value, &key))
            return dispenser_arg_err(d);
        json_t *eab = j_at(a, acme_of(t), "external_account");
        j_put_text(a, eab, "key_id", value);
        j_put_text(a, eab, "mac_key", key);
        return OK;
    }
    if (slice_is(name, "dns")) {
        json_t *provider, *dns = j_at(a, acme_of(t), "challenges.dns");
        if (!dispenser_next_arg(d))
            return a->tls.dns != NULL ? OK : dispenser_arg_err(d);
        TRY(dns_provider_read(a, d, &provider));
        j_set(a, dns, "provider", provider);
        return OK;
    }
    bool domain = slice_is(name, "dns_challenge_override_domain");
    if (domain) {
        TRY(one_arg(t, &value));
        j_put_text(a, j_at(a, acme_of(t), "challenges.dns"), "override_domain", value);
    } else if (slice_is(name, "resolvers") || slice_is(name, "propagation_delay") ||
               slice_is(name, "propagation_timeout") || slice_is(name, "dns_ttl")) {
        TRY(dns_option_read(a, d, acme_of(t), "challenges.dns", known));
    } else {
        *known = false;
        return OK;
    }
    if (t->set_count < sizeof t->set / sizeof *t->set)
        t->set[t->set_count++] = name;
    return OK;
}

static enum err read_manager(struct adapt *a, struct dispenser *outer, json_t **manager)
{
    struct slice name = dispenser_val(outer);
    json_t *o = j_object(a);
    if (!slice_is(name, "http") && !slice_is(name, "tailscale"))
        return no_module(outer, "tls.get_certificate", name);
    struct dispenser d = dispenser_new_from_next_segment(outer);
    dispenser_next(&d);
    if (slice_is(name, "http")) {
        if (!dispenser_next_arg(&d))
            return dispenser_arg_err(&d);
        j_put_text(a, o, "url", dispenser_val(&d));
    }
    if (dispenser_next_arg(&d))
        return dispenser_arg_err(&d);
    if (slice_is(name, "http") && dispenser_next_block(&d, 0))
        return dispenser_err_f(&d, "block not allowed here");
    *manager = j_module(a, "via", slice_is(name, "http") ? "http" : "tailscale", o);
    return OK;
}

static enum err module_setting(struct tls *t, bool issuer)
{
    struct dispenser *d = &t->h->d;
    struct adapt *a = t->h->a;
    json_t *module;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (issuer) {
        TRY(issuer_read(a, d, &module));
        j_append(t->explicit_, module);
        return OK;
    }
    TRY(read_manager(a, d, &module));
    if (t->v->managers == NULL)
        t->v->managers = j_array(a);
    j_append(t->v->managers, module);
    return OK;
}

static enum err read_option(struct tls *t)
{
    struct dispenser *d = &t->h->d;
    struct slice name = dispenser_val(d), value;
    bool known;
    TRY(policy_option(t, &known));
    if (!known)
        TRY(acme_setting(t, &known));
    if (known)
        return OK;
    if (slice_is(name, "load")) {
        while (dispenser_next_arg(d))
            j_append_text(t->h->a, t->folders, dispenser_val(d));
        return OK;
    }
    if (slice_is(name, "key_type"))
        return one_arg(t, &t->v->key_type);
    if (slice_is(name, "renewal_window_ratio")) {
        TRY(one_arg(t, &value));
        return ratio_read(d, value, &t->v->renewal_window_ratio);
    }
    if (slice_is(name, "issuer") || slice_is(name, "get_certificate"))
        return module_setting(t, slice_is(name, "issuer"));
    bool on_demand = slice_is(name, "on_demand");
    if (!on_demand && !slice_is(name, "reuse_private_keys"))
        return dispenser_err_f(d, "unknown subdirective: " SLICE_FMT, SLICE_ARG(name));
    *(on_demand ? &t->v->on_demand : &t->v->reuse_private_keys) = true;
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

/* --- all of it --- */

static enum err check_dns(struct tls *t)
{
    struct adapt *a = t->h->a;
    const json_t *dns =
        json_object_get(json_object_get(t->acme, "challenges"), "dns");
    struct slice names = SLICE_NONE;
    if (t->set_count == 0 || json_object_get(dns, "provider") != NULL || a->tls.dns != NULL ||
        a->tls.acme_dns != NULL)
        return OK;
    for (size_t i = 0; i < t->set_count; i++)
        names = arena_join(a->arena,
                           (struct slice[]){names, i > 0 ? SLICE(", ") : SLICE_NONE, t->set[i]}, 3);
    return dispenser_err_f(&t->h->d,
                           "setting DNS challenge options [" SLICE_FMT "] requires a DNS provider "
                           "(set with the 'dns' subdirective or 'acme_dns' global option)",
                           SLICE_ARG(names));
}

static enum err choose_issuers(struct tls *t)
{
    struct adapt *a = t->h->a;
    bool many = json_array_size(t->explicit_) > 0;
    if (many && (t->acme != NULL || t->internal))
        return dispenser_err_f(&t->h->d, "cannot mix issuer subdirective (explicit issuers) with "
                                         "other issuer-specific subdirectives (implicit issuers)");
    if (t->acme != NULL && t->internal)
        return dispenser_err_f(&t->h->d,
                               "cannot create both ACME and internal certificate issuers");
    if (many) {
        t->v->issuers = t->explicit_;
    } else if (t->acme != NULL) {
        t->v->issuers = issuers_implied(a, t->acme);
    } else if (t->internal) {
        t->v->issuers = j_array(a);
        j_append(t->v->issuers, issuer_new(a, "internal"));
    }
    return OK;
}

enum err parse_tls_directive(struct helper *h, struct values *out)
{
    struct adapt *a = h->a;
    struct tls t = {.h = h, .v = ARENA_NEW(a->arena, struct tls_value), .explicit_ = j_array(a),
                    .files = j_array(a), .folders = j_array(a)};
    struct slice *args;
    t.v->policy = j_object(a);
    dispenser_next(&h->d);
    size_t count = dispenser_remaining_args(&h->d, &args);
    TRY(first_line(&t, args, count));
    while (dispenser_next_block(&h->d, 0)) {
        t.has_block = true;
        TRY(read_option(&t));
    }
    TRY(check_dns(&t));
    if (count == 0 && !t.has_block)
        return dispenser_arg_err(&h->d);
    TRY(choose_issuers(&t));
    t.v->loaders = j_object(a);
    if (json_array_size(t.files) > 0)
        j_set(a, t.v->loaders, "load_files", t.files);
    if (json_array_size(t.folders) > 0)
        j_set(a, t.v->loaders, "load_folders", t.folders);
    values_add(a, out, VALUE_TLS)->tls = t.v;
    return OK;
}
