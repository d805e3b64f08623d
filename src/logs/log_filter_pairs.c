/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters that look into a field: query (parameters of a URI), cookie (the request's), set_cookie
 * (the response's). Each has a list of actions by name; replace, hash or delete.
 *
 *     {"filter": "query", "actions": [{"type": "replace", "parameter": "token", "value": "x"},
 *                                     {"type": "hash", "parameter": "user"}]}
 *     {"filter": "cookie", "actions": [{"type": "delete", "name": "session"}]}
 */
#include <stdlib.h>

#include "http/uri.h"
#include "logs/filter_text.h"
#include "logs/filters.h"

enum { PAIRS_MAX = 1000 };

struct action {
    enum { REPLACE, HASH, DELETE } type;
    struct slice name, value;
};

struct actions {
    struct action *items;
    size_t count;
};

static enum err read_action(struct action *a, const json_t *json, const char *name_key,
                            struct provision *p)
{
    const char *const members[] = {"type", name_key, "value", NULL};
    struct slice type;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "type", SLICE(""), &type));
    TRY(provision_text(p, json, name_key, SLICE(""), &a->name));
    TRY(provision_text(p, json, "value", SLICE(""), &a->value));
    a->type = slice_is(type, "replace") ? REPLACE : slice_is(type, "hash") ? HASH : DELETE;
    return a->type != DELETE || slice_is(type, "delete") ? OK
                                                         : provision_fail(p, "invalid action type");
}

static enum err read_actions(struct actions *a, const json_t *json, const char *name_key,
                             struct provision *p)
{
    static const char *const members[] = {"filter", "actions", NULL};
    TRY(provision_members(p, json, members));
    const json_t *list = json_object_get(json, "actions");
    if (list != NULL && !json_is_null(list) && !json_is_array(list))
        return provision_fail(p, "\"actions\" must be an array");
    a->items = ARENA_ARRAY(p->arena, struct action, json_array_size(list) + 1);
    for (size_t i = 0; i < json_array_size(list); i++) {
        TRY(read_action(&a->items[i], json_array_get(list, i), name_key, p));
        a->count++;
    }
    return OK;
}

static enum err provision_query(void *cfg, const json_t *json, struct provision *p)
{
    return read_actions(cfg, json, "parameter", p);
}

static enum err provision_cookies(void *cfg, const json_t *json, struct provision *p)
{
    return read_actions(cfg, json, "name", p);
}

/* --- query --- */

struct pair {
    struct slice key, value;
    size_t place;
    bool gone;
};

static int by_key(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    int order = slice_cmp(x->key, y->key);
    return order != 0 ? order : x->place < y->place ? -1 : 1;
}

/* Decoded; pairs that Go would not take are passed over. */
static size_t read_pairs(struct slice query, struct pair *pairs, struct arena *arena)
{
    struct slice one, rest = query, key, value;
    size_t n = 0;
    for (bool more = true; more && n < PAIRS_MAX;) {
        more = slice_cut(rest, '&', &one, &rest);
        if (one.len == 0 || slice_find(one, ';') != SIZE_MAX)
            continue;
        slice_cut(one, '=', &key, &value);
        if (query_decode(key, arena, &pairs[n].key) != OK ||
            query_decode(value, arena, &pairs[n].value) != OK)
            continue;
        pairs[n].place = n;
        pairs[n].gone = false;
        n++;
    }
    return n;
}

static void change_pair(const struct actions *a, struct pair *pair, struct arena *arena)
{
    for (size_t i = 0; i < a->count; i++) {
        const struct action *act = &a->items[i];
        if (pair->gone || !slice_eq(act->name, pair->key))
            continue;
        if (act->type == DELETE)
            pair->gone = true;
        else
            pair->value = act->type == REPLACE ? act->value
                                               : log_filter_hashed(pair->value, arena);
    }
}

static struct slice change_query(const void *cfg, struct slice uri, struct arena *arena)
{
    struct slice path, query, fragment = SLICE(""), hash = SLICE(""), rest;
    if (slice_cut(uri, '#', &rest, &fragment))
        hash = SLICE("#");
    if (!slice_cut(rest, '?', &path, &query))
        return uri;
    struct pair *pairs = arena_alloc(arena, PAIRS_MAX * sizeof *pairs);
    size_t n = read_pairs(query, pairs, arena), written = 0;
    for (size_t i = 0; i < n; i++)
        change_pair(cfg, &pairs[i], arena);
    qsort(pairs, n, sizeof *pairs, by_key);
    struct slice *parts = arena_alloc(arena, (4 * n + 4) * sizeof *parts);
    size_t count = 0;
    parts[count++] = path;
    for (size_t i = 0; i < n; i++) {
        if (pairs[i].gone)
            continue;
        parts[count++] = written++ == 0 ? SLICE("?") : SLICE("&");
        parts[count++] = query_escape(pairs[i].key, arena);
        parts[count++] = SLICE("=");
        parts[count++] = query_escape(pairs[i].value, arena);
    }
    if (query.len == 0) /* a lone '?' stays */
        parts[count++] = SLICE("?");
    parts[count++] = hash;
    parts[count++] = fragment;
    return arena_join(arena, parts, count);
}

static void filter_query(const void *cfg, struct log_field *f, struct arena *arena)
{
    log_filter_each(f, arena, change_query, cfg);
}

/* --- cookies --- */

static const struct action *find_action(const struct actions *a, struct slice name)
{
    for (size_t i = 0; i < a->count; i++) {
        if (slice_eq(a->items[i].name, name))
            return &a->items[i];
    }
    return NULL;
}

static struct slice unquoted(struct slice v)
{
    return v.len >= 2 && v.ptr[0] == '"' && v.ptr[v.len - 1] == '"' ? slice_of(v.ptr + 1, v.len - 2)
                                                                    : v;
}

/* One "name=value" of a Cookie field; false when it is none or goes. */
static bool change_cookie(const struct actions *a, struct slice one, struct arena *arena,
                          struct slice *out)
{
    struct slice name, value;
    one = slice_trim(one);
    if (!slice_cut(one, '=', &name, &value))
        value = SLICE("");
    if (name.len == 0)
        return false;
    const struct action *act = find_action(a, name);
    *out = act == NULL || value.len > 0 || one.len > name.len
               ? one : arena_join(arena, (struct slice[]){name, SLICE("=")}, 2);
    if (act == NULL)
        return true;
    if (act->type == DELETE)
        return false;
    value = act->type == REPLACE ? act->value : log_filter_hashed(unquoted(value), arena);
    *out = arena_join(arena, (struct slice[]){name, SLICE("="), value}, 3);
    return true;
}

static void filter_cookie(const void *cfg, struct log_field *f, struct arena *arena)
{
    struct slice done = SLICE(""), one, kept;
    size_t n = 0;
    if (f->kind != LOG_STRINGS)
        return;
    for (size_t i = 0; i < f->strings.count; i++) {
        struct slice rest = f->strings.items[i];
        for (bool more = true; more && n < PAIRS_MAX;) {
            more = slice_cut(rest, ';', &one, &rest);
            if (!change_cookie(cfg, one, arena, &kept))
                continue;
            done = arena_join(arena, (struct slice[]){done, n++ > 0 ? SLICE("; ") : SLICE(""),
                                                      kept}, 3);
        }
    }
    struct slice *item = arena_alloc(arena, sizeof *item);
    *item = done;
    f->strings.items = item;
    f->strings.count = n > 0 ? 1 : 0;
}

/* The value between '=' and ';' is exchanged; all behind stays byte for byte. False: it goes. */
static bool change_set_cookie(const struct actions *a, struct slice line, struct arena *arena,
                              struct slice *out)
{
    struct slice head, name, raw;
    size_t end = slice_find(line, ';');
    head = slice_take(line, end);
    *out = line;
    if (!slice_cut(head, '=', &name, &raw))
        return true;
    const struct action *act = find_action(a, slice_trim(name));
    if (act == NULL)
        return true;
    if (act->type == DELETE)
        return false;
    struct slice value = slice_trim(raw), quote = SLICE("");
    if (unquoted(value).len < value.len)
        quote = SLICE("\"");
    struct slice fresh = act->type == REPLACE ? act->value
                                              : log_filter_hashed(unquoted(value), arena);
    size_t lead = value.len > 0 ? (size_t)(value.ptr - raw.ptr) : raw.len;
    *out = arena_join(arena, (struct slice[]){slice_take(line, name.len + 1),
                                              slice_take(raw, lead), quote, fresh, quote,
                                              slice_skip(raw, lead + value.len),
                                              slice_skip(line, head.len)}, 7);
    return true;
}

static void filter_set_cookie(const void *cfg, struct log_field *f, struct arena *arena)
{
    if (f->kind != LOG_STRINGS)
        return;
    struct slice *items = arena_alloc(arena, (f->strings.count + 1) * sizeof *items);
    size_t n = 0;
    for (size_t i = 0; i < f->strings.count; i++)
        n += change_set_cookie(cfg, f->strings.items[i], arena, &items[n]);
    f->strings.items = items;
    f->strings.count = n;
}

static const struct log_filter_face query_face = {filter_query};
static const struct log_filter_face cookie_face = {filter_cookie};
static const struct log_filter_face set_cookie_face = {filter_set_cookie};

const struct module log_filter_query = {
    .id = "caddy.logging.encoders.filter.query", .cfg_size = sizeof(struct actions),
    .provision = provision_query, .face = &query_face};
const struct module log_filter_cookie = {
    .id = "caddy.logging.encoders.filter.cookie", .cfg_size = sizeof(struct actions),
    .provision = provision_cookies, .face = &cookie_face};
const struct module log_filter_set_cookie = {
    .id = "caddy.logging.encoders.filter.set_cookie", .cfg_size = sizeof(struct actions),
    .provision = provision_cookies, .face = &set_cookie_face};
