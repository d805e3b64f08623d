/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accept-Encoding against Caddy's table.
 */
#include "base/test.h"
#include "config/table_testing.h"
#include "http/accept_encoding.h"

static void check_row(const json_t *row, size_t i)
{
    struct slice prefer[8];
    struct accepted got[ACCEPTED_MAX];
    const json_t *list = json_object_get(row, "prefer"), *want = json_object_get(row, "expected");
    for (size_t k = 0; k < json_array_size(list); k++)
        prefer[k] = slice_from(json_string_value(json_array_get(list, k)));
    size_t n = accepted_encodings(slice_from(json_string_value(json_object_get(row, "accept"))),
                                  prefer, json_array_size(list), got);
    bool same = n == json_array_size(want);
    for (size_t k = 0; same && k < n; k++)
        same = slice_is(slice_of(got[k].name, got[k].len), json_string_value(json_array_get(want, k)));
    if (!same)
        test_fail(__FILE__, __LINE__, "row %zu", i);
}

TEST("codings are ordered as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("encode-prefer");
    CHECK_INT(json_array_size(cases), 13);
    json_array_foreach(cases, i, row)
        check_row(row, i);
    json_decref(cases);
}

TEST("odd weights are read without harm")
{
    static const struct {
        const char *field, *first;
        size_t count;
    } cases[] = {
        {"GZIP;Q=0.5, br;q=.7", "br", 2}, {"gzip;q=0.000001", "", 0}, {"gzip;q=1.0;x=y", "gzip", 1},
        {"gzip;q=nonsense", "gzip", 1}, {"gzip;q=-1", "gzip", 1}, {"gzip;q=0.", "", 0},
        {"gzip;q=", "gzip", 1}, {"gzip;q=0.5000000000000000000000001", "gzip", 1},
        {"gzip;q=99999999999999999999", "gzip", 1}, {"a-name-that-is-too-long, gzip", "gzip", 1},
        {",,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,", "", 24},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct accepted got[ACCEPTED_MAX] = {{.len = 0}};
        size_t n = accepted_encodings(slice_from(cases[i].field), NULL, 0, got);
        if (n != cases[i].count || !slice_is(slice_of(got[0].name, got[0].len), cases[i].first))
            test_fail(__FILE__, __LINE__, "case %zu gives %zu", i, n);
    }
}
