/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of the options' names; most are one value, which a later line replaces.
 */
#include "adapter/options.h"

#include "adapter/directives.h"
#include "adapter/service_option.h"
#include "adapter/sites.h"
#include "adapter/suggest.h"
#include "adapter/tls_app.h"
#include "base/text.h"

typedef enum err read_option(struct adapt *, struct dispenser *);

/* --- single values --- */

/* The option's only word. */
enum err option_word(struct dispenser *d, struct slice *out)
{
    dispenser_next(d);
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    *out = dispenser_val(d);
    return dispenser_next(d) ? dispenser_arg_err(d) : OK;
}

static enum err read_debug(struct adapt *a, struct dispenser *d)
{
    (void)d;
    a->options.debug = true;
    return OK;
}

static enum err read_port(struct dispenser *d, int64_t *port, bool *has)
{
    struct slice text;
    dispenser_next(d);
    if (!dispenser_all_args(d, &text))
        return dispenser_arg_err(d);
    if (!slice_to_i64(text, port))
        return dispenser_err_f(d,
                               "converting port '" SLICE_FMT "' to integer value: strconv.Atoi: "
                               "parsing \"" SLICE_FMT "\": invalid syntax",
                               SLICE_ARG(text), SLICE_ARG(text));
    *has = true;
    return OK;
}

static enum err read_http_port(struct adapt *a, struct dispenser *d)
{
    return read_port(d, &a->options.http_port, &a->options.has_http_port);
}

static enum err read_https_port(struct adapt *a, struct dispenser *d)
{
    return read_port(d, &a->options.https_port, &a->options.has_https_port);
}

enum err option_duration(struct adapt *a, struct dispenser *d, int64_t *ns)
{
    dispenser_next(d);
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    return bare_duration(a, d, ns);
}

static enum err read_grace_period(struct adapt *a, struct dispenser *d)
{
    return option_duration(a, d, &a->options.grace_period);
}

static enum err read_shutdown_delay(struct adapt *a, struct dispenser *d)
{
    return option_duration(a, d, &a->options.shutdown_delay);
}

static enum err read_default_sni(struct adapt *a, struct dispenser *d)
{
    return option_word(d, &a->options.default_sni);
}

static enum err read_fallback_sni(struct adapt *a, struct dispenser *d)
{
    return option_word(d, &a->options.fallback_sni);
}

/* Ours: whose the server process shall be. */
static enum err read_user(struct adapt *a, struct dispenser *d)
{
    return option_word(d, &a->options.user);
}

static enum err read_sandbox(struct adapt *a, struct dispenser *d)
{
    struct slice word;
    TRY(option_word(d, &word));
    if (!slice_is(word, "on") && !slice_is(word, "off"))
        return dispenser_err_f(d, "sandbox must be 'on' or 'off'");
    a->options.sandbox = slice_is(word, "on");
    return OK;
}

static enum err read_persist_config(struct adapt *a, struct dispenser *d)
{
    struct slice word;
    TRY(option_word(d, &word));
    if (!slice_is(word, "off"))
        return dispenser_err_f(d, "persist_config must be 'off'");
    a->options.persist_off = true;
    return OK;
}

static enum err read_auto_https(struct adapt *a, struct dispenser *d)
{
    static const char *const words[] = {"off", "disable_redirects", "disable_certs",
                                        "ignore_loaded_certs"};
    struct slice *args;
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 0)
        return dispenser_arg_err(d);
    for (size_t i = 0; i < count; i++) {
        size_t k = 0;
        while (k < 4 && !slice_is(args[i], words[k]))
            k++;
        if (k == 4)
            return dispenser_err_f(d, "auto_https must be one of 'off', 'disable_redirects', "
                                      "'disable_certs', or 'ignore_loaded_certs'");
    }
    a->options.auto_https = args;
    a->options.auto_https_count = count;
    return OK;
}

/* --- order --- */

static size_t order_of(const struct adapt *a, struct slice name)
{
    size_t i = 0;
    while (i < a->order_count && !slice_is(name, a->order[i]))
        i++;
    return i;
}

static void insert_order(struct adapt *a, const char *name, size_t at)
{
    memmove(a->order + at + 1, a->order + at, (a->order_count - at) * sizeof *a->order);
    a->order[at] = name;
    a->order_count++;
}

static enum err read_order(struct adapt *a, struct dispenser *d)
{
    dispenser_next(d);
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    const struct directive *dir = directive_find(dispenser_val(d));
    if (dir == NULL)
        return dispenser_err_f(d, SLICE_FMT " is not a registered directive",
                               SLICE_ARG(dispenser_val(d)));
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    bool first = dispenser_val_is(d, "first"), last = dispenser_val_is(d, "last");
    bool after = dispenser_val_is(d, "after");
    if (!first && !last && !after && !dispenser_val_is(d, "before"))
        return dispenser_err_f(d, "unknown positional '" SLICE_FMT "'",
                               SLICE_ARG(dispenser_val(d)));
    size_t old = order_of(a, slice_from(dir->name));
    if (old < a->order_count) {
        a->order_count--;
        memmove(a->order + old, a->order + old + 1, (a->order_count - old) * sizeof *a->order);
    }
    if (first || last) {
        insert_order(a, dir->name, first ? 0 : a->order_count);
        return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
    }
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice other = dispenser_val(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    size_t at = order_of(a, other);
    if (at == a->order_count)
        return dispenser_err_f(d, "directive '" SLICE_FMT "' not found", SLICE_ARG(other));
    insert_order(a, dir->name, after ? at + 1 : at);
    return OK;
}

/* --- blocks --- */

static enum err read_default_bind(struct adapt *a, struct dispenser *d)
{
    static struct slice anywhere = {"", 0};
    struct bind_value *b = ARENA_NEW(a->arena, struct bind_value);
    struct options *o = &a->options;
    TRY(bind_read(d, b));
    if (b->address_count == 0) {
        b->addresses = &anywhere;
        b->address_count = 1;
    }
    struct bind_value **all = ARENA_ARRAY(a->arena, struct bind_value *, o->default_bind_count + 1);
    if (o->default_bind_count > 0)
        memcpy(all, o->default_bind, o->default_bind_count * sizeof *all);
    all[o->default_bind_count++] = b;
    o->default_bind = all;
    return OK;
}

static enum err read_admin(struct adapt *a, struct dispenser *d)
{
    static const char *const keys[] = {"disabled", "listen", "enforce_origin", "origins", NULL};
    json_t *o = j_object(a);
    dispenser_next(d);
    adapt_origin(a, SLICE("admin"), SLICE("admin API"), dispenser_file(d), dispenser_line(d));
    if (dispenser_next_arg(d)) {
        if (dispenser_val_is(d, "off")) {
            j_put_bool(a, o, "disabled", true);
            if (dispenser_next(d))
                return dispenser_err_f(d, "No more option is allowed after turning off admin "
                                          "config");
        } else {
            j_put_text(a, o, "listen", dispenser_val(d));
            if (dispenser_next_arg(d))
                return dispenser_arg_err(d);
        }
    }
    while (dispenser_next_block(d, 0)) {
        if (dispenser_val_is(d, "enforce_origin")) {
            j_put_bool(a, o, "enforce_origin", true);
        } else if (dispenser_val_is(d, "origins")) {
            struct slice *args;
            size_t count = dispenser_remaining_args(d, &args);
            j_put_strings(a, o, "origins", args, count);
        } else {
            return dispenser_err_f(d, "unrecognized parameter '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        }
    }
    if (json_object_get(o, "listen") == NULL && json_object_get(o, "disabled") == NULL)
        j_put_text(a, o, "listen", SLICE("localhost:2019"));
    a->options.admin = j_ordered(a, o, keys);
    return OK;
}

static enum err read_metrics(struct adapt *a, struct dispenser *d)
{
    static const char *const keys[] = {"per_host", "observe_catchall_hosts", "otlp", NULL};
    json_t *o = j_object(a);
    dispenser_next(d);
    while (dispenser_next_block(d, 0)) {
        size_t i = 0;
        while (keys[i] != NULL && !dispenser_val_is(d, keys[i]))
            i++;
        if (keys[i] == NULL)
            return dispenser_err_f(d, "unrecognized servers option '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        j_put_bool(a, o, keys[i], true);
    }
    a->options.metrics = j_ordered(a, o, keys);
    return OK;
}

static enum err file_system_root(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice root = SLICE_NONE;
    dispenser_next(d);
    if (dispenser_next_arg(d))
        root = dispenser_val(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0)) {
        if (!dispenser_val_is(d, "root"))
            return dispenser_err_f(d, "unrecognized parameter '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        if (root.len > 0)
            return dispenser_err_f(d, "root already set");
        root = dispenser_val(d);
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
    }
    if (root.len == 0)
        return dispenser_err_f(
            d, "missing root path (to use default, omit storage config entirely)");
    j_put_text(a, o, "root", root);
    return OK;
}

enum err storage_read(struct adapt *a, struct dispenser *d, json_t **storage)
{
    json_t *o = j_object(a);
    if (!dispenser_val_is(d, "file_system"))
        return no_module(d, "caddy.storage", dispenser_val(d));
    struct dispenser inner = dispenser_new_from_next_segment(d);
    TRY(file_system_root(a, &inner, o));
    *storage = j_module(a, "module", "file_system", o);
    return OK;
}

static enum err read_storage(struct adapt *a, struct dispenser *d)
{
    dispenser_next(d);
    if (!dispenser_next(d))
        return dispenser_arg_err(d);
    return storage_read(a, d, &a->options.storage);
}

static enum err read_servers(struct adapt *a, struct dispenser *d)
{
    struct options *o = &a->options;
    struct server_options *all = ARENA_ARRAY(a->arena, struct server_options, o->server_count + 1);
    if (o->server_count > 0)
        memcpy(all, o->servers, o->server_count * sizeof *all);
    TRY(server_options_read(a, d, &all[o->server_count]));
    o->server_count++;
    o->servers = all;
    return OK;
}

static enum err read_log(struct adapt *a, struct dispenser *d)
{
    struct options *o = &a->options;
    struct helper h = {.d = *d, .a = a};
    struct log_value **all = ARENA_ARRAY(a->arena, struct log_value *, o->log_count + 1);
    if (o->log_count > 0)
        memcpy(all, o->logs, o->log_count * sizeof *all);
    TRY(log_read(&h, true, &all[o->log_count]));
    o->log_count++;
    o->logs = all;
    return OK;
}

/* No module of these is part of Caddy itself. */
static enum err read_filesystem(struct adapt *a, struct dispenser *d)
{
    struct slice key;
    (void)a;
    dispenser_next(d);
    if (!dispenser_args(d, &key) || !dispenser_next_arg(d))
        return dispenser_arg_err(d);
    return no_module(d, "caddy.fs", dispenser_val(d));
}

static enum err read_events(struct adapt *a, struct dispenser *d)
{
    dispenser_next(d);
    while (dispenser_next_block(d, 0)) {
        if (!dispenser_val_is(d, "on") || !dispenser_next_arg(d) || !dispenser_next_arg(d))
            return dispenser_arg_err(d);
        return no_module(d, "events.handlers", dispenser_val(d));
    }
    a->options.events = j_object(a);
    return OK;
}

static const struct {
    const char *name;
    read_option *read;
} table[] = {
    {"admin", read_admin},
    {"auto_https", read_auto_https},
    {"debug", read_debug},
    {"default_bind", read_default_bind},
    {"default_sni", read_default_sni},
    {"events", read_events},
    {"fallback_sni", read_fallback_sni},
    {"filesystem", read_filesystem},
    {"grace_period", read_grace_period},
    {"http_port", read_http_port},
    {"https_port", read_https_port},
    {"log", read_log},
    {"metrics", read_metrics},
    {"order", read_order},
    {"persist_config", read_persist_config},
    {"ports", ports_option_read},
    {"sandbox", read_sandbox},
    {"servers", read_servers},
    {"service", service_option},
    {"shutdown_delay", read_shutdown_delay},
    {"storage", read_storage},
    {"user", read_user},
};

enum { OPTIONS = sizeof table / sizeof *table };

static enum err unknown_option(struct adapt *a, const struct token *t)
{
    struct suggestion near = {0};
    for (size_t i = 0; i < OPTIONS; i++)
        suggest(&near, t->text, table[i].name);
    for (size_t i = 0; tls_option_name(i) != NULL; i++)
        suggest(&near, t->text, tls_option_name(i));
    diag_place(a->diag, t->file, t->line, t->column);
    return diag_fail(a->diag, SLICE_FMT ":%u: unrecognized global option: " SLICE_FMT "%s%s%s",
                     SLICE_ARG(t->file), t->line, SLICE_ARG(t->text),
                     near.word != NULL ? " - did you mean '" : "",
                     near.word != NULL ? near.word : "", near.word != NULL ? "'?" : "");
}

static enum err read_one(struct adapt *a, const struct segment *s)
{
    struct slice name = segment_name(s);
    struct dispenser d = segment_dispenser(s, a->arena, a->diag);
    size_t i = 0;
    while (i < OPTIONS && !slice_is(name, table[i].name))
        i++;
    bool known = i < OPTIONS;
    enum err e = known ? table[i].read(a, &d) : tls_option_read(a, name, &d, &known);
    if (!known)
        return unknown_option(a, &s->items[0]);
    if (e != OK)
        diag_prefix(a, "parsing caddyfile tokens for '" SLICE_FMT "'", SLICE_ARG(name));
    return e;
}

static bool longer_listener(const void *first, const void *second, const void *context)
{
    const struct server_options *x = first, *y = second;
    (void)context;
    return x->listener.len > y->listener.len;
}

enum err options_read(struct adapt *a, const struct server_block *block)
{
    struct options *o = &a->options;
    for (size_t i = 0; i < block->segment_count; i++)
        TRY(read_one(a, &block->segments[i]));
    sort_stable(o->servers, o->server_count, sizeof *o->servers, longer_listener, NULL);
    for (size_t i = 0; i < o->server_count; i++)
        for (size_t k = 0; k < i; k++)
            if (slice_eq(o->servers[i].listener, o->servers[k].listener))
                return diag_fail(a->diag,
                                 "cannot have 'servers' global options with duplicate listener "
                                 "addresses: " SLICE_FMT,
                                 SLICE_ARG(o->servers[i].listener));
    return OK;
}
