/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unit tests whose cases stand in tests/data/tables/, as arrays of rows.
 */
#pragma once

#include <jansson.h>

#include "base/test.h"

/* The caller owns it. */
static inline json_t *table_load(const char *name)
{
    char path[4096];
    json_error_t e;
    snprintf(path, sizeof path, "%s/tests/data/tables/%s.json", getenv("PORTICO_SOURCE"), name);
    json_t *table = json_load_file(path, JSON_ALLOW_NUL, &e);
    if (table == NULL)
        test_fail(__FILE__, __LINE__, "%s: %s", path, e.text);
    return table;
}

/* Its cases alone, likewise; the test fails where there are next to none. */
static inline json_t *table_rows(const char *name)
{
    json_t *table = table_load(name);
    json_t *cases = json_incref(json_object_get(table, "cases"));
    json_decref(table);
    CHECK(json_array_size(cases) > 3);
    return cases;
}

/* NULL: it has none. */
static inline const char *row_text(const json_t *row, const char *key)
{
    return json_string_value(json_object_get(row, key));
}

static inline struct slice row_slice(const json_t *row, const char *key)
{
    const json_t *text = json_object_get(row, key);
    return slice_of(json_string_value(text), json_string_length(text));
}

#define FOR_CASES(row, all)                                                                        \
    for (size_t i_ = 0; i_ < json_array_size(json_object_get(all, "cases")); i_++)                 \
        for (json_t *row = json_array_get(json_object_get(all, "cases"), i_); row != NULL;         \
             row = NULL)
