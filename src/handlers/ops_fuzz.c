/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on header fields and on the query, of a configuration, applied to those of a request:
 * three parts between zero bytes, the operations as JSON, the query, and fields as "name:value"
 * lines. What comes out is found by its name, the query's characters are those of a query, and a second
 * pass over what came out without operations changes nothing more.
 */
#include "base/check.h"
#include "base/log.h"
#include "config/jsonx.h"
#include "handlers/rewrite_query.h"
#include "http/field_ops.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct arena arena;
static struct exchange x;

static void begin_exchange(struct slice query, struct slice fields)
{
    struct slice line, name, value;
    x = (struct exchange){.arena = &arena};
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    while (fields.len > 0) {
        slice_cut(fields, '\n', &line, &fields);
        if (slice_cut(line, ':', &name, &value) && field_name_ok(name))
            fields_add(&x.req.fields, name, value);
    }
    x.req.method = x.req.original_method = SLICE("GET");
    x.req.host = x.req.original_host = SLICE("a.example.com");
    x.req.uri = (struct uri){.path = SLICE("/a"), .raw_path = SLICE("/a"), .query = query,
                             .has_query = query.len > 0};
    x.req.original_uri = x.req.uri;
}

static void check_query(struct slice query)
{
    for (size_t i = 0; i < query.len; i++)
        ASSERT((unsigned char)query.ptr[i] > ' ' && (unsigned char)query.ptr[i] < 0x7f);
}

static void try_query(const json_t *json, struct provision *p)
{
    struct query_ops *ops, *none = NULL;
    if (query_ops_provision(&ops, json, p) == OK && query_ops_apply(ops, &x) == OK) {
        check_query(x.req.uri.query);
        struct slice once = x.req.uri.query;
        json_t *empty = json_object();
        if (query_ops_provision(&none, empty, p) == OK && query_ops_apply(none, &x) == OK)
            ASSERT(slice_eq(once, x.req.uri.query));
        query_ops_release(none);
        json_decref(empty);
    }
    query_ops_release(ops);
}

static void try_fields(const json_t *json, struct provision *p)
{
    struct field_ops ops = {0};
    if (field_ops_provision(&ops, json, p) == OK) {
        field_ops_apply(&ops, &x.req.fields, &x);
        field_ops_apply_response(&ops, &x.res.fields, &x);
        for (uint32_t i = 0; i < x.req.fields.count; i++) {
            struct slice name = x.req.fields.items[i].name; /* one that is none, wire/ drops */
            ASSERT(!field_name_ok(name) || fields_has(&x.req.fields, name));
        }
    }
    field_ops_release(&ops);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct module *const none[] = {NULL};
    struct slice text, query, fields, rest = slice_of((const char *)data, size);
    slice_cut(rest, '\0', &text, &rest);
    slice_cut(rest, '\0', &query, &fields);
    if (jsonx_too_deep(text, JSONX_MAX_DEPTH))
        return 0;
    json_t *json = json_loadb(text.ptr, text.len, 0, NULL);
    if (json == NULL)
        return 0;
    log_set_threshold(LOG_FATAL);
    arena_init(&arena, 65536);
    struct provision p = {.arena = &arena, .modules = none};
    begin_exchange(query, fields);
    try_query(json, &p);
    try_fields(json, &p);
    arena_deinit(&arena);
    json_decref(json);
    return 0;
}
