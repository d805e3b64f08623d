/* SPDX-License-Identifier: Apache-2.0 */
/*
 * header, query and vars: names with the values that are allowed; all names must match (of vars, as
 * in Caddy, any one), of each one value. In header values a star at the front or the end stands for
 * any text; an empty list asks that the field is there, null that it is not.
 *
 *     "header": {"Accept": ["*json*"], "X-Gone": null}    "query": {"page": ["*"]}
 *     "vars": {"{http.request.method}": ["GET"]}
 */
#include "handlers/handlers.h"
#include "http/response_match.h"
#include "http/uri.h"

struct wanted {
    struct slice raw_name;
    struct template name;
    struct template *values;
    size_t count;
    bool absent; /* null */
};

struct match_fields {
    struct wanted *items;
    size_t count;
};

static enum err read_values(struct wanted *w, const json_t *values, struct provision *p)
{
    size_t i;
    json_t *v;
    w->absent = json_is_null(values);
    if (w->absent)
        return OK;
    if (!json_is_array(values))
        return provision_fail(p, "the values must be an array of strings");
    w->values = ARENA_ARRAY(p->arena, struct template, json_array_size(values));
    json_array_foreach((json_t *)(uintptr_t)values, i, v)
    {
        if (!json_is_string(v))
            return provision_fail(p, "the values must be an array of strings");
        template_compile(&w->values[w->count++],
                         slice_of(json_string_value(v), json_string_length(v)), p->arena);
    }
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct match_fields *m = cfg;
    const char *name;
    json_t *values;
    if (!json_is_object(json))
        return provision_fail(p, "must be an object of arrays of strings");
    m->items = ARENA_ARRAY(p->arena, struct wanted, json_object_size(json));
    json_object_foreach((json_t *)(uintptr_t)json, name, values)
    {
        struct wanted *w = &m->items[m->count++];
        w->raw_name = arena_copy(p->arena, slice_from(name));
        template_compile(&w->name, slice_from(name), p->arena);
        TRY(read_values(w, values, p));
    }
    return OK;
}

/* --- header --- */

static bool any_value(const struct wanted *w, struct slice got, struct exchange *x)
{
    for (size_t i = 0; i < w->count; i++) {
        if (field_pattern_fits(template_expand(&w->values[i], x), got))
            return true;
    }
    return false;
}

static bool header_matches(const struct wanted *w, struct exchange *x)
{
    struct field *f;
    uint32_t at = 0;
    bool present = false;
    bool is_host = slice_eq_nocase(w->raw_name, SLICE("Host"));
    if (is_host && any_value(w, x->req.host, x))
        return true;
    while (!is_host && (f = fields_find(&x->req.fields, w->raw_name, &at)) != NULL) {
        present = true;
        if (any_value(w, f->value, x))
            return true;
    }
    present = present || (is_host && x->req.host.len > 0);
    return w->absent ? !present : w->count == 0 && present;
}

static enum err match_header(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_fields *m = cfg;
    *matches = true;
    for (size_t i = 0; i < m->count && *matches; i++)
        *matches = header_matches(&m->items[i], x);
    return OK;
}

/* --- query --- */

/* Decodes a pair; false when it is malformed, as Go's ParseQuery sees it. */
static bool decode_pair(struct slice *key, struct slice *value, struct arena *arena)
{
    return slice_find(*key, ';') == SIZE_MAX && slice_find(*value, ';') == SIZE_MAX &&
           query_decode(*key, arena, key) == OK && query_decode(*value, arena, value) == OK;
}

static bool query_valid(struct exchange *x, size_t *pairs)
{
    struct slice rest = x->req.uri.query, key, value;
    *pairs = 0;
    while (query_next(&rest, &key, &value)) {
        if (!decode_pair(&key, &value, x->arena))
            return false;
        ++*pairs;
    }
    return true;
}

static bool query_matches(const struct wanted *w, struct exchange *x)
{
    struct slice rest = x->req.uri.query, key, value;
    struct slice name = template_expand(&w->name, x);
    while (query_next(&rest, &key, &value)) {
        if (!decode_pair(&key, &value, x->arena) || !slice_eq(key, name))
            continue;
        for (size_t i = 0; i < w->count; i++) {
            struct slice want = template_expand(&w->values[i], x);
            if (slice_is(want, "*") || slice_eq(want, value))
                return true;
        }
    }
    return false;
}

static enum err match_query(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_fields *m = cfg;
    size_t pairs;
    *matches = query_valid(x, &pairs);
    if (m->count == 0)
        *matches = pairs == 0; /* no names: only an empty query */
    for (size_t i = 0; i < m->count && *matches; i++)
        *matches = query_matches(&m->items[i], x);
    return OK;
}

/* --- vars --- */

/* A key in braces is a placeholder, any other the name of a variable. */
static struct slice variable(const struct wanted *w, struct exchange *x)
{
    struct slice name = w->raw_name, value;
    if (name.len > 2 && name.ptr[0] == '{' && name.ptr[name.len - 1] == '}') {
        name = slice_of(name.ptr + 1, name.len - 2);
        return placeholder_get(x, name, &value) ? value : SLICE("");
    }
    name = arena_join(x->arena, (struct slice[]){SLICE("http.vars."), name}, 2);
    return placeholder_get(x, name, &value) ? value : SLICE("");
}

static enum err match_vars(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_fields *m = cfg;
    *matches = m->count == 0;
    for (size_t i = 0; i < m->count && !*matches; i++) {
        const struct wanted *w = &m->items[i];
        struct slice got = variable(w, x);
        for (size_t k = 0; k < w->count && !*matches; k++)
            *matches = slice_eq(template_expand(&w->values[k], x), got);
    }
    return OK;
}

const struct module matcher_header = {
    .id = "http.matchers.header",
    .cfg_size = sizeof(struct match_fields),
    .provision = provision,
    .match = match_header,
};

const struct module matcher_query = {
    .id = "http.matchers.query",
    .cfg_size = sizeof(struct match_fields),
    .provision = provision,
    .match = match_query,
};

const struct module matcher_vars = {
    .id = "http.matchers.vars",
    .cfg_size = sizeof(struct match_fields),
    .provision = provision,
    .match = match_vars,
};
