/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Most providers are a few texts: one that may stand behind the name, and the same and others in a
 * block. What the plugins for Caddy check here is checked here, so that a Caddyfile gives the same
 * JSON and the same refusals. `endpoint` (of providers with an HTTP API) and the provider `exec` are
 * portico's own.
 */
#include "adapter/dns_providers.h"

#include "adapter/mocks.h"
#include "adapter/suggest.h"
#include "base/text.h"

enum { OPTIONS_MAX = 5 };

struct provider_option {
    const char *name, *member;
    bool required;
};

struct provider {
    const char *name;
    struct provider_option options[OPTIONS_MAX]; /* ends with a NULL name; the first may be an argument */
    bool argument;
    const char *missing; /* what is said when a required one is */
};

static const struct provider providers[] = {
    {"cloudflare", {{"api_token", "api_token", true}, {"zone_token", "zone_token", false},
                    {"endpoint", "endpoint", false}}, true, "missing API token"},
    {"digitalocean", {{"api_token", "auth_token", true}, {"endpoint", "endpoint", false}}, true,
     "missing API token"},
    {"duckdns", {{"api_token", "api_token", true}, {"override_domain", "override_domain", false},
                 {"resolver", "resolver", false}, {"endpoint", "endpoint", false}}, true,
     "DuckDNS missing API token"},
    {"hetzner", {{"api_token", "api_token", true}, {"endpoint", "endpoint", false}}, true,
     "missing API token"},
    {"rfc2136", {{"key_name", "key_name", true}, {"key_alg", "key_alg", true}, {"key", "key", true},
                 {"server", "server", true}}, false, NULL},
};

static enum err put_once(struct adapt *a, struct dispenser *d, json_t *o, const struct provider_option *opt)
{
    if (json_object_get(o, opt->member) != NULL)
        return dispenser_err_f(d, "%s already set", opt->name);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    j_put_text(a, o, opt->member, dispenser_val(d));
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

static enum err read_options(struct adapt *a, struct dispenser *d, json_t *o,
                             const struct provider_option *options)
{
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        const struct provider_option *opt = options;
        while (opt->name != NULL && !dispenser_val_is(d, opt->name))
            opt++;
        if (opt->name == NULL)
            return dispenser_err_f(d, "unrecognized subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        TRY(put_once(a, d, o, opt));
    }
    return OK;
}

static enum err read_plain(struct adapt *a, struct dispenser *d, const struct provider *p, json_t *o)
{
    if (p->argument && dispenser_next_arg(d))
        j_put_text(a, o, p->options[0].member, dispenser_val(d));
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    TRY(read_options(a, d, o, p->options));
    for (const struct provider_option *opt = p->options; opt->name != NULL; opt++) {
        const char *value = json_string_value(json_object_get(o, opt->member));
        if (opt->required && (value == NULL || value[0] == '\0'))
            return p->missing != NULL ? dispenser_err_f(d, "%s", p->missing)
                                      : dispenser_err_f(d, "%s: missing %s", p->name, opt->name);
    }
    return OK;
}

/* --- acmedns: one account, one for each domain, or a file --- */

static const struct provider_option account_options[] = {{"username", "username", true},
                                                {"password", "password", true},
                                                {"subdomain", "subdomain", true},
                                                {"server_url", "server_url", true},
                                                {"fulldomain", "fulldomain", false},
                                                {NULL, NULL, false}};

static enum err read_accounts(struct adapt *a, struct dispenser *d, json_t *o)
{
    json_t *config = j_object(a);
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        json_t *account = j_object(a);
        struct slice domain = dispenser_val(d);
        TRY(read_options(a, d, account, account_options));
        j_set_key(a, config, domain, account);
    }
    if (json_object_size(config) == 0)
        return dispenser_err_f(d, "config section must have at least one domain");
    j_set(a, o, "config", config);
    return OK;
}

static enum err read_acmedns_option(struct adapt *a, struct dispenser *d, json_t *o)
{
    static const struct provider_option file = {"config_file_path", "config_file_path", false};
    if (dispenser_val_is(d, "config"))
        return read_accounts(a, d, o);
    if (dispenser_val_is(d, file.name))
        return put_once(a, d, o, &file);
    for (const struct provider_option *opt = account_options; opt->required; opt++) {
        if (dispenser_val_is(d, opt->name))
            return put_once(a, d, o, opt);
    }
    return dispenser_err_f(d, "unrecognized subdirective '" SLICE_FMT "'",
                           SLICE_ARG(dispenser_val(d)));
}

static enum err read_acmedns(struct adapt *a, struct dispenser *d, json_t *o)
{
    unsigned account = 0, ways;
    if (dispenser_next_arg(d))
        j_put_text(a, o, "config_file_path", dispenser_val(d));
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting))
        TRY(read_acmedns_option(a, d, o));
    for (const struct provider_option *opt = account_options; opt->required; opt++)
        account += json_object_get(o, opt->member) != NULL;
    ways = (json_object_get(o, "config") != NULL) + (json_object_get(o, "config_file_path") != NULL) +
           (account == 4);
    if (ways != 1 || (account != 0 && account != 4))
        return dispenser_err_f(d, "acmedns needs exactly one of: config; config_file_path; username, "
                               "password, subdomain and server_url");
    return OK;
}

/* --- exec COMMAND [ARGS…] { timeout DURATION } --- */

static enum err read_exec(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice *words, text;
    int64_t ns;
    size_t count = dispenser_remaining_args(d, &words);
    if (count == 0)
        return dispenser_arg_err(d);
    j_put_strings(a, o, "command", words, count);
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        if (!dispenser_val_is(d, "timeout"))
            return dispenser_err_f(d, "unrecognized subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        if (!dispenser_all_args(d, &text))
            return dispenser_arg_err(d);
        if (duration_parse(text, &ns) != OK || ns <= 0)
            return dispenser_err_f(d, "timeout " SLICE_FMT ": not a duration such as 2m",
                                   SLICE_ARG(text));
        j_put_int(a, o, "timeout", ns);
    }
    return OK;
}

static enum err read_mock(struct adapt *a, struct dispenser *d, json_t *o)
{
    if (dispenser_next_arg(d))
        j_put_text(a, o, "argument", dispenser_val(d));
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

enum err dns_provider_read(struct adapt *a, struct dispenser *d, json_t **provider)
{
    static const struct {
        const char *name;
        enum err (*read)(struct adapt *, struct dispenser *, json_t *);
    } own[] = {{"acmedns", read_acmedns}, {"exec", read_exec}, {"mock", read_mock}};
    struct slice name = dispenser_val(d);
    json_t *o = j_object(a);
    const char *found = NULL;
    for (size_t i = 0; found == NULL && i < sizeof own / sizeof own[0]; i++) {
        if (!slice_is(name, own[i].name) || (own[i].read == read_mock && !adapter_has_mocks))
            continue;
        struct dispenser inner = dispenser_new_from_next_segment(d);
        dispenser_next(&inner);
        TRY(own[i].read(a, &inner, o));
        found = own[i].name;
    }
    for (size_t i = 0; found == NULL && i < sizeof providers / sizeof providers[0]; i++) {
        if (!slice_is(name, providers[i].name))
            continue;
        struct dispenser inner = dispenser_new_from_next_segment(d);
        dispenser_next(&inner);
        TRY(read_plain(a, &inner, &providers[i], o));
        found = providers[i].name;
    }
    if (found == NULL)
        return no_module(d, "dns.providers", name);
    *provider = j_module(a, "name", found, o);
    return OK;
}
