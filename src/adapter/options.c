/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Global options: the block without addresses at the top of a Caddyfile. Each is a row of a table;
 * an option that stands twice counts as written last, but for those that gather (log, servers,
 * default_bind).
 */
#include "adapter/adapt.h"

#include <stdlib.h>

typedef enum err option_parse(struct adapt *, struct dispenser *);

static enum err one_word(struct dispenser *d, struct slice *word)
{
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    *word = dispenser_val(d);
    return dispenser_next(d) ? dispenser_arg_err(d) : OK;
}

static enum err read_debug(struct adapt *a, struct dispenser *d)
{
    (void)d;
    a->options.debug = true;
    return OK;
}

static enum err read_port(struct dispenser *d, bool *has, int64_t *port)
{
    struct slice text;
    *has = true;
    if (!dispenser_all_args(d, &text))
        return dispenser_arg_err(d);
    if (slice_to_i64(text, port))
        return OK;
    return dispenser_err_f(d, "converting port '" SLICE_FMT "' to integer value: strconv.Atoi: "
                           "parsing \"" SLICE_FMT "\": invalid syntax", SLICE_ARG(text),
                           SLICE_ARG(text));
}

static enum err read_http_port(struct adapt *a, struct dispenser *d)
{
    return read_port(d, &a->options.has_http_port, &a->options.http_port);
}

static enum err read_https_port(struct adapt *a, struct dispenser *d)
{
    return read_port(d, &a->options.has_https_port, &a->options.https_port);
}

static enum err read_period(struct adapt *a, struct dispenser *d, int64_t *ns)
{
    (void)a;
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    return read_duration(d, dispenser_val(d), "bad duration", ns);
}

static enum err read_grace_period(struct adapt *a, struct dispenser *d)
{
    return read_period(a, d, &a->options.grace_period);
}

static enum err read_shutdown_delay(struct adapt *a, struct dispenser *d)
{
    return read_period(a, d, &a->options.shutdown_delay);
}

static enum err read_default_sni(struct adapt *a, struct dispenser *d)
{
    return one_word(d, &a->options.default_sni);
}

static enum err read_fallback_sni(struct adapt *a, struct dispenser *d)
{
    return one_word(d, &a->options.fallback_sni);
}

static enum err read_user(struct adapt *a, struct dispenser *d)
{
    return one_word(d, &a->options.user);
}

static enum err read_default_bind(struct adapt *a, struct dispenser *d)
{
    static struct slice any[1] = {{"", 0}};
    struct bind_value *b = ARENA_NEW(a->arena, struct bind_value);
    TRY(bind_read(d, b));
    if (b->address_count == 0) {
        b->addresses = any;
        b->address_count = 1;
    }
    struct options *o = &a->options;
    struct bind_value **all = ARENA_ARRAY(a->arena, struct bind_value *, o->default_bind_count + 1);
    if (o->default_bind_count > 0)
        memcpy(all, o->default_bind, o->default_bind_count * sizeof *all);
    all[o->default_bind_count++] = b;
    o->default_bind = all;
    return OK;
}

/* --- order --- */

static size_t drop_name(const char **order, size_t count, struct slice name)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!slice_is(name, order[i]))
            order[kept++] = order[i];
    return kept;
}

static enum err insert_beside(struct adapt *a, struct dispenser *d, const char **order,
                              size_t count, const char *name, bool after)
{
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice other = dispenser_val(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    size_t at = 0;
    while (at < count && !slice_is(other, order[at]))
        at++;
    if (at == count)
        return dispenser_err_f(d, "directive '" SLICE_FMT "' not found", SLICE_ARG(other));
    at += after;
    memmove(order + at + 1, order + at, (count - at) * sizeof *order);
    order[at] = name;
    a->order_count = count + 1;
    return OK;
}

static enum err read_order(struct adapt *a, struct dispenser *d)
{
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    struct slice name = dispenser_val(d);
    const struct directive *dir = directive_find(name);
    if (dir == NULL)
        return dispenser_err_f(d, SLICE_FMT " is not a registered directive", SLICE_ARG(name));
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    struct slice where = dispenser_val(d);
    const char **order = ARENA_ARRAY(a->arena, const char *, a->order_count + 1);
    memcpy(order, a->order, a->order_count * sizeof *order);
    size_t count = drop_name(order, a->order_count, name);
    a->order = order;
    if (slice_is(where, "before") || slice_is(where, "after"))
        return insert_beside(a, d, order, count, dir->name, slice_is(where, "after"));
    if (!slice_is(where, "first") && !slice_is(where, "last"))
        return dispenser_err_f(d, "unknown positional '" SLICE_FMT "'", SLICE_ARG(where));
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    size_t at = slice_is(where, "first") ? 0 : count;
    memmove(order + at + 1, order + at, (count - at) * sizeof *order);
    order[at] = dir->name;
    a->order_count = count + 1;
    return OK;
}

/* --- admin, storage, metrics --- */

static enum err read_admin(struct adapt *a, struct dispenser *d)
{
    struct slice *origins = NULL;
    size_t origin_count = 0;
    bool enforce = false, off = false;
    struct slice listen = SLICE_NONE;
    if (dispenser_next_arg(d)) {
        listen = dispenser_val(d);
        off = slice_is(listen, "off");
        if (off && dispenser_next(d))
            return dispenser_err_f(d,
                                   "No more option is allowed after turning off admin config");
        if (!off && dispenser_next_arg(d))
            return dispenser_arg_err(d);
    }
    while (dispenser_next_block(d, 0)) {
        if (dispenser_val_is(d, "enforce_origin"))
            enforce = true;
        else if (dispenser_val_is(d, "origins"))
            origin_count = dispenser_remaining_args(d, &origins);
        else
            return dispenser_err_f(d, "unrecognized parameter '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
    }
    json_t *o = a->options.admin = j_object(a);
    j_put_bool(a, o, "disabled", off);
    if (!off)
        j_put_text(a, o, "listen", listen.len > 0 ? listen : SLICE("localhost:2019"));
    j_put_bool(a, o, "enforce_origin", enforce);
    j_put_strings(a, o, "origins", origins, origin_count);
    return OK;
}

static enum err read_persist(struct adapt *a, struct dispenser *d)
{
    struct slice word;
    TRY(one_word(d, &word));
    if (!slice_is(word, "off"))
        return dispenser_err_f(d, "persist_config must be 'off'");
    a->options.persist_off = true;
    return OK;
}

static enum err read_storage(struct adapt *a, struct dispenser *outer)
{
    if (!dispenser_next(outer))
        return dispenser_arg_err(outer);
    struct slice name = dispenser_val(outer);
    if (!slice_is(name, "file_system"))
        return dispenser_err_f(outer,
                               "getting module named 'caddy.storage." SLICE_FMT
                               "': module not registered: caddy.storage." SLICE_FMT,
                               SLICE_ARG(name), SLICE_ARG(name));
    struct dispenser d = dispenser_new_from_next_segment(outer);
    json_t *o = j_object(a);
    dispenser_next(&d);
    if (dispenser_next_arg(&d))
        j_put_text(a, o, "root", dispenser_val(&d));
    if (dispenser_next_arg(&d))
        return dispenser_arg_err(&d);
    while (dispenser_next_block(&d, 0)) {
        if (!dispenser_val_is(&d, "root"))
            return dispenser_err_f(&d, "unrecognized parameter '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(&d)));
        if (!dispenser_next_arg(&d))
            return dispenser_arg_err(&d);
        if (json_object_get(o, "root") != NULL)
            return dispenser_err_f(&d, "root already set");
        j_put_text(a, o, "root", dispenser_val(&d));
        if (dispenser_next_arg(&d))
            return dispenser_arg_err(&d);
    }
    a->options.storage = j_module(a, "module", "file_system", o);
    return OK;
}

static enum err read_auto_https(struct adapt *a, struct dispenser *d)
{
    static const char *const known[] = {"off", "disable_redirects", "disable_certs",
                                        "ignore_loaded_certs"};
    struct options *o = &a->options;
    o->auto_https_count = dispenser_remaining_args(d, &o->auto_https);
    if (o->auto_https_count == 0)
        return dispenser_arg_err(d);
    for (size_t i = 0; i < o->auto_https_count; i++) {
        size_t k = 0;
        while (k < 4 && !slice_is(o->auto_https[i], known[k]))
            k++;
        if (k == 4)
            return dispenser_err_f(d, "auto_https must be one of 'off', 'disable_redirects', "
                                      "'disable_certs', or 'ignore_loaded_certs'");
    }
    return OK;
}

static enum err read_metrics(struct adapt *a, struct dispenser *d)
{
    static const struct option table[] = {
        {"per_host", OPTION_FLAG, "per_host", NULL},
        {"observe_catchall_hosts", OPTION_FLAG, "observe_catchall_hosts", NULL},
        {"otlp", OPTION_FLAG, "otlp", NULL},
        {0},
    };
    a->options.metrics = j_object(a);
    while (dispenser_next_block(d, 0)) {
        bool known;
        TRY(option_read(a, d, table, a->options.metrics, &known));
        if (!known)
            return dispenser_err_f(d, "unrecognized servers option '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
    }
    return OK;
}

/* --- log, servers --- */

static enum err read_log(struct adapt *a, struct dispenser *d)
{
    struct helper h = {.d = *d, .a = a};
    struct options *o = &a->options;
    struct log_value *v;
    dispenser_reset(&h.d);
    TRY(log_read(&h, true, &v));
    struct log_value **all = ARENA_ARRAY(a->arena, struct log_value *, o->log_count + 1);
    if (o->log_count > 0)
        memcpy(all, o->logs, o->log_count * sizeof *all);
    all[o->log_count++] = v;
    o->logs = all;
    return OK;
}

static enum err read_servers(struct adapt *a, struct dispenser *d)
{
    struct options *o = &a->options;
    struct server_options *all = ARENA_ARRAY(a->arena, struct server_options, o->server_count + 1);
    if (o->server_count > 0)
        memcpy(all, o->servers, o->server_count * sizeof *all);
    o->servers = all;
    dispenser_reset(d);
    TRY(server_options_read(a, d, &all[o->server_count]));
    o->server_count++;
    return OK;
}

/* Longest listener address first, so that one with an address is found before one for all. */
static enum err order_servers(struct adapt *a)
{
    struct options *o = &a->options;
    for (size_t i = 1; i < o->server_count; i++)
        for (size_t k = i; k > 0 && o->servers[k].listener.len > o->servers[k - 1].listener.len;
             k--) {
            struct server_options t = o->servers[k];
            o->servers[k] = o->servers[k - 1];
            o->servers[k - 1] = t;
        }
    for (size_t i = 0; i < o->server_count; i++)
        for (size_t k = 0; k < i; k++)
            if (slice_eq(o->servers[i].listener, o->servers[k].listener))
                return diag_fail(a->diag,
                                 "cannot have 'servers' global options with duplicate listener "
                                 "addresses: " SLICE_FMT, SLICE_ARG(o->servers[i].listener));
    return OK;
}

static const struct {
    const char *name;
    option_parse *parse;
} table[] = {
    {"admin", read_admin},
    {"auto_https", read_auto_https},
    {"debug", read_debug},
    {"default_bind", read_default_bind},
    {"default_sni", read_default_sni},
    {"fallback_sni", read_fallback_sni},
    {"grace_period", read_grace_period},
    {"http_port", read_http_port},
    {"https_port", read_https_port},
    {"log", read_log},
    {"metrics", read_metrics},
    {"order", read_order},
    {"persist_config", read_persist},
    {"servers", read_servers},
    {"shutdown_delay", read_shutdown_delay},
    {"storage", read_storage},
    {"user", read_user},
};

static const char *const planned[] = {
    "acme_ca", "acme_ca_root", "acme_dns", "acme_eab", "cert_issuer", "cert_lifetime", "dns",
    "ech", "email", "events", "filesystem", "key_type", "layer4", "local_certs", "ocsp_interval",
    "ocsp_stapling", "on_demand_tls", "pki", "preferred_chains", "renew_interval",
    "renewal_window_ratio", "skip_install_trust", "storage_check", "storage_clean_interval",
    "tls_resolvers"};

static enum err unknown_option(struct adapt *a, const struct token *t)
{
    const char *format = SLICE_FMT ":%u: unrecognized global option: " SLICE_FMT;
    for (size_t i = 0; i < sizeof planned / sizeof *planned; i++)
        if (slice_is(t->text, planned[i]))
            format = SLICE_FMT ":%u: global option not supported yet by this version of portico: "
                     SLICE_FMT;
    diag_place(a->diag, t->file, t->line, t->column);
    return diag_fail(a->diag, format, SLICE_ARG(t->file), t->line, SLICE_ARG(t->text));
}

static enum err read_option(struct adapt *a, const struct segment *s)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!slice_is(segment_name(s), table[i].name))
            continue;
        struct dispenser d = segment_dispenser(s, a->arena, a->diag);
        dispenser_next(&d);
        enum err e = table[i].parse(a, &d);
        if (e == OK)
            return OK;
        char *why = arena_str(a->arena, slice_from(a->diag->text));
        diag_say(a->diag, "parsing caddyfile tokens for '%s': %s", table[i].name, why);
        return e;
    }
    return unknown_option(a, &s->items[0]);
}

enum err options_read(struct adapt *a, const struct server_block *b)
{
    for (size_t i = 0; i < b->segment_count; i++)
        TRY(read_option(a, &b->segments[i]));
    return order_servers(a);
}
