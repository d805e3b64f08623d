/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The query becomes a list of decoded pairs, is changed, and written back escaped, keys in order,
 * the values of one key in theirs. Malformed pairs are dropped, as Go drops them.
 *
 *     {"rename": [{"key": "a", "val": "b"}], "set": […], "add": […],
 *      "replace": [{"key": "*", "search": "x", "search_regexp": "", "replace": "y"}], "delete": ["c"]}
 */
#include "handlers/rewrite_query.h"

#include <stdlib.h>

#include "base/buffer.h"
#include "http/regexp.h"
#include "http/uri.h"

enum { PAIRS_MAX = 4096 };

struct query_op {
    struct template key, value, search; /* value: of replace, what it puts in */
    struct regexp *regexp;
};

struct op_list {
    struct query_op *ops;
    size_t count;
};

struct query_ops {
    struct op_list rename, set, add, replace, delete;
};

struct pair {
    struct slice key, value;
    size_t order;
};

struct pairs {
    struct pair *items;
    size_t count, cap;
    struct arena *arena;
};

static const char *const members[] = {"rename", "set", "add", "replace", "delete", NULL};
static const char *const pair_members[] = {"key", "val", NULL};
static const char *const replace_members[] = {"key", "search", "search_regexp", "replace", NULL};

/* --- provision --- */

static enum err read_pairs(struct op_list *l, const json_t *json, struct provision *p)
{
    size_t i;
    json_t *v;
    l->ops = ARENA_ARRAY(p->arena, struct query_op, json_array_size(json));
    json_array_foreach((json_t *)(uintptr_t)json, i, v)
    {
        struct query_op *op = &l->ops[l->count++];
        TRY(provision_members(p, v, pair_members));
        TRY(provision_template(p, v, "key", SLICE(""), &op->key));
        TRY(provision_template(p, v, "val", SLICE(""), &op->value));
    }
    return OK;
}

static enum err read_replacements(struct op_list *l, const json_t *json, struct provision *p)
{
    size_t i;
    json_t *v;
    l->ops = ARENA_ARRAY(p->arena, struct query_op, json_array_size(json));
    json_array_foreach((json_t *)(uintptr_t)json, i, v)
    {
        struct query_op *op = &l->ops[l->count++];
        struct slice pattern;
        TRY(provision_members(p, v, replace_members));
        TRY(provision_template(p, v, "key", SLICE(""), &op->key));
        TRY(provision_template(p, v, "search", SLICE(""), &op->search));
        TRY(provision_template(p, v, "replace", SLICE(""), &op->value));
        TRY(provision_text(p, v, "search_regexp", SLICE(""), &pattern));
        if (pattern.len > 0)
            TRY(regexp_compile(p, pattern, &op->regexp));
    }
    return OK;
}

static enum err read_names(struct op_list *l, const json_t *json, struct provision *p)
{
    struct slice *names;
    TRY(provision_texts(p, json, "delete", &names, &l->count));
    l->ops = ARENA_ARRAY(p->arena, struct query_op, l->count);
    for (size_t i = 0; i < l->count; i++)
        template_compile(&l->ops[i].key, names[i], p->arena);
    return OK;
}

enum err query_ops_provision(struct query_ops **out, const json_t *json, struct provision *p)
{
    struct query_ops *q = ARENA_NEW(p->arena, struct query_ops);
    *out = q; /* also on failure: what is compiled by then is released with it */
    TRY(provision_members(p, json, members));
    TRY(read_pairs(&q->rename, json_object_get(json, "rename"), p));
    TRY(read_pairs(&q->set, json_object_get(json, "set"), p));
    TRY(read_pairs(&q->add, json_object_get(json, "add"), p));
    TRY(read_replacements(&q->replace, json_object_get(json, "replace"), p));
    return read_names(&q->delete, json, p);
}

void query_ops_release(struct query_ops *q)
{
    for (size_t i = 0; q != NULL && i < q->replace.count; i++)
        regexp_free(q->replace.ops[i].regexp);
}

/* --- pairs --- */

static void add(struct pairs *p, struct slice key, struct slice value)
{
    if (p->count == PAIRS_MAX)
        return;
    if (p->count == p->cap) {
        size_t cap = p->cap == 0 ? 16 : p->cap * 2;
        struct pair *items = arena_alloc(p->arena, cap * sizeof *items);
        if (p->count > 0)
            memcpy(items, p->items, p->count * sizeof *items);
        p->items = items;
        p->cap = cap;
    }
    p->items[p->count] = (struct pair){key, value, p->count};
    p->count++;
}

static bool drop(struct pairs *p, struct slice key)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->count; i++) {
        if (!slice_eq(p->items[i].key, key))
            p->items[kept++] = p->items[i];
    }
    bool any = kept < p->count;
    p->count = kept;
    return any;
}

static bool has(const struct pairs *p, struct slice key)
{
    for (size_t i = 0; i < p->count; i++) {
        if (slice_eq(p->items[i].key, key))
            return true;
    }
    return false;
}

static void parse(struct pairs *p, struct slice query)
{
    struct slice rest = query, key, value;
    while (query_next(&rest, &key, &value)) {
        if (slice_find(key, ';') == SIZE_MAX && slice_find(value, ';') == SIZE_MAX &&
            query_decode(key, p->arena, &key) == OK && query_decode(value, p->arena, &value) == OK)
            add(p, key, value);
    }
}

static int by_key(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    int c = slice_cmp(x->key, y->key);
    return c != 0 ? c : (x->order > y->order) - (x->order < y->order);
}

static struct slice text_of(struct pairs *p)
{
    struct slice *parts = arena_alloc(p->arena, (p->count * 4 + 1) * sizeof *parts);
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++)
        p->items[i].order = i;
    if (p->count > 1)
        qsort(p->items, p->count, sizeof *p->items, by_key);
    for (size_t i = 0; i < p->count; i++) {
        if (i > 0)
            parts[n++] = SLICE("&");
        parts[n++] = query_escape(p->items[i].key, p->arena);
        parts[n++] = SLICE("=");
        parts[n++] = query_escape(p->items[i].value, p->arena);
    }
    return arena_join(p->arena, parts, n);
}

/* --- operations --- */

static void rename_keys(const struct op_list *l, struct pairs *p, struct exchange *x)
{
    for (size_t i = 0; i < l->count; i++) {
        struct slice from = template_expand(&l->ops[i].key, x);
        struct slice to = template_expand(&l->ops[i].value, x);
        if (from.len == 0 || to.len == 0 || slice_eq(from, to) || !has(p, from))
            continue;
        drop(p, to);
        for (size_t k = 0; k < p->count; k++) {
            if (slice_eq(p->items[k].key, from))
                p->items[k].key = to;
        }
    }
}

static void put_keys(const struct op_list *l, bool replace, struct pairs *p, struct exchange *x)
{
    for (size_t i = 0; i < l->count; i++) {
        struct slice key = template_expand(&l->ops[i].key, x);
        if (key.len == 0)
            continue;
        if (replace)
            drop(p, key);
        add(p, key, template_expand(&l->ops[i].value, x));
    }
}

static struct slice replace_all(struct slice in, struct slice find, struct slice with,
                                struct arena *arena)
{
    struct buffer b;
    size_t at;
    if (find.len == 0)
        return in;
    buffer_init(&b, 1 << 20);
    while ((at = slice_find_slice(in, find)) != SIZE_MAX) {
        (void)!buffer_append(&b, slice_take(in, at));
        (void)!buffer_append(&b, with);
        in = slice_skip(in, at + find.len);
    }
    (void)!buffer_append(&b, in);
    struct slice out = arena_copy(arena, buffer_slice(&b));
    buffer_deinit(&b);
    return out;
}

static enum err replace_values(const struct query_op *op, struct pairs *p, struct exchange *x)
{
    struct slice key = template_expand(&op->key, x);
    struct slice search = template_expand_known(&op->search, x);
    struct slice with = template_expand_known(&op->value, x);
    for (size_t i = 0; i < p->count; i++) {
        struct pair *pair = &p->items[i];
        if (!slice_is(key, "*") && !slice_eq(key, pair->key))
            continue;
        if (op->regexp == NULL)
            pair->value = replace_all(pair->value, search, with, p->arena);
        else if (regexp_replace(op->regexp, pair->value, with, p->arena, &pair->value) != OK)
            return exchange_fail(x, 500, "rewrite: a regular expression took too long to match");
    }
    return OK;
}

enum err query_ops_apply(const struct query_ops *q, struct exchange *x)
{
    struct pairs p = {.arena = x->arena};
    parse(&p, x->req.uri.query);
    rename_keys(&q->rename, &p, x);
    put_keys(&q->set, true, &p, x);
    put_keys(&q->add, false, &p, x);
    for (size_t i = 0; i < q->replace.count; i++)
        TRY(replace_values(&q->replace.ops[i], &p, x));
    for (size_t i = 0; i < q->delete.count; i++)
        drop(&p, template_expand(&q->delete.ops[i].key, x));
    x->req.uri.query = text_of(&p);
    x->req.uri.has_query = x->req.uri.query.len > 0;
    return OK;
}
