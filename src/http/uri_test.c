/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Targets, escapes, cleaning and queries.
 */
#include "base/test.h"
#include "config/table_testing.h"
#include "http/uri.h"

static struct arena arena;
static struct uri uri;
static struct slice authority;

static enum err parse(struct slice target)
{
    arena_deinit(&arena);
    arena_init(&arena, 4096);
    return uri_parse(target, &uri, &authority, &arena);
}

TEST("a target is taken apart and decoded once")
{
    CHECK_OK(parse(SLICE("/a%20b/%2525?x=%20&y")));
    CHECK_TEXT(uri.path, "/a b/%25");
    CHECK_TEXT(uri.raw_path, "/a%20b/%2525");
    CHECK_TEXT(uri.query, "x=%20&y");
    CHECK_OK(parse(SLICE("http://h:80?q")));
    CHECK_TEXT(authority, "h:80");
    CHECK_TEXT(uri.path, "/");
    CHECK_TEXT(uri.query, "q");
    CHECK_OK(parse(SLICE("*")));
    CHECK_OK(parse(SLICE("/?")));
    CHECK(uri.has_query && uri.query.len == 0);
    CHECK_TEXT(uri_text(&uri, &arena), "/?");
    CHECK_OK(parse(SLICE("/[a]!'()*%2f~")));
    CHECK_TEXT(uri_text(&uri, &arena), "/[a]!'()*%2f~");
    CHECK_OK(parse(SLICE("/[a]{b}\"|<\xc3\xa9%2f?<>")));
    CHECK_TEXT(uri_text(&uri, &arena), "/%5Ba%5D%7Bb%7D%22%7C%3C%C3%A9%2f?<>");
}

TEST("bad escapes, NUL bytes and unknown forms are refused")
{
    CHECK_INT(parse(SLICE("/%")), ERR_INVALID);
    CHECK_INT(parse(SLICE("/%4")), ERR_INVALID);
    CHECK_INT(parse(SLICE("/%4x")), ERR_INVALID);
    CHECK_INT(parse(SLICE("/a%00b")), ERR_INVALID);
    CHECK_INT(parse(SLICE("a")), ERR_INVALID);
    CHECK_INT(parse(SLICE("")), ERR_INVALID);
}

TEST("paths are cleaned as the table says")
{
    json_t *row, *cases = table_rows("clean-path");
    size_t i;
    arena_init(&arena, 4096);
    json_array_foreach(cases, i, row)
    {
        struct slice in = row_slice(row, "input");
        struct slice out = uri_clean(in, json_is_true(json_object_get(row, "merge_slashes")),
                                     &arena);
        CHECK_TEXT(out, row_text(row, "expect"));
    }
    CHECK_INT(i, 10);
    json_decref(cases);
    arena_deinit(&arena);
}

TEST("no cleaned path climbs above its root")
{
    arena_init(&arena, 4096);
    CHECK_TEXT(uri_clean(SLICE("/../../etc"), true, &arena), "/etc");
    CHECK_TEXT(uri_clean(SLICE("/a/../../.."), true, &arena), "/");
    CHECK_TEXT(uri_clean(SLICE("//../..//x/"), false, &arena), "//x/");
    CHECK_TEXT(uri_clean(SLICE("/a/b/.."), true, &arena), "/a");
    arena_deinit(&arena);
}

TEST("paths and query parts are escaped each in its way")
{
    arena_init(&arena, 4096);
    CHECK_TEXT(uri_escape_path(SLICE("/a b/\xc3\xbc?#%"), &arena), "/a%20b/%C3%BC%3F%23%25");
    CHECK_TEXT(path_escape(SLICE("a/b;c"), &arena), "a%2Fb%3Bc");
    CHECK_TEXT(query_escape(SLICE("a b&c=d/"), &arena), "a+b%26c%3Dd%2F");
    arena_deinit(&arena);
}

TEST("query parameters are found decoded")
{
    struct slice v;
    arena_init(&arena, 4096);
    CHECK(query_get(SLICE("a=1&b%20c=x+y&&a=2"), SLICE("b c"), &arena, &v));
    CHECK_TEXT(v, "x y");
    CHECK(query_get(SLICE("a=1&a=2"), SLICE("a"), &arena, &v));
    CHECK_TEXT(v, "1");
    CHECK(!query_get(SLICE("a=1"), SLICE("b"), &arena, &v));
    CHECK(query_get(SLICE("flag"), SLICE("flag"), &arena, &v) && v.len == 0);
    arena_deinit(&arena);
}

TEST("hosts and ports are split, brackets removed")
{
    struct slice host, port;
    host_split(SLICE("[::1]:80"), &host, &port);
    CHECK_TEXT(host, "::1");
    CHECK_TEXT(port, "80");
    host_split(SLICE("example.com"), &host, &port);
    CHECK_TEXT(host, "example.com");
    CHECK_INT(port.len, 0);
    host_split(SLICE("::1"), &host, &port);
    CHECK_TEXT(host, "::1");
    host_split(SLICE("a:1"), &host, &port);
    CHECK_TEXT(port, "1");
}
