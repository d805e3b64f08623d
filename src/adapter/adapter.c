/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From blocks to the whole document: global options, named routes, sites, and what they give to
 * the apps and to logging.
 */
#include "adapter/adapter.h"

#include <stdio.h>

#include "adapter/directives.h"
#include "adapter/foreign_words.h"
#include "adapter/options.h"
#include "adapter/service_option.h"
#include "adapter/sites.h"
#include "adapter/tls_app.h"
#include "base/text.h"
#include "config/format.h"
#include "config/jsonx.h"

static const char *const log_keys[] = {"writer", "encoder", "core", "level", "sampling", "include",
                                       "exclude", NULL};

/* Each level of blocks is up to four of the document, which readers of JSON limit too. */
enum { NESTING_MAX = 200 };

static enum err refuse_token(struct adapt *a, const struct token *t, const char *why)
{
    diag_place(a->diag, t->file, t->line, t->column);
    return diag_fail(a->diag, SLICE_FMT ":%u: %s", SLICE_ARG(t->file), t->line, why);
}

/* A NUL could not stand in a member's name of the document. */
static enum err check_tokens(struct adapt *a, const struct token *t, size_t count)
{
    int nesting = 0;
    for (size_t i = 0; i < count; i++) {
        if (t[i].text.len > 0 && memchr(t[i].text.ptr, '\0', t[i].text.len) != NULL)
            return refuse_token(a, &t[i], "a word holds a NUL byte: remove it");
        nesting += token_opens(&t[i]) - token_closes(&t[i]);
        if (nesting > NESTING_MAX)
            return refuse_token(a, &t[i], "blocks are nested deeper than 200 levels: name some of "
                                          "them as routes, '&(name) { … }', and 'invoke' these");
    }
    return OK;
}

static enum err check_words(struct adapt *a, const struct server_blocks *blocks)
{
    for (size_t i = 0; i < blocks->count; i++) {
        const struct server_block *b = &blocks->items[i];
        TRY(check_tokens(a, b->keys, b->key_count));
        for (size_t k = 0; k < b->segment_count; k++)
            TRY(check_tokens(a, b->segments[k].items, b->segments[k].count));
    }
    return OK;
}

static enum err check_keys(struct adapt *a, const struct server_blocks *blocks)
{
    for (size_t i = 0; i < blocks->count; i++)
        for (size_t k = 0; k < blocks->items[i].key_count; k++) {
            const struct token *t = &blocks->items[i].keys[k];
            diag_place(a->diag, t->file, t->line, t->column);
            if (k == 0 && slice_starts(t->text, SLICE("@")))
                return diag_fail(a->diag,
                                 SLICE_FMT ":%u: cannot define a matcher outside of a site block: "
                                 "'" SLICE_FMT "'",
                                 SLICE_ARG(t->file), t->line, SLICE_ARG(t->text));
            if (directive_find(t->text) != NULL)
                return diag_fail(a->diag,
                                 SLICE_FMT ":%u: parsed '" SLICE_FMT "' as a site address, but it "
                                 "is a known directive; directives must appear in a site block",
                                 SLICE_ARG(t->file), t->line, SLICE_ARG(t->text));
        }
    diag_clear(a->diag);
    return OK;
}

/* --- named routes --- */

/* Of a lone route, Caddy takes the first handler only; a person is told, since it may surprise. */
static json_t *named_handlers(struct adapt *a, const struct token *name, const struct route *routes,
                              size_t count)
{
    json_t *list = j_array(a);
    if (count == 1 && json_array_size(routes[0].match) == 0) {
        j_append(list, json_array_get(routes[0].handle, 0));
        if (json_array_size(routes[0].handle) > 1)
            adapt_warn(a, name, SLICE("named route"),
                       "only the first of its directives takes effect, as in Caddy; to have all of "
                       "them, put them into a 'route' block");
    } else
        j_append(list, j_module(a, "handler", "subroute", subroute_handler(a, routes, count)));
    return list;
}

static enum err read_named_route(struct adapt *a, struct server_block *block,
                                 struct counter *groups)
{
    struct tokens whole = {0};
    struct block_state state = {0};
    struct route *routes;
    size_t count;
    struct named_route *n = ARENA_NEW(a->arena, struct named_route);
    for (size_t i = 0; i < block->segment_count; i++) {
        struct segment *s = &block->segments[i];
        shorthands_apply(a->arena, s->items, s->count);
        TRY(tokens_add_all(a->arena, &whole, s->items, s->count));
    }
    struct helper h = {.a = a, .block = &state, .parent = block, .groups = groups};
    dispenser_init(&h.d, whole.items, whole.count, a->arena, a->diag);
    a->invoked = &n->invoked;
    TRY(helper_subroute(&h, true, &routes, &count));
    n->name = block->keys[0].text;
    n->route.handle = named_handlers(a, &block->keys[0], routes, count);
    for (const struct named_route *o = a->named_routes; o != NULL; o = o->next)
        if (slice_eq(o->name, n->name))
            return diag_fail(a->diag, "cannot have duplicate named_routes: " SLICE_FMT,
                             SLICE_ARG(n->name));
    n->next = a->named_routes;
    a->named_routes = n;
    return OK;
}

/* --- sites --- */

static enum err read_matchers(struct adapt *a, const struct server_block *block,
                              const struct matcher_def **defs)
{
    for (size_t i = 0; i < block->segment_count; i++)
        if (slice_starts(segment_name(&block->segments[i]), SLICE("@"))) {
            struct dispenser d = segment_dispenser(&block->segments[i], a->arena, a->diag);
            TRY(matcher_define(a, &d, defs));
        }
    return OK;
}

static void sort_in(struct adapt *a, struct site *site, const struct values *given,
                    struct slice directive)
{
    for (size_t i = 0; i < given->count; i++) {
        struct config_value *v = &given->items[i];
        struct values *list = v->kind == VALUE_ERRORS ? &site->errors
                              : v->kind == VALUE_BIND ? &site->binds
                              : v->kind == VALUE_LOG  ? &site->logs
                              : v->kind == VALUE_TLS  ? &site->tls
                              : v->kind == VALUE_CA   ? &site->authorities
                                                      : &site->routes;
        v->directive = slice_is(directive, "handle_path") ? SLICE("handle") : directive;
        *values_add(a, list, v->kind) = *v;
    }
}

static enum err unknown_directive(struct adapt *a, const struct server_block *block,
                                  const struct token *t)
{
    const char *hint = foreign_directive(t->text);
    const char *near = hint == NULL ? directive_near(t->text) : NULL;
    diag_place(a->diag, t->file, t->line, t->column);
    return diag_fail(a->diag, SLICE_FMT ":%u: unrecognized directive: " SLICE_FMT "%s%s%s%s",
                     SLICE_ARG(t->file), t->line, SLICE_ARG(t->text),
                     hint != NULL   ? " - "
                     : near != NULL ? " - did you mean '"
                                    : "",
                     hint != NULL   ? hint
                     : near != NULL ? near
                                    : "",
                     near != NULL ? "'?" : "",
                     block->has_braces ? ""
                                       : "\nDid you mean to define a second site? If so, you must "
                                         "use curly braces around each site to separate their "
                                         "configurations.");
}

static enum err read_site(struct adapt *a, struct site *site, struct block_state *state)
{
    struct server_block *block = site->block;
    const struct matcher_def *defs = NULL;
    for (size_t i = 0; i < block->segment_count; i++)
        shorthands_apply(a->arena, block->segments[i].items, block->segments[i].count);
    if (block->key_count == 0)
        return diag_fail(a->diag, "server block without any key is global configuration, and if "
                                  "used, it must be first");
    TRY(read_matchers(a, block, &defs));
    a->invoked = &site->invoked;
    for (size_t i = 0; i < block->segment_count; i++) {
        struct values given = {0};
        struct slice name = segment_name(&block->segments[i]);
        if (slice_starts(name, SLICE("@")))
            continue;
        const struct directive *dir = directive_find(name);
        if (dir == NULL)
            return unknown_directive(a, block, &block->segments[i].items[0]);
        struct helper h = {.d = segment_dispenser(&block->segments[i], a->arena, a->diag),
                           .a = a, .defs = defs, .block = state, .parent = block,
                           .groups = &a->groups};
        enum err e = directive_run(dir, &h, &given);
        if (e != OK) {
            diag_prefix(a, "parsing caddyfile tokens for '" SLICE_FMT "'", SLICE_ARG(name));
            return e;
        }
        sort_in(a, site, &given, name);
    }
    return OK;
}

static enum err read_blocks(struct adapt *a, struct server_blocks *blocks, struct site **sites,
                            size_t *count)
{
    struct block_state state = {0};
    struct counter named_groups = {0};
    size_t first = 0;
    if (blocks->count > 0 && blocks->items[0].key_count == 0) {
        TRY(options_read(a, &blocks->items[0]));
        first = 1;
    }
    for (size_t i = first; i < blocks->count; i++)
        if (blocks->items[i].is_named_route && blocks->items[i].segment_count > 0)
            TRY(read_named_route(a, &blocks->items[i], &named_groups));
    *sites = ARENA_ARRAY(a->arena, struct site, blocks->count + 1);
    for (size_t i = first; i < blocks->count; i++) {
        if (blocks->items[i].is_named_route)
            continue;
        (*sites)[*count].block = &blocks->items[i];
        TRY(read_site(a, &(*sites)[(*count)++], &state));
    }
    return OK;
}

/* --- logging --- */

struct logs {
    struct log_value **items;
    size_t count;
    bool has_default;
};

static void add_log(struct adapt *a, struct logs *l, struct log_value *v)
{
    if (v->name.len == 0)
        return;
    l->has_default = l->has_default || slice_is(v->name, "default");
    if (a->options.debug && v->log != NULL && json_object_get(v->log, "level") == NULL)
        j_put_text(a, v->log, "level", SLICE("DEBUG"));
    l->items[l->count++] = v;
}

static void exclude(struct adapt *a, json_t *all, const json_t *names)
{
    json_t *log = j_at(a, all, "default");
    for (size_t i = 0; i < json_array_size(names); i++) {
        json_t *list = json_object_get(log, "exclude"), *out = j_array(a);
        json_t *name = json_array_get(names, i);
        const char *text = json_string_value(name);
        bool placed = false;
        for (size_t k = 0; k < json_array_size(list); k++) {
            json_t *old = json_array_get(list, k);
            int order = strcmp(text, json_string_value(old));
            if (order <= 0 && !placed)
                j_append(out, name);
            placed = placed || order <= 0;
            if (order != 0)
                j_append(out, old);
        }
        if (!placed)
            j_append(out, name);
        j_set(a, log, "exclude", out);
    }
}

static json_t *logging_json(struct adapt *a, struct logs *l)
{
    json_t *all = j_object(a), *out = j_object(a), *log;
    const char *name;
    for (size_t i = 0; i < l->count; i++)
        if (slice_is(l->items[i]->name, "default") && l->items[i]->log != NULL) {
            json_t *copy = keep(a, json_copy(l->items[i]->log));
            json_t *list = json_object_get(copy, "exclude");
            json_object_del(copy, "exclude");
            j_set(a, all, "default", copy);
            if (list != NULL)
                j_set(a, copy, "exclude", list);
            break;
        }
    for (size_t i = 0; i < l->count; i++) {
        const struct log_value *v = l->items[i];
        if (v->log == NULL || slice_is(v->name, "default"))
            continue;
        j_set_key(a, all, v->name, v->log);
        if (json_object_get(v->log, "include") != NULL)
            exclude(a, all, json_object_get(v->log, "include"));
    }
    if (json_object_size(all) == 0)
        return NULL;
    json_object_foreach(all, name, log)
        j_set(a, out, name, j_ordered(a, log, log_keys));
    log = j_object(a);
    j_set(a, log, "logs", j_by_name(a, out));
    return log;
}

static json_t *build_logging(struct adapt *a, const struct pairing *pairings, size_t count)
{
    const struct options *o = &a->options;
    size_t most = o->log_count + 1;
    for (size_t i = 0; i < count; i++)
        for (size_t s = 0; s < pairings[i].site_count; s++)
            most += pairings[i].sites[s].site->logs.count;
    struct logs l = {.items = ARENA_ARRAY(a->arena, struct log_value *, most)};
    for (size_t i = 0; i < o->log_count; i++)
        add_log(a, &l, o->logs[i]);
    if (!l.has_default && o->debug) {
        struct log_value *v = ARENA_NEW(a->arena, struct log_value);
        v->name = SLICE("default");
        v->log = j_object(a);
        add_log(a, &l, v);
    }
    for (size_t i = 0; i < count; i++)
        for (size_t s = 0; s < pairings[i].site_count; s++) {
            const struct values *logs = &pairings[i].sites[s].site->logs;
            for (size_t k = 0; k < logs->count; k++)
                add_log(a, &l, logs->items[k].log);
        }
    return logging_json(a, &l);
}

/* --- the document --- */

static json_t *http_app(struct adapt *a, json_t *servers)
{
    const struct options *o = &a->options;
    json_t *http = j_object(a);
    j_put_int(a, http, "http_port", o->http_port);
    j_put_int(a, http, "https_port", o->https_port);
    j_put_int(a, http, "grace_period", o->grace_period);
    j_put_int(a, http, "shutdown_delay", o->shutdown_delay);
    j_set(a, http, "servers", servers);
    if (o->metrics != NULL)
        j_set(a, http, "metrics", o->metrics);
    return http;
}

static json_t *admin_json(struct adapt *a)
{
    json_t *admin = a->options.admin;
    if (!a->options.persist_off)
        return admin;
    admin = admin != NULL ? admin : j_object(a);
    j_set(a, j_at(a, admin, "config"), "persist", json_false());
    return admin;
}

static void note_site(struct adapt *a, struct slice address, const struct placed_site *p)
{
    const struct server_block *block = p->site->block;
    struct slice path = arena_printf(a->arena, "listen " SLICE_FMT, SLICE_ARG(address));
    for (size_t k = 0; k < p->count; k++) {
        size_t t = 0;
        while (t + 1 < block->key_count && block->keys[t].text.ptr != p->keys[k].ptr)
            t++;
        adapt_origin(a, path, p->keys[k], block->keys[t].file, block->keys[t].line);
    }
}

/* The sites of each listening address, by the line of the key that put them there. */
static void note_listeners(struct adapt *a, const struct pairing *pairings, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t l = 0; l < pairings[i].listener_count; l++)
            for (size_t s = 0; s < pairings[i].site_count; s++)
                note_site(a, pairings[i].listeners[l].address, &pairings[i].sites[s]);
}

static enum err build_document(struct adapt *a, struct site *sites, size_t site_count,
                               json_t **out)
{
    struct pairing *pairings;
    size_t count;
    json_t *servers, *tls, *services, *apps = j_object(a), *document = j_object(a);
    TRY(services_app_build(a, &services));
    TRY(sites_place(a, sites, site_count, &pairings, &count));
    note_listeners(a, pairings, count);
    TRY(servers_build(a, pairings, count, &servers));
    TRY(tls_app_build(a, pairings, count, &tls));
    json_t *pki = pki_app_build(a, pairings, count);
    json_t *admin = admin_json(a), *logging = build_logging(a, pairings, count);
    if (admin != NULL)
        j_set(a, document, "admin", admin);
    if (logging != NULL)
        j_set(a, document, "logging", logging);
    if (a->options.storage != NULL)
        j_set(a, document, "storage", a->options.storage);
    if (a->options.events != NULL)
        j_set(a, apps, "events", a->options.events);
    if (count > 0)
        j_set(a, apps, "http", http_app(a, servers));
    if (pki != NULL)
        j_set(a, apps, "pki", pki);
    if (a->options.ports != NULL)
        j_set(a, apps, "ports", a->options.ports);
    if (services != NULL)
        j_set(a, apps, "services", services);
    if (tls != NULL)
        j_set(a, apps, "tls", tls);
    if (json_object_size(apps) > 0)
        j_set(a, document, "apps", apps);
    if (a->options.user.len > 0)
        j_put_text(a, j_at(a, document, "portico"), "user", a->options.user);
    if (a->options.sandbox)
        j_set(a, j_at(a, document, "portico"), "sandbox", json_true());
    *out = document;
    return OK;
}

static void warn_format(struct adapt *a, struct slice file_name, struct slice body)
{
    unsigned line;
    if (!caddyfile_format_differs(body, &line))
        return;
    struct token place = {.file = file_name, .line = line};
    adapt_warn(a, &place, SLICE_NONE,
               "Caddyfile input is not formatted; run 'caddy fmt --overwrite' to fix "
               "inconsistencies");
}

static enum err adapt_all(struct adapt *a, struct slice file_name, struct slice body,
                          json_t **document)
{
    struct server_blocks blocks = {0};
    struct site *sites;
    size_t count = 0, order_count;
    const char *const *order = directive_default_order(&order_count);
    a->order = ARENA_ARRAY(a->arena, const char *, order_count + directive_count() + 1);
    memcpy(a->order, order, order_count * sizeof *order);
    a->order_count = order_count;
    TRY((a->alone ? caddyfile_parse_alone : caddyfile_parse)(a->arena, file_name, body, &blocks,
                                                             a->diag));
    TRY(check_words(a, &blocks));
    TRY(check_keys(a, &blocks));
    TRY(read_blocks(a, &blocks, &sites, &count));
    TRY(build_document(a, sites, count, document));
    warn_format(a, file_name, body);
    return OK;
}

/* Sentences quote what a file holds, and may have cut it within a character. */
static void clean_sentence(struct diag *d)
{
    size_t len = strlen(d->text);
    for (size_t i = 0, n; i < len; i += n > 0 ? n : 1)
        if ((n = utf8_decode(slice_of(d->text + i, len - i), NULL)) == 0)
            d->text[i] = '?';
}

static enum err adapt(bool alone, struct slice file_name, struct slice body, json_t **document,
                      json_t **warnings, struct origins *origins, struct diag *diag)
{
    struct arena arena;
    struct diag own;
    arena_init(&arena, 65536);
    diag = diag != NULL ? diag : &own;
    diag_clear(diag);
    struct adapt a = {.arena = &arena, .diag = diag, .warnings = json_array(), .alone = alone,
                      .origins = origins};
    map_init(&a.cert_tags, false);
    *document = *warnings = NULL;
    file_name = file_name.len > 0 ? file_name : SLICE("Caddyfile");
    enum err e = adapt_all(&a, file_name, body, document);
    if (e == OK) {
        *document = json_deep_copy(*document);
        *warnings = json_deep_copy(a.warnings);
    }
    if (e != OK)
        clean_sentence(diag);
    json_decref(a.warnings);
    for (struct kept *k = a.kept; k != NULL; k = k->next)
        json_decref(k->value);
    map_deinit(&a.cert_tags);
    arena_deinit(&arena);
    return e;
}

enum err adapt_caddyfile(struct slice file_name, struct slice body, json_t **document,
                         json_t **warnings, struct diag *diag)
{
    return adapt(false, file_name, body, document, warnings, NULL, diag);
}

enum err adapt_caddyfile_origins(struct slice file_name, struct slice body, json_t **document,
                                 json_t **warnings, struct origins *origins, struct diag *diag)
{
    enum err e = adapt(false, file_name, body, document, warnings, origins, diag);
    if (origins != NULL)
        origins_sort(origins);
    return e;
}

enum err adapt_caddyfile_alone(struct slice file_name, struct slice body, json_t **document,
                               json_t **warnings, struct diag *diag)
{
    return adapt(true, file_name, body, document, warnings, NULL, diag);
}
