/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole way: blocks, global options, named routes, each site's directives, servers, logs, and
 * the document. Every JSON value on the way belongs to the adaptation; the document that comes out
 * is the caller's.
 */
#include "adapter/adapter.h"

#include "adapter/directives.h"
#include "adapter/sites.h"
#include "base/check.h"
#include "base/mem.h"
#include "config/jsonx.h"

/* --- before directives run --- */

static enum err check_keys(struct adapt *a, const struct server_block *b)
{
    for (size_t i = 0; i < b->key_count; i++) {
        const struct token *k = &b->keys[i];
        diag_place(a->diag, k->file, k->line, k->column);
        if (i == 0 && slice_starts(k->text, SLICE("@")))
            return diag_fail(a->diag, SLICE_FMT ":%u: cannot define a matcher outside of a site "
                             "block: '" SLICE_FMT "'", SLICE_ARG(k->file), k->line,
                             SLICE_ARG(k->text));
        if (directive_find(k->text) != NULL || directive_is_planned(k->text))
            return diag_fail(a->diag, SLICE_FMT ":%u: parsed '" SLICE_FMT "' as a site address, but "
                             "it is a known directive; directives must appear in a site block",
                             SLICE_ARG(k->file), k->line, SLICE_ARG(k->text));
    }
    diag_place(a->diag, SLICE_NONE, 0, 0);
    return OK;
}

static struct helper new_helper(struct adapt *a, const struct server_block *b,
                                const struct matcher_def *defs, struct block_state *state,
                                struct counter *groups)
{
    return (struct helper){.a = a, .defs = defs, .block = state, .parent = b, .groups = groups};
}

/* --- named routes --- */

static enum err read_named_route(struct adapt *a, const struct server_block *b,
                                 struct counter *groups)
{
    struct named_route *n = ARENA_NEW(a->arena, struct named_route);
    struct block_state state = {0};
    struct tokens all = {0};
    struct route *routes;
    size_t count;
    if (b->segment_count == 0)
        return OK;
    for (size_t i = 0; i < b->segment_count; i++) {
        shorthands_apply(a->arena, b->segments[i].items, b->segments[i].count);
        TRY(tokens_add_all(a->arena, &all, b->segments[i].items, b->segments[i].count));
    }
    n->name = b->keys[0].text;
    for (const struct named_route *o = a->named_routes; o != NULL; o = o->next)
        if (slice_eq(o->name, n->name))
            return diag_fail(a->diag, "cannot have duplicate named_routes: " SLICE_FMT,
                             SLICE_ARG(n->name));
    struct helper h = new_helper(a, b, NULL, &state, groups);
    dispenser_init(&h.d, all.items, all.count, a->arena, a->diag);
    a->invoked = &n->invoked;
    TRY(helper_subroute(&h, true, &routes, &count));
    n->route.handle = j_array(a);
    bool simple = count == 1 && json_array_size(routes[0].match) == 0;
    j_append(n->route.handle,
             simple ? json_array_get(routes[0].handle, 0)
                    : j_module(a, "handler", "subroute", subroute_handler(a, routes, count)));
    n->next = a->named_routes;
    a->named_routes = n;
    return OK;
}

/* --- sites --- */

static enum err unknown_directive(struct adapt *a, const struct server_block *b,
                                  const struct token *t)
{
    diag_place(a->diag, t->file, t->line, t->column);
    if (directive_is_planned(t->text))
        return diag_fail(a->diag, SLICE_FMT ":%u: directive not supported yet by this version of "
                         "portico: " SLICE_FMT, SLICE_ARG(t->file), t->line, SLICE_ARG(t->text));
    return diag_fail(a->diag, SLICE_FMT ":%u: unrecognized directive: " SLICE_FMT "%s",
                     SLICE_ARG(t->file), t->line, SLICE_ARG(t->text),
                     b->has_braces ? ""
                                   : "\nDid you mean to define a second site? If so, you must use "
                                     "curly braces around each site to separate their "
                                     "configurations.");
}

static enum err run_segment(struct helper *h, const struct segment *s, struct site *site)
{
    struct adapt *a = h->a;
    struct slice name = segment_name(s);
    const struct directive *dir = directive_find(name);
    size_t first = site->pile.count;
    if (dir == NULL)
        return unknown_directive(a, h->parent, &s->items[0]);
    h->d = segment_dispenser(s, a->arena, a->diag);
    enum err e = directive_run(dir, h, &site->pile);
    if (e != OK) {
        char *why = arena_str(a->arena, slice_from(a->diag->text));
        if (a->diag->line == 0)
            diag_place(a->diag, s->items[0].file, s->items[0].line, s->items[0].column);
        diag_say(a->diag, "parsing caddyfile tokens for '" SLICE_FMT "': %s", SLICE_ARG(name), why);
        return e;
    }
    for (size_t i = first; i < site->pile.count; i++)
        site->pile.items[i].directive = slice_is(name, "handle_path") ? SLICE("handle") : name;
    return OK;
}

static enum err read_site(struct adapt *a, const struct server_block *b, struct counter *groups,
                          struct block_state *state, struct site *site)
{
    const struct matcher_def *defs = NULL;
    site->block = b;
    for (size_t i = 0; i < b->segment_count; i++)
        shorthands_apply(a->arena, b->segments[i].items, b->segments[i].count);
    if (b->key_count == 0)
        return diag_fail(a->diag, "server block without any key is global configuration, and if "
                                  "used, it must be first");
    for (size_t i = 0; i < b->segment_count; i++) {
        if (!slice_starts(segment_name(&b->segments[i]), SLICE("@")))
            continue;
        struct dispenser d = segment_dispenser(&b->segments[i], a->arena, a->diag);
        TRY(matcher_define(a, &d, &defs));
    }
    struct helper h = new_helper(a, b, defs, state, groups);
    a->invoked = &site->invoked;
    for (size_t i = 0; i < b->segment_count; i++)
        if (!slice_starts(segment_name(&b->segments[i]), SLICE("@")))
            TRY(run_segment(&h, &b->segments[i], site));
    return OK;
}

static enum err read_sites(struct adapt *a, const struct server_blocks *blocks, size_t first,
                           struct counter *groups, struct site **sites, size_t *count)
{
    struct counter named_groups = {0};
    struct block_state state = {0};
    *sites = ARENA_ARRAY(a->arena, struct site, blocks->count + 1);
    *count = 0;
    for (size_t i = first; i < blocks->count; i++)
        if (blocks->items[i].is_named_route)
            TRY(read_named_route(a, &blocks->items[i], &named_groups));
    for (size_t i = first; i < blocks->count; i++)
        if (!blocks->items[i].is_named_route)
            TRY(read_site(a, &blocks->items[i], groups, &state, &(*sites)[(*count)++]));
    return OK;
}

/* --- logs --- */

struct log_list {
    struct log_value **items;
    size_t count;
};

static void add_log(struct adapt *a, struct log_list *list, struct log_value *v)
{
    if (v->name.len == 0)
        return;
    if (a->options.debug && v->log != NULL && json_object_get(v->log, "level") == NULL)
        j_put_text(a, v->log, "level", SLICE("DEBUG"));
    struct log_value **all = ARENA_ARRAY(a->arena, struct log_value *, list->count + 1);
    if (list->count > 0)
        memcpy(all, list->items, list->count * sizeof *all);
    all[list->count++] = v;
    list->items = all;
}

static void gather_logs(struct adapt *a, const struct pairing *p, size_t count,
                        struct log_list *list)
{
    bool has_default = false;
    for (size_t i = 0; i < a->options.log_count; i++) {
        add_log(a, list, a->options.logs[i]);
        has_default |= slice_is(a->options.logs[i]->name, "default");
    }
    if (!has_default && a->options.debug) {
        struct log_value *v = ARENA_NEW(a->arena, struct log_value);
        v->name = SLICE("default");
        v->log = j_object(a);
        add_log(a, list, v);
    }
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < p[i].site_count; k++) {
            const struct values *pile = &p[i].sites[k].site->pile;
            for (size_t n = 0; n < pile->count; n++)
                if (pile->items[n].kind == VALUE_LOG)
                    add_log(a, list, pile->items[n].log);
        }
}

/* The default log leaves out what logs of their own take. */
static void exclude(struct adapt *a, json_t *logs, const json_t *include)
{
    json_t *log = json_object_get(logs, "default");
    if (log == NULL) {
        log = j_object(a);
        j_set(a, logs, "default", log);
    }
    json_t *set = j_object(a), *list = j_array(a);
    const char *name;
    json_t *ignored;
    const json_t *lists[] = {json_object_get(log, "exclude"), include};
    for (int l = 0; l < 2; l++)
        for (size_t i = 0; i < json_array_size(lists[l]); i++)
            j_set(a, set, json_string_value(json_array_get(lists[l], i)), json_true());
    set = keep(a, jsonx_sorted_keys(set));
    json_object_foreach(set, name, ignored)
        j_append_text(a, list, slice_from(name));
    j_set(a, log, "exclude", list);
}

/* A log's members in the order of Caddy's struct: "level" may have come last. */
static json_t *ordered_log(struct adapt *a, const json_t *log)
{
    static const char *const order[] = {"writer", "encoder", "level", "sampling", "include",
                                        "exclude"};
    json_t *out = j_object(a);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        json_t *v = json_object_get(log, order[i]);
        if (v != NULL)
            j_set(a, out, order[i], v);
    }
    return out;
}

static json_t *logging_json(struct adapt *a, const struct log_list *list)
{
    json_t *logs = j_object(a), *logging = j_object(a);
    const char *name;
    json_t *log;
    for (size_t i = 0; i < list->count; i++)
        if (slice_is(list->items[i]->name, "default") && list->items[i]->log != NULL &&
            json_object_get(logs, "default") == NULL)
            j_set(a, logs, "default", list->items[i]->log);
    for (size_t i = 0; i < list->count; i++) {
        const struct log_value *v = list->items[i];
        if (v->log == NULL || slice_is(v->name, "default"))
            continue;
        j_set_key(a, logs, v->name, v->log);
        const json_t *include = json_object_get(v->log, "include");
        if (json_array_size(include) > 0)
            exclude(a, logs, include);
    }
    logs = keep(a, jsonx_sorted_keys(logs));
    json_object_foreach(logs, name, log)
        j_set(a, logs, name, ordered_log(a, log));
    if (json_object_size(logs) == 0)
        return NULL;
    j_set(a, logging, "logs", logs);
    return logging;
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
    json_t *admin = a->options.admin, *config = j_object(a);
    if (!a->options.persist_off)
        return admin;
    if (admin == NULL)
        admin = j_object(a);
    j_set(a, config, "persist", json_false());
    j_set(a, admin, "config", config);
    return admin;
}

static enum err build_document(struct adapt *a, const struct server_blocks *blocks, json_t **out)
{
    struct counter groups = {0};
    struct site *sites;
    struct pairing *pairings;
    struct log_list logs = {0};
    size_t first = 0, count, pairing_count;
    json_t *servers, *apps = j_object(a), *document = j_object(a);
    for (size_t i = 0; i < blocks->count; i++)
        TRY(check_keys(a, &blocks->items[i]));
    if (blocks->count > 0 && blocks->items[0].key_count == 0) {
        TRY(options_read(a, &blocks->items[0]));
        first = 1;
    }
    TRY(read_sites(a, blocks, first, &groups, &sites, &count));
    TRY(sites_map(a, sites, count, &pairings, &pairing_count));
    TRY(servers_build(a, pairings, pairing_count, &groups, &servers));
    gather_logs(a, pairings, pairing_count, &logs);
    json_t *admin = admin_json(a), *logging = logging_json(a, &logs);
    if (admin != NULL)
        j_set(a, document, "admin", admin);
    if (logging != NULL)
        j_set(a, document, "logging", logging);
    if (a->options.storage != NULL)
        j_set(a, document, "storage", a->options.storage);
    if (json_object_size(servers) > 0)
        j_set(a, apps, "http", http_app(a, servers));
    if (json_object_size(apps) > 0)
        j_set(a, document, "apps", apps);
    *out = document;
    return OK;
}

static void drop_kept(struct adapt *a)
{
    for (struct kept *k = a->kept; k != NULL; k = k->next)
        json_decref(k->value);
}

enum err adapt_caddyfile(struct slice file_name, struct slice body, json_t **document,
                         json_t **warnings, struct diag *diag)
{
    struct arena arena;
    struct server_blocks blocks;
    struct diag unheard;
    if (diag == NULL)
        diag = &unheard;
    arena_init(&arena, 65536);
    diag_clear(diag);
    struct adapt a = {.arena = &arena, .diag = diag};
    *document = *warnings = NULL;
    a.warnings = j_array(&a);
    a.order = (const char **)(uintptr_t)directive_default_order(&a.order_count);
    enum err e = caddyfile_parse(&arena, file_name, body, &blocks, diag);
    json_t *built = NULL;
    if (e == OK)
        e = build_document(&a, &blocks, &built);
    if (e == OK) {
        *document = json_incref(built);
        *warnings = json_incref(a.warnings);
    }
    drop_kept(&a);
    arena_deinit(&arena);
    return e;
}
