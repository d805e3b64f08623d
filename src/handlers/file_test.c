/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conditions and ranges as values; the rest of the file server is asked over real connections, in
 * tests/run_test.py.
 */
#include "base/test.h"
#include "http/conditional.h"

static struct arena arena;
static struct request q;

static enum condition check(const char *name, const char *value, const char *etag, int64_t modified)
{
    arena_deinit(&arena);
    arena_init(&arena, 4096);
    fields_init(&q.fields, &arena);
    q.method_id = METHOD_GET;
    fields_add(&q.fields, slice_from(name), slice_from(value));
    return condition_check(&q, slice_from(etag), modified);
}

#define DATE "Sun, 06 Nov 1994 08:49:37 GMT"
#define DATE_S INT64_C(784111777)

TEST("preconditions are decided as RFC 9110 says")
{
    CHECK_INT(check("If-None-Match", "\"a\"", "\"a\"", 0), CONDITION_NOT_MODIFIED);
    CHECK_INT(check("If-None-Match", "W/\"a\"", "\"a\"", 0), CONDITION_NOT_MODIFIED);
    CHECK_INT(check("If-None-Match", "\"b\" , \"a\"", "\"a\"", 0), CONDITION_NOT_MODIFIED);
    CHECK_INT(check("If-None-Match", "*", "\"a\"", 0), CONDITION_NOT_MODIFIED);
    CHECK_INT(check("If-None-Match", "\"b\"", "\"a\"", 0), CONDITION_SEND);
    CHECK_INT(check("If-None-Match", "a", "\"a\"", 0), CONDITION_SEND);
    CHECK_INT(check("If-Match", "\"a\"", "\"a\"", 0), CONDITION_SEND);
    CHECK_INT(check("If-Match", "W/\"a\"", "W/\"a\"", 0), CONDITION_FAILED);
    CHECK_INT(check("If-Match", "\"b\"", "\"a\"", 0), CONDITION_FAILED);
    CHECK_INT(check("If-Modified-Since", DATE, "", DATE_S), CONDITION_NOT_MODIFIED);
    CHECK_INT(check("If-Modified-Since", DATE, "", DATE_S + 1), CONDITION_SEND);
    CHECK_INT(check("If-Modified-Since", DATE, "", 0), CONDITION_SEND);
    CHECK_INT(check("If-Modified-Since", "never", "", DATE_S), CONDITION_SEND);
    CHECK_INT(check("If-Unmodified-Since", DATE, "", DATE_S), CONDITION_SEND);
    CHECK_INT(check("If-Unmodified-Since", DATE, "", DATE_S + 1), CONDITION_FAILED);
    CHECK_INT(check("If-Range", "\"a\"", "\"a\"", 0), CONDITION_SEND);
    CHECK_INT(check("If-Range", "W/\"a\"", "W/\"a\"", 0), CONDITION_SEND_WHOLE);
    CHECK_INT(check("If-Range", DATE, "", DATE_S), CONDITION_SEND);
    CHECK_INT(check("If-Range", DATE, "", DATE_S + 1), CONDITION_SEND_WHOLE);
    arena_deinit(&arena);
}

TEST("ranges are read against the size")
{
    static const struct {
        const char *value;
        uint64_t size;
        enum range_result want;
        size_t count;
        uint64_t start, len; /* of the last */
    } cases[] = {
        {"bytes=0-4", 10, RANGE_SOME, 1, 0, 5}, {"bytes=5-", 10, RANGE_SOME, 1, 5, 5},
        {"bytes=-3", 10, RANGE_SOME, 1, 7, 3}, {"bytes=-20", 10, RANGE_SOME, 1, 0, 10},
        {"bytes=2-200", 10, RANGE_SOME, 1, 2, 8}, {"bytes=0-0, 5-6 ,", 10, RANGE_SOME, 2, 5, 2},
        {"bytes=0-0,20-30", 10, RANGE_SOME, 1, 0, 1}, {"bytes=10-", 10, RANGE_OUTSIDE, 0, 0, 0},
        {"bytes=0-", 0, RANGE_NONE, 0, 0, 0}, {"bytes=5-4", 10, RANGE_INVALID, 0, 0, 0},
        {"bytes=a-b", 10, RANGE_INVALID, 0, 0, 0}, {"bytes=--2", 10, RANGE_INVALID, 0, 0, 0},
        {"bytes=", 10, RANGE_NONE, 0, 0, 0}, {"lines=0-4", 10, RANGE_INVALID, 0, 0, 0},
        {"bytes=0-,0-,0-", 10, RANGE_NONE, 3, 0, 10}, {"bytes=5", 10, RANGE_INVALID, 0, 0, 0},
        {"bytes=0-99999999999999999999", 10, RANGE_INVALID, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct range r[RANGES_MAX];
        size_t n;
        enum range_result got = range_parse(slice_from(cases[i].value), cases[i].size, r, &n);
        if (got != cases[i].want)
            test_fail(__FILE__, __LINE__, "%s gives %d", cases[i].value, got);
        if (got != RANGE_SOME)
            continue;
        CHECK_INT(n, cases[i].count);
        CHECK_INT(r[n - 1].start, cases[i].start);
        CHECK_INT(r[n - 1].len, cases[i].len);
    }
}

TEST("more ranges than are worth it are not served")
{
    char value[1024] = "bytes=";
    struct range r[RANGES_MAX];
    size_t n = 6;
    for (int i = 0; i < 65; i++)
        n += (size_t)snprintf(value + n, sizeof value - n, "%d-%d,", i * 2, i * 2);
    CHECK_INT(range_parse(slice_of(value, n), 1000, r, &n), RANGE_NONE);
}
