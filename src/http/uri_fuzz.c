/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a request's target: what is accepted begins with a slash (or is "*"), has no NUL byte,
 * escapes to something that decodes to itself, and a cleaned path has no dot segments left, however
 * they were spelled.
 */
#include "base/check.h"
#include "http/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_clean(struct slice path, bool collapse, struct arena *arena)
{
    struct slice clean = uri_clean(path, collapse, arena), part, rest = clean;
    ASSERT(clean.len > 0 && clean.ptr[0] == '/');
    ASSERT(slice_eq(uri_clean(clean, collapse, arena), clean));
    for (bool more = true; more;) {
        more = slice_cut(rest, '/', &part, &rest);
        ASSERT(!slice_is(part, ".") && !slice_is(part, ".."));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct uri uri;
    struct slice authority = SLICE_NONE, decoded, key, value, rest;
    struct slice target = slice_of((const char *)data, size);
    arena_init(&arena, 4096);
    if (uri_parse(target, &uri, &authority, &arena) == OK && !slice_is(uri.path, "*")) {
        ASSERT(slice_find(uri.path, '\0') == SIZE_MAX);
        ASSERT(uri.path.len > 0 && uri.path.ptr[0] == '/');
        check_clean(uri.path, true, &arena);
        check_clean(uri.path, false, &arena);
        ASSERT(uri_decode(uri_escape_path(uri.path, &arena), &arena, &decoded) == OK);
        ASSERT(slice_eq(decoded, uri.path));
        rest = uri.query;
        while (query_next(&rest, &key, &value)) {
        }
        (void)query_get(uri.query, SLICE("a"), &arena, &value);
    }
    if (query_decode(query_escape(target, &arena), &arena, &decoded) == OK)
        ASSERT(slice_eq(decoded, target));
    arena_deinit(&arena);
    return 0;
}
