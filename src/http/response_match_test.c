/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Response matchers against Caddy's table, and their patterns.
 */
#include "base/test.h"
#include "config/table_testing.h"
#include "http/response_match.h"

static struct arena arena;
static struct provision provision;

static bool matches(const json_t *config, int status, const json_t *fields)
{
    struct response_match m;
    struct fields fs;
    const char *name;
    json_t *values, *v;
    size_t i;
    provision = (struct provision){.arena = &arena, .path = SLICE("test")};
    if (response_match_provision(&m, config, &provision) != OK)
        test_fail(__FILE__, __LINE__, "%s", provision.error);
    fields_init(&fs, &arena);
    json_object_foreach((json_t *)(uintptr_t)fields, name, values)
        json_array_foreach(values, i, v)
            fields_add(&fs, slice_from(name), slice_from(json_string_value(v)));
    return response_match(&m, status, &fs);
}

TEST("responses match as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-response");
    arena_init(&arena, 4096);
    CHECK_INT(json_array_size(cases), 17);
    json_array_foreach(cases, i, row)
    {
        bool got = matches(json_object_get(row, "match"),
                           (int)json_integer_value(json_object_get(row, "status")),
                           json_object_get(row, "headers"));
        if (got != json_is_true(json_object_get(row, "expect")))
            test_fail(__FILE__, __LINE__, "row %zu", i);
    }
    json_decref(cases);
    arena_deinit(&arena);
}

TEST("null asks that a field is absent, no values that it is there; no statuses match none")
{
    static const struct {
        const char *config, *fields;
        bool want;
    } cases[] = {
        {"{\"headers\":{\"A\":null}}", "{}", true},
        {"{\"headers\":{\"A\":null}}", "{\"a\":[\"\"]}", false},
        {"{\"headers\":{\"A\":[]}}", "{}", false},
        {"{\"headers\":{\"A\":[]}}", "{\"a\":[\"\"]}", true},
        {"{\"headers\":{\"A\":[\"*x*\"]}}", "{\"A\":[\"b\",\"axb\"]}", true},
        {"{\"headers\":{\"A\":[\"*x\"]}}", "{\"A\":[\"ax\"]}", true},
        {"{\"headers\":{\"A\":[\"*x\"]}}", "{\"A\":[\"xa\"]}", false},
        {"{\"headers\":{\"A\":[\"*\"]}}", "{\"A\":[\"\"]}", true},
        {"{\"headers\":{\"A\":[\"x\"]}}", "{\"A\":[\"X\"]}", false},
        {"{\"status_code\":[]}", "{}", false},
        {"null", "{}", true},
    };
    arena_init(&arena, 4096);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *config = json_loads(cases[i].config, JSON_DECODE_ANY, NULL);
        json_t *fields = json_loads(cases[i].fields, 0, NULL);
        bool got = matches(config, 200, fields);
        json_decref(config);
        json_decref(fields);
        if (got != cases[i].want)
            test_fail(__FILE__, __LINE__, "case %zu", i);
    }
    arena_deinit(&arena);
}
