/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rewrite handler against Caddy's published tables.
 */
#include "base/test.h"
#include "config/table_testing.h"
#include "handlers/handlers.h"
#include "http/route.h"
#include "http/uri.h"

static struct arena arena;
static struct exchange x;
static struct provision provision;

static void begin(const char *method, const char *target)
{
    struct slice ignored;
    arena_deinit(&arena);
    arena_init(&arena, 16384);
    provision = (struct provision){.arena = &arena};
    x = (struct exchange){.arena = &arena};
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    x.req.method = slice_from(method);
    x.req.scheme = SLICE("http");
    CHECK_OK(uri_parse(slice_from(target), &x.req.uri, &ignored, &arena));
    x.req.original_uri = x.req.uri;
}

static void run(const json_t *rule)
{
    char *cfg = arena_zalloc(&arena, handler_rewrite.cfg_size);
    struct chain end = {0};
    if (handler_rewrite.provision(cfg, rule, &provision) != OK)
        test_fail(__FILE__, __LINE__, "%s", provision.error);
    CHECK_OK(handler_rewrite.serve(cfg, &x, &end));
    handler_rewrite.release(cfg);
}

static void put_fields(const json_t *fields)
{
    const char *name;
    json_t *values, *v;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)fields, name, values)
        json_array_foreach(values, i, v)
            fields_add(&x.req.fields, slice_from(name), slice_from(json_string_value(v)));
}

TEST("requests are rewritten as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("rewrite");
    setenv("CADDY_REWRITE_TEST_SECRET", "secret", 1);
    json_array_foreach(cases, i, row)
    {
        const json_t *in = json_object_get(row, "input"), *want = json_object_get(row, "expect");
        if (strchr(row_text(in, "uri"), '#') != NULL) /* no client sends a fragment */
            continue;
        begin(row_text(in, "method"), row_text(in, "uri"));
        put_fields(json_object_get(in, "headers"));
        run(json_object_get(row, "rule"));
        struct slice got = uri_text(&x.req.uri, &arena), target, fragment;
        slice_cut(slice_from(row_text(want, "uri")), '#', &target, &fragment); /* which is never sent */
        if (slice_starts(target, SLICE("http://host"))) /* the authority is not the handler's */
            target = slice_skip(target, 11);
        if (!slice_eq(got, target) || !slice_is(x.req.method, row_text(want, "method"))) {
            char *dump = json_dumps(row, JSON_COMPACT);
            test_fail(__FILE__, __LINE__, "row %zu gives " SLICE_FMT " " SLICE_FMT ": %s", i,
                      SLICE_ARG(x.req.method), SLICE_ARG(got), dump);
        }
    }
    json_decref(cases);
    arena_deinit(&arena);
}

TEST("query operations give the parameters that the table says")
{
    size_t i, k;
    json_t *row, *cases = table_rows("rewrite-query"), *values, *v;
    const char *key;
    json_array_foreach(cases, i, row)
    {
        begin("GET", row_text(row, "input"));
        json_t *rule = json_pack("{sO}", "query", json_object_get(row, "ops"));
        run(rule);
        json_decref(rule);
        struct slice rest = x.req.uri.query, name, value;
        json_object_foreach(json_object_get(row, "expect"), key, values)
        {
            json_array_foreach(values, k, v)
            {
                CHECK(query_next(&rest, &name, &value)); /* sorted by key, as the object is */
                CHECK_TEXT(name, key);
                CHECK_TEXT(value, json_string_value(v));
            }
        }
        CHECK(!query_next(&rest, &name, &value));
    }
    json_decref(cases);
    arena_deinit(&arena);
}
