/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From directives to routes: a directive's matcher, blocks of
 * directives inside of directives, and the lists of routes that come of them.
 */
#include "adapter/directives.h"
#include "adapter/foreign_words.h"
#include "base/log.h"

/* --- values --- */

struct config_value *values_add(struct adapt *a, struct values *list, enum value_kind kind)
{
    if (list->count == list->cap) {
        list->cap = list->cap < 8 ? 8 : list->cap * 2;
        struct config_value *grown = ARENA_ARRAY(a->arena, struct config_value, list->cap);
        if (list->count > 0)
            memcpy(grown, list->items, list->count * sizeof *grown);
        list->items = grown;
    }
    struct config_value *v = &list->items[list->count++];
    *v = (struct config_value){.kind = kind};
    return v;
}

struct slice next_group(struct adapt *a, struct counter *c)
{
    return arena_printf(a->arena, "group%u", c->next++);
}

void helper_add_route(struct helper *h, struct values *out, json_t *set, json_t *handler,
                      const char *module)
{
    struct config_value *v = values_add(h->a, out, VALUE_ROUTE);
    v->route.handle = j_array(h->a);
    j_append(v->route.handle, j_module(h->a, "handler", module, handler));
    if (set != NULL) {
        v->route.match = j_array(h->a);
        j_append(v->route.match, set);
    }
}

static enum err matcher_of_word(struct helper *h, json_t **set, bool *is_matcher)
{
    struct slice word = dispenser_val(&h->d);
    *is_matcher = true;
    if (slice_is(word, "*"))
        return OK;
    if (slice_starts(word, SLICE("/"))) {
        *set = j_object(h->a);
        j_set(h->a, *set, "path", j_strings(h->a, &word, 1));
        return OK;
    }
    *is_matcher = false;
    if (!slice_starts(word, SLICE("@")))
        return OK;
    for (const struct matcher_def *m = h->defs; m != NULL; m = m->next)
        if (slice_eq(m->name, word)) {
            *is_matcher = true;
            *set = m->set;
            return OK;
        }
    return diag_fail(h->a->diag, "unrecognized matcher name: " SLICE_FMT, SLICE_ARG(word));
}

/* "php_fastcgi /run/php.sock", which names no upstream. */
static void warn_socket(const struct dispenser *d)
{
    struct slice word = dispenser_val(d);
    if (slice_starts(word, SLICE("/")) && slice_ends(word, SLICE(".sock")) && log_wants(LOG_WARN))
        LOG(LOG_WARN, "caddyfile", "this is a matcher of paths: the address of a Unix socket is written "
                                   "unix/ before its path", LOG_STR("word", word),
            LOG_STR("file", dispenser_file(d)), LOG_NUM("line", dispenser_line(d)));
}

enum err helper_matcher(struct helper *h, json_t **set)
{
    bool is_matcher = false;
    *set = NULL;
    if (dispenser_next_arg(&h->d))
        TRY(matcher_of_word(h, set, &is_matcher));
    if (is_matcher) {
        warn_socket(&h->d);
        dispenser_delete(&h->d);
    }
    dispenser_reset(&h->d);
    return OK;
}

enum err directive_run(const struct directive *dir, struct helper *h, struct values *out)
{
    json_t *set, *handler;
    if (dir->parse != NULL)
        return dir->parse(h, out);
    if (!dispenser_next(&h->d))
        return dispenser_arg_err(&h->d);
    TRY(helper_matcher(h, &set));
    TRY(dir->handler(h, &handler));
    helper_add_route(h, out, set, handler, dir->module);
    return OK;
}

/* --- blocks of directives --- */

static enum err unknown_inner(struct helper *h, const struct token *t)
{
    const char *hint = foreign_directive(t->text), *near = directive_near(t->text);
    enum err e = dispenser_err_f(&h->d,
                                 "unrecognized directive: " SLICE_FMT " - are you sure your "
                                 "Caddyfile structure (nesting and braces) is correct?",
                                 SLICE_ARG(t->text));
    if (hint != NULL)
        diag_append(h->a->diag, " - %s", hint);
    else if (near != NULL)
        diag_append(h->a->diag, " - did you mean '%s'?", near);
    diag_place(h->a->diag, t->file, t->line, t->column);
    return e;
}

static enum err run_inner(struct helper *h, const struct segment *s, const struct matcher_def *defs,
                          struct block_state *block, struct values *out)
{
    struct slice name = segment_name(s);
    const struct directive *dir = directive_find(name);
    if (dir == NULL)
        return unknown_inner(h, &s->items[0]);
    struct helper inner = *h;
    size_t first = out->count;
    inner.d = segment_dispenser(s, h->a->arena, h->a->diag);
    inner.defs = defs;
    inner.block = block;
    enum err e = directive_run(dir, &inner, out);
    if (e != OK) {
        /* The sentence names the outer line too; the place stays where it happened. */
        struct diag *at = h->a->diag;
        struct slice file = arena_copy(h->a->arena, slice_from(at->file));
        unsigned line = at->line, column = at->column;
        char *why = arena_str(h->a->arena, slice_from(at->text));
        e = dispenser_err_f(&h->d, "parsing caddyfile tokens for '" SLICE_FMT "': %s",
                            SLICE_ARG(name), why);
        if (line > 0)
            diag_place(at, file, line, column);
        return e;
    }
    for (size_t i = first; i < out->count; i++)
        out->items[i].directive = slice_is(name, "handle_path") ? SLICE("handle") : name;
    return OK;
}

static enum err one_block(struct helper *h, struct values *out)
{
    struct adapt *a = h->a;
    struct segment *segments = NULL;
    size_t count = 0, cap = 0;
    int nesting = dispenser_nesting(&h->d);
    const struct matcher_def *defs = NULL;
    struct block_state block = *h->block;
    while (dispenser_next_block(&h->d, nesting)) {
        struct tokens t = dispenser_next_segment(&h->d);
        if (count == cap) {
            cap = cap < 8 ? 8 : cap * 2;
            struct segment *grown = ARENA_ARRAY(a->arena, struct segment, cap);
            if (count > 0)
                memcpy(grown, segments, count * sizeof *grown);
            segments = grown;
        }
        segments[count++] = (struct segment){t.items, t.count};
    }
    defs = h->defs;
    for (size_t i = 0; i < count; i++)
        if (slice_starts(segment_name(&segments[i]), SLICE("@"))) {
            struct dispenser d = segment_dispenser(&segments[i], a->arena, a->diag);
            TRY(matcher_define(a, &d, &defs));
        }
    for (size_t i = 0; i < count; i++)
        if (!slice_starts(segment_name(&segments[i]), SLICE("@")))
            TRY(run_inner(h, &segments[i], defs, &block, out));
    return OK;
}

enum err helper_values(struct helper *h, struct values *out)
{
    while (dispenser_next(&h->d)) {
        if (dispenser_next_arg(&h->d))
            return dispenser_arg_err(&h->d);
        TRY(one_block(h, out));
    }
    return OK;
}

enum err helper_subroute(struct helper *h, bool sorted, struct route **routes, size_t *count)
{
    struct values all = {0};
    TRY(helper_values(h, &all));
    return build_routes(h->a, &all, h->groups, sorted, routes, count);
}

static json_t *route_json(struct adapt *a, const struct route *r)
{
    json_t *o = j_object(a);
    j_put_text(a, o, "group", r->group);
    if (r->match != NULL && json_array_size(r->match) > 0)
        j_set(a, o, "match", r->match);
    if (r->handle != NULL && json_array_size(r->handle) > 0)
        j_set(a, o, "handle", r->handle);
    j_put_bool(a, o, "terminal", r->terminal);
    return o;
}

json_t *routes_json(struct adapt *a, const struct route *routes, size_t count)
{
    json_t *list = j_array(a);
    for (size_t i = 0; i < count; i++)
        j_append(list, route_json(a, &routes[i]));
    return list;
}

json_t *subroute_handler(struct adapt *a, const struct route *routes, size_t count)
{
    json_t *o = j_object(a);
    if (count > 0)
        j_set(a, o, "routes", routes_json(a, routes, count));
    return o;
}

/* --- order and groups --- */

static size_t position(const struct adapt *a, struct slice directive)
{
    for (size_t i = 0; i < a->order_count; i++)
        if (slice_is(directive, a->order[i]))
            return i;
    return SIZE_MAX;
}

/* The only path of the only matcher set, or empty. */
static struct slice single_path(const struct route *r)
{
    if (r->match == NULL || json_array_size(r->match) != 1)
        return SLICE_NONE;
    const json_t *path = json_object_get(json_array_get(r->match, 0), "path");
    if (json_array_size(path) != 1)
        return SLICE_NONE;
    const json_t *text = json_array_get(path, 0);
    return slice_of(json_string_value(text), json_string_length(text));
}

static struct slice without_star(struct slice s)
{
    if (slice_ends(s, SLICE("*")))
        s.len--;
    return s;
}

static bool path_before(const struct route *x, const struct route *y)
{
    struct slice xp = single_path(x), yp = single_path(y);
    if (xp.len > 0 && yp.len > 0) {
        struct slice xt = without_star(xp), yt = without_star(yp);
        if (slice_eq(xt, yt))
            return xp.len < yp.len;
        if (xt.len == yt.len)
            return slice_cmp(xt, yt) < 0;
        return xt.len > yt.len;
    }
    return (x->match != NULL && json_array_size(x->match) > 0) &&
           (y->match == NULL || json_array_size(y->match) == 0);
}

static bool value_before(const void *first, const void *second, const void *context)
{
    const struct config_value *x = first, *y = second;
    if (!slice_eq(x->directive, y->directive))
        return position(context, x->directive) < position(context, y->directive);
    if (x->kind != VALUE_ROUTE || y->kind != VALUE_ROUTE)
        return false;
    bool before = path_before(&x->route, &y->route);
    return slice_is(x->directive, "vars") ? !before : before;
}

static bool same_json(const json_t *x, const json_t *y)
{
    return x == y || (x != NULL && y != NULL && json_equal(x, y));
}

/* Neighbours that differ in nothing but their handlers become one. */
size_t consolidate_routes(struct adapt *a, struct route *routes, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        struct route *last = kept > 0 ? &routes[kept - 1] : NULL;
        if (last == NULL || !same_json(last->match, routes[i].match) ||
            last->terminal != routes[i].terminal || !slice_eq(last->group, routes[i].group)) {
            routes[kept++] = routes[i];
            continue;
        }
        json_t *handle = keep(a, json_copy(last->handle != NULL ? last->handle : j_array(a)));
        if (routes[i].handle != NULL)
            json_array_extend(handle, routes[i].handle);
        last->handle = handle;
    }
    return kept;
}

/* Of several "handle", "rewrite" or "root", one at most is to take effect. A rewrite is in a group
 * of its own even when it is alone, so that it never melts into a neighbour. */
static void choose_groups(struct adapt *a, const struct values *v, struct counter *groups,
                          struct slice names[3])
{
    static const char *const exclusive[3] = {"handle", "rewrite", "root"};
    for (int e = 0; e < 3; e++) {
        size_t n = 0;
        for (size_t i = 0; i < v->count; i++)
            n += slice_is(v->items[i].directive, exclusive[e]);
        names[e] = n > 1 || e == 1 ? next_group(a, groups) : SLICE_NONE;
    }
}

static void flatten(const struct config_value *v, const struct slice groups[3], struct route *out,
                    size_t *count)
{
    if (v->kind == VALUE_ROUTES) {
        for (size_t i = 0; i < v->route_count; i++)
            out[(*count)++] = v->routes[i];
        return;
    }
    struct route r = v->route;
    if (slice_is(v->directive, "handle"))
        r.group = groups[0];
    else if (slice_is(v->directive, "rewrite"))
        r.group = groups[1];
    else if (slice_is(v->directive, "root"))
        r.group = groups[2];
    out[(*count)++] = r;
}

/* Its first upstream says which one it is. */
static void tell_unreached(const struct config_value *it)
{
    const json_t *proxy = json_array_get(it->route.handle, 0);
    const json_t *first = json_array_get(json_object_get(proxy, "upstreams"), 0);
    const char *dial = json_string_value(json_object_get(first, "dial"));
    LOG(LOG_WARN, "caddyfile", "no request comes to this reverse_proxy: the one before it has no matcher and "
        "answers all; give one of them a matcher, or name both upstreams in one",
        LOG_CSTR("upstream", dial != NULL ? dial : "dynamic"));
}

/* Behind a gateway without a matcher, unless it may go on from what it was answered. */
static void warn_unreached(struct values *v)
{
    bool all = false;
    for (size_t i = 0; i < v->count && !v->looked_at; i++) {
        const struct config_value *it = &v->items[i];
        const json_t *proxy = json_array_get(it->route.handle, 0);
        if (it->kind != VALUE_ROUTE || !slice_is(it->directive, "reverse_proxy"))
            continue;
        if (all)
            tell_unreached(it);
        all |= json_array_size(it->route.match) == 0 && proxy != NULL &&
               json_object_get(proxy, "handle_response") == NULL;
    }
    v->looked_at = true;
}

enum err build_routes(struct adapt *a, struct values *v, struct counter *counter, bool sorted,
                      struct route **routes, size_t *count)
{
    struct slice groups[3];
    size_t total = 0, n = 0;
    for (size_t i = 0; i < v->count; i++) {
        const struct config_value *it = &v->items[i];
        if (sorted && position(a, it->directive) == SIZE_MAX)
            return diag_fail(a->diag,
                             "directive '" SLICE_FMT "' is not an ordered HTTP handler, so it "
                             "cannot be used here - try placing within a route block or using the "
                             "order global option",
                             SLICE_ARG(it->directive));
        total += it->kind == VALUE_ROUTES ? it->route_count : it->kind == VALUE_ROUTE ? 1 : 0;
    }
    if (sorted)
        sort_stable(v->items, v->count, sizeof *v->items, value_before, a);
    warn_unreached(v);
    choose_groups(a, v, counter, groups);
    *routes = ARENA_ARRAY(a->arena, struct route, total + 1);
    for (size_t i = 0; i < v->count; i++)
        if (v->items[i].kind == VALUE_ROUTE || v->items[i].kind == VALUE_ROUTES)
            flatten(&v->items[i], groups, *routes, &n);
    *count = consolidate_routes(a, *routes, n);
    return OK;
}
