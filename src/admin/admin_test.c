/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of the document against Caddy's tables.
 */
#include "admin/document.h"
#include "base/test.h"
#include "config/table_testing.h"

static struct document_error error;
static char path[512];

TEST("a document is changed step by step as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("config-traversal"), *root = json_object(), *found;
    json_array_foreach(cases, i, row)
    {
        const char *payload = row_text(row, "payload");
        json_t *value = payload[0] != '\0' ? json_loads(payload, JSON_DECODE_ANY, NULL) : NULL;
        snprintf(path, sizeof path, "/config%s", row_text(row, "path"));
        enum err e = document_access(root, slice_from(row_text(row, "method")), slice_from(path),
                                     value, &found, &error);
        CHECK_INT(e != OK, json_is_true(json_object_get(row, "error")));
        json_decref(value);
        json_t *want = json_loads(row_text(row, "expect"), JSON_DECODE_ANY, NULL);
        CHECK(json_equal(json_object_get(root, "config"), want));
        json_decref(want);
    }
    json_decref(root);
    json_decref(cases);
}

TEST("an index is digits without leading zeros")
{
    size_t i;
    json_t *row, *cases = table_rows("config-array-index"), *found;
    json_t *root = json_pack("{s{s[sssssssssss]}}", "config", "list", "zero", "one", "two", "three",
                             "four", "five", "six", "seven", "eight", "nine", "ten");
    json_array_foreach(cases, i, row)
    {
        snprintf(path, sizeof path, "/config/list/%s", row_text(row, "index"));
        enum err e = document_access(root, SLICE("GET"), slice_from(path), NULL, &found, &error);
        CHECK_INT(e != OK, json_is_true(json_object_get(row, "error")));
        if (e != OK)
            continue;
        char *got = json_dumps(found, JSON_ENCODE_ANY);
        struct slice want = slice_from(row_text(row, "expect"));
        CHECK_SLICE(slice_from(got), slice_take(want, want.len - 1));
        free(got);
    }
    json_decref(root);
    json_decref(cases);
}

TEST("what exists is not created, what does not is not replaced")
{
    json_t *root = json_pack("{s{s{}}}", "config", "apps"), *found, *v = json_true();
    CHECK_INT(document_access(root, SLICE("PUT"), SLICE("/config/apps"), v, &found, &error),
              ERR_INVALID);
    CHECK_INT(error.status, 409);
    CHECK_INT(document_access(root, SLICE("PATCH"), SLICE("/config/x"), v, &found, &error),
              ERR_INVALID);
    CHECK_INT(error.status, 404);
    CHECK_INT(document_access(root, SLICE("BREW"), SLICE("/config/x"), v, &found, &error),
              ERR_INVALID);
    CHECK_INT(error.status, 405);
    CHECK_OK(document_access(root, SLICE("PUT"), SLICE("/config/a/b/c"), v, &found, &error));
    CHECK_OK(document_access(root, SLICE("GET"), SLICE("/config/a/b/c"), NULL, &found, &error));
    CHECK(json_is_true(found));
    CHECK_INT(document_access(root, SLICE("GET"), SLICE("/config/a/b/c/d"), NULL, &found, &error),
              ERR_INVALID);
    json_decref(root);
}
