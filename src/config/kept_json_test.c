/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is kept comes back as it was; the same value is known again in whatever order it is written.
 */
#include "config/kept_json.h"

#include <stdlib.h>

#include "base/test.h"
#include "config/jsonx.h"

static json_t *read_json(const char *text)
{
    json_t *v = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    CHECK(v != NULL);
    return v;
}

static struct kept_json kept(const char *text)
{
    struct kept_json k = {0};
    json_t *v = read_json(text);
    CHECK_OK(kept_json_set(&k, v));
    json_decref(v);
    return k;
}

static bool same(const char *one, const char *other)
{
    struct kept_json a = kept(one), b = kept(other);
    json_t *v = read_json(other);
    bool is = kept_json_same(&a, &b);
    CHECK_INT(kept_json_is(&a, v), is);
    json_decref(v);
    kept_json_clear(&a);
    kept_json_clear(&b);
    return is;
}

TEST("a kept value reads back with its members in their order and its numbers to the last digit")
{
    static const char *const texts[] = {
        "null", "true", "\"\"", "[]", "{}", "{\"z\":1,\"a\":{\"y\":[1,2.5,null],\"b\":\"<&>\"}}",
        "[1,1.0,0.10000000000000001,1e300,-9223372036854775808]", "\"a\\u0000b\"",
        "\"\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\\\\\\\"/\\u00e9\\u2028\"",
        "{\"\\n\":{}}", "[-0.0,1e-7,123456789012345678]",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct kept_json k = kept(texts[i]);
        json_t *was = read_json(texts[i]), *is = kept_json_tree(&k);
        struct buffer before, after;
        buffer_init(&before, 1000);
        buffer_init(&after, 1000);
        char *own = json_dumps(was, JSON_COMPACT | JSON_ENCODE_ANY);
        CHECK(json_equal(was, is));
        CHECK_TEXT(kept_json_text(&k), own);
        free(own);
        CHECK_OK(jsonx_dump(&before, was));
        CHECK_OK(jsonx_dump(&after, is));
        CHECK_SLICE(buffer_slice(&after), buffer_slice(&before));
        buffer_deinit(&before);
        buffer_deinit(&after);
        json_decref(was);
        json_decref(is);
        kept_json_clear(&k);
    }
}

TEST("two texts are one value whatever the order of their members, and only then")
{
    CHECK(same("{\"a\":1,\"b\":[2]}", "{\"a\":1,\"b\":[2]}"));
    CHECK(same("{\"a\":1,\"b\":[2]}", "{\"b\":[2],\"a\":1}"));
    CHECK(!same("{\"a\":1,\"b\":[2]}", "{\"b\":[1],\"a\":2}"));
    CHECK(!same("[1,2]", "[2,1]"));
    CHECK(!same("[1]", "[1.0]"));
    CHECK(!same("{}", "[]"));
}

TEST("nothing is kept of what could not be read again, and nothing reads as null")
{
    struct kept_json k = kept("[1]"), none = {0};
    json_t *v = json_array(), *null;
    for (int i = 0; i < JSONX_MAX_DEPTH; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, v);
        v = outer;
    }
    CHECK_INT(kept_json_set(&k, v), ERR_LIMIT);
    CHECK(!kept_json_is(&k, v) && !kept_json_same(&k, &none));
    null = kept_json_tree(&k);
    CHECK(json_is_null(null));
    json_decref(v);
    kept_json_clear(&k);
}
