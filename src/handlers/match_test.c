/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matchers against Caddy's published tables, and patterns where those say nothing.
 */
#include "base/test.h"
#include "base/glob.h"
#include "base/map.h"
#include "config/table_testing.h"
#include "handlers/handlers.h"
#include "http/regexp.h"
#include "http/route.h"
#include "http/uri.h"

static const struct module handler_note; /* notes its number and calls on */

static const struct module *const modules[] = {
    &matcher_client_ip, &matcher_header, &matcher_header_regexp, &matcher_host, &matcher_method, &matcher_not,
    &matcher_path, &matcher_path_regexp, &matcher_protocol, &matcher_query, &matcher_remote_ip,
    &matcher_url_pattern, &matcher_vars, &matcher_vars_regexp, &handler_note, NULL};

static enum err note_visit(const void *cfg, struct exchange *e, const struct chain *next);

static enum err provision_note(void *cfg, const json_t *json, struct provision *p)
{
    return provision_int(p, json, "n", 0, 0, 1000, cfg);
}

static const struct module handler_note = {.id = "http.handlers.note",
                                           .cfg_size = sizeof(int64_t),
                                           .provision = provision_note,
                                           .serve = note_visit};

static struct arena arena;
static struct exchange x;
static struct provision provision;

static void begin(struct slice target)
{
    struct slice ignored;
    arena_deinit(&arena);
    arena_init(&arena, 16384);
    provision = (struct provision){.arena = &arena, .modules = modules};
    x = (struct exchange){.arena = &arena};
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    x.req.method = SLICE("GET");
    x.req.host = SLICE("example.com");
    x.req.scheme = SLICE("http");
    x.req.major = x.req.minor = 1;
    CHECK_OK(uri_parse(target, &x.req.uri, &ignored, &arena));
    x.req.original_uri = x.req.uri;
}

static void end(void)
{
    for (struct provision_release *r = provision.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    provision.releases = NULL;
}

/* Provisions one matcher and asks it. */
static bool ask(const char *name, const json_t *config)
{
    struct matcher_set *sets;
    uint32_t count;
    bool matches = false;
    json_t *json = json_array();
    json_t *set = json_object();
    json_object_set(set, name, (json_t *)(uintptr_t)config);
    json_array_append_new(json, set);
    enum err e = matcher_sets_provision(&sets, &count, json, &provision);
    json_decref(json);
    if (e != OK)
        test_fail(__FILE__, __LINE__, "%s", provision.error);
    CHECK_OK(matcher_sets_match(sets, count, &x, &matches));
    return matches;
}

static void expect(const json_t *row, bool got, size_t index)
{
    bool want = json_is_true(json_object_get(row, "expect"));
    if (got == want)
        return;
    char *dump = json_dumps(row, JSON_COMPACT);
    test_fail(__FILE__, __LINE__, "row %zu gives %d: %s", index, got, dump);
}

static void put_fields(const json_t *fields)
{
    const char *name;
    json_t *v, *one;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)fields, name, v)
    {
        if (json_is_string(v))
            fields_add(&x.req.fields, slice_from(name), slice_from(json_string_value(v)));
        json_array_foreach(v, i, one)
            fields_add(&x.req.fields, slice_from(name), slice_from(json_string_value(one)));
    }
}

static void check_captures(const json_t *captures)
{
    const char *key;
    json_t *want;
    json_object_foreach((json_t *)(uintptr_t)captures, key, want)
    {
        struct slice got = SLICE_NONE;
        struct slice name = arena_join(&arena, (struct slice[]){SLICE("http.regexp."),
                                                                slice_from(key)}, 2);
        CHECK(placeholder_get(&x, name, &got));
        CHECK_SLICE(got, slice_from(json_string_value(want)));
    }
}

static struct slice target_of(const json_t *row, const char *key)
{
    struct slice target = row_slice(row, key);
    return target.len > 0 ? target : SLICE("/");
}

TEST("hosts match as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-host");
    setenv("GO_BENCHMARK_DOMAIN", "localhost", 1);
    json_array_foreach(cases, i, row)
    {
        begin(SLICE("/"));
        x.req.host = row_slice(row, "input");
        expect(row, ask("host", json_object_get(row, "match")), i);
        end();
    }
    json_decref(cases);
}

TEST("paths match as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-path");
    json_array_foreach(cases, i, row)
    {
        begin(row_slice(row, "input"));
        expect(row, ask("path", json_object_get(row, "match")), i);
        end();
    }
    json_decref(cases);
}

TEST("regular expressions on paths match and capture as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-path-regexp");
    json_array_foreach(cases, i, row)
    {
        begin(row_slice(row, "input"));
        expect(row, ask("path_regexp", json_object_get(row, "match")), i);
        check_captures(json_object_get(row, "captures"));
        end();
    }
    json_decref(cases);
}

TEST("headers match as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-header");
    json_array_foreach(cases, i, row)
    {
        begin(SLICE("/"));
        x.req.host = row_slice(row, "host");
        exchange_set_var(&x, SLICE("a"), SLICE("foobar"));
        put_fields(json_object_get(row, "input"));
        expect(row, ask("header", json_object_get(row, "match")), i);
        end();
    }
    json_decref(cases);
}

TEST("regular expressions on headers match and capture as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-header-regexp");
    json_array_foreach(cases, i, row)
    {
        begin(SLICE("/"));
        x.req.host = row_slice(row, "host");
        put_fields(json_object_get(row, "input"));
        expect(row, ask("header_regexp", json_object_get(row, "match")), i);
        check_captures(json_object_get(row, "captures"));
        end();
    }
    json_decref(cases);
}

TEST("methods match as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-method");
    json_array_foreach(cases, i, row)
    {
        begin(SLICE("/"));
        x.req.method = row_slice(row, "input");
        expect(row, ask("method", json_object_get(row, "match")), i);
        end();
    }
    json_decref(cases);
}

TEST("not matches when no set does, as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-not");
    json_array_foreach(cases, i, row)
    {
        begin(target_of(row, "path"));
        x.req.host = row_slice(row, "host");
        expect(row, ask("not", json_object_get(row, "not")), i);
        end();
    }
    json_decref(cases);
}

TEST("queries match as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-query");
    json_array_foreach(cases, i, row)
    {
        begin(row_slice(row, "input"));
        exchange_set_var(&x, SLICE("http.vars.debug"), SLICE("1"));
        exchange_set_var(&x, SLICE("http.vars.key"), SLICE("somekey"));
        expect(row, ask("query", json_object_get(row, "match")), i);
        end();
    }
    json_decref(cases);
}

static bool refused(const char *name, const json_t *config)
{
    struct matcher_set *sets;
    uint32_t count;
    json_t *set = json_pack("[{s:O}]", name, config);
    enum err e = matcher_sets_provision(&sets, &count, set, &provision);
    json_decref(set);
    return e == ERR_INVALID;
}

TEST("URL patterns match as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-url-pattern");
    json_array_foreach(cases, i, row)
    {
        const json_t *match = json_object_get(row, "match");
        bool fails = json_is_true(json_object_get(row, "error"));
        begin(fails ? SLICE("/") : row_slice(row, "input"));
        x.req.host = row_slice(row, "host");
        if (json_is_true(json_object_get(row, "tls")))
            x.req.scheme = SLICE("https");
        if (fails)
            CHECK(refused("url_pattern", match));
        else
            expect(row, ask("url_pattern", match), i);
        end();
    }
    json_decref(cases);
}

/* `want`: NULL for no match, else what the placeholder after '=' must be, "pathname.id=7". */
static void try_pattern(const char *pattern, const char *host, const char *target, const char *want)
{
    struct slice name, value, got;
    json_t *config = json_pack("{s:s}", "pattern", pattern);
    begin(slice_from(target));
    x.req.host = slice_from(host);
    bool matches = ask("url_pattern", config);
    if (matches != (want != NULL))
        test_fail(__FILE__, __LINE__, "%s gives %d for %s%s", pattern, matches, host, target);
    if (want != NULL && slice_cut(slice_from(want), '=', &name, &value)) {
        name = arena_join(&arena, (struct slice[]){SLICE("http.url_pattern."), name}, 2);
        if (!exchange_get_var(&x, name, &got) || !slice_eq(got, value))
            test_fail(__FILE__, __LINE__, "%s %s: " SLICE_FMT, pattern, want, SLICE_ARG(got));
    }
    end();
    json_decref(config);
}

TEST("URL patterns have names, groups, expressions and repetitions")
{
    try_pattern("/books/:id", "a", "/books/7", "pathname.id=7");
    try_pattern("/books/:id", "a", "/books/7/8", NULL);
    try_pattern("/books/:id(\\d+)", "a", "/books/x", NULL);
    try_pattern("/books/:id(\\d+)/*", "a", "/books/12/a/b", "pathname.0=a/b");
    try_pattern("/a/:b?", "a", "/a", "");
    try_pattern("/a/:b?", "a", "/a/c", "pathname.b=c");
    try_pattern("/a/:rest+", "a", "/a/b/c", "pathname.rest=b/c");
    try_pattern("/a/:rest+", "a", "/a", NULL);
    try_pattern("/a{/}?", "a", "/a/", "");
    try_pattern("/a{/}?", "a", "/a", "");
    try_pattern("/img{-:size}?.png", "a", "/img-large.png", "pathname.size=large");
    try_pattern("/img{-:size}?.png", "a", "/img.png", "");
    try_pattern("/(a|b)/c", "a", "/b/c", "pathname.0=b");
    try_pattern("/a?q=:q", "a", "/a?q=x", "search.q=x");
    try_pattern("/:a?q", "a", "/?q", NULL); /* the '?' makes the name optional */
    try_pattern("/:a\\?q", "a", "/b?q", "pathname.a=b");
    try_pattern("/search?q=*", "a", "/search?q=x", "search.0=x");
    try_pattern("http://:sub.example.com/x", "www.example.com", "/x", "hostname.sub=www");
    try_pattern("http://*.example.com:8080/*", "a.b.example.com:8080", "/", "hostname.0=a.b");
    try_pattern("http://*.example.com/*", "a.example.com:8080", "/", NULL);
    try_pattern("http{s}?://EXAMPLE.com/", "Example.COM:80", "/", "");
    try_pattern("/caf\303\251", "a", "/caf%C3%A9", "");
}

TEST("URL patterns that are none are refused")
{
    static const char *const bad[] = {"/:a/:a", "/{a", "/a}", "/+", "/{:a:b}", "https://a b/"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *config = json_pack("{s:s}", "pattern", bad[i]);
        begin(SLICE("/"));
        if (!refused("url_pattern", config))
            test_fail(__FILE__, __LINE__, "%s", bad[i]);
        end();
        json_decref(config);
    }
}

static void put_vars(const json_t *vars)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)vars, name, v)
    {
        struct slice key = arena_join(&arena, (struct slice[]){SLICE("http.vars."),
                                                               slice_from(name)}, 2);
        exchange_set_var(&x, key, slice_from(json_string_value(v)));
    }
}

TEST("variables match as the table says, and are not expanded twice")
{
    size_t i;
    json_t *row, *cases = table_rows("match-vars");
    setenv("CADDY_VARS_TEST_SECRET", "topsecret", 1);
    json_array_foreach(cases, i, row)
    {
        begin(target_of(row, "target"));
        put_fields(json_object_get(row, "headers"));
        put_vars(json_object_get(row, "vars"));
        expect(row, ask("vars", json_object_get(row, "match")), i);
        end();
    }
    json_decref(cases);
}

TEST("regular expressions on variables match and capture as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-vars-regexp");
    json_array_foreach(cases, i, row)
    {
        begin(SLICE("/"));
        put_fields(json_object_get(row, "headers"));
        put_vars(json_object_get(row, "vars"));
        expect(row, ask("vars_regexp", json_object_get(row, "match")), i);
        check_captures(json_object_get(row, "captures"));
        end();
    }
    json_decref(cases);
}

TEST("addresses match their ranges, with zones where those are named")
{
    static const struct {
        const char *address, *ranges;
        bool want;
    } cases[] = {
        {"192.168.3.4", "[\"192.168.0.0/16\"]", true},
        {"192.169.3.4", "[\"192.168.0.0/16\"]", false},
        {"192.0.2.1", "[\"192.0.2.1\",\"::1\"]", true},
        {"192.0.2.1", "[\"{env.PORTICO_TEST_RANGE}\"]", true},
        {"2001:db8::1", "[\"2001:db8::/32\"]", true},
        {"192.0.2.1", "[]", false},
        {"@", "[\"::/0\"]", false},
        {"fe80::1%eth0", "[\"fe80::/10\"]", true},
        {"fe80::1%eth0", "[\"fe80::/10%eth0\"]", true},
        {"fe80::1%eth1", "[\"fe80::/10%eth0\"]", false},
        {"fe80::1", "[\"fe80::/10%eth0\"]", false},
    };
    setenv("PORTICO_TEST_RANGE", "192.0.2.0/24", 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin(SLICE("/"));
        x.remote_host = slice_from(cases[i].address);
        x.client_ip = SLICE("203.0.113.9");
        json_t *ranges = json_loads(cases[i].ranges, 0, NULL);
        json_t *config = json_pack("{s:o}", "ranges", ranges);
        bool got = ask("remote_ip", config);
        bool of_client = ask("client_ip", config);
        json_decref(config);
        if (got != cases[i].want || of_client)
            test_fail(__FILE__, __LINE__, "case %zu", i);
        end();
    }
}

TEST("shell patterns match as Go's path.Match does")
{
    static const struct {
        const char *pattern, *name;
        bool want;
    } cases[] = {
        {"abc", "abc", true}, {"*", "abc", true}, {"*c", "abc", true}, {"a*", "a", true},
        {"a*", "ab/c", false}, {"a*/b", "abc/b", true}, {"a*/b", "a/c/b", false},
        {"a*b*c*d*e*/f", "axbxcxdxe/f", true}, {"a*b*c*d*e*/f", "axbxcxdxexxx/fff", false},
        {"a*b?c*x", "abxbbxdbxebxczzx", true}, {"a*b?c*x", "abxbbxdbxebxczzy", false},
        {"ab[c]", "abc", true}, {"ab[b-d]", "abc", true}, {"ab[e-g]", "abc", false},
        {"ab[^c]", "abc", false}, {"ab[^e-g]", "abc", true}, {"a\\*b", "a*b", true},
        {"a\\*b", "ab", false}, {"a?b", "a\xe2\x98\xba" "b", true}, {"[a-\xce\xb6]*", "\xce\xb1", true},
        {"a?b", "a/b", false}, {"[]a]", "]", false}, {"[-]", "-", false}, {"[x-]", "x", false},
        {"[", "a", false}, {"a[", "ab", false}, {"*x", "xxx", true}, {"", "", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (glob_match(slice_from(cases[i].pattern), slice_from(cases[i].name)) != cases[i].want)
            test_fail(__FILE__, __LINE__, "%s on %s", cases[i].pattern, cases[i].name);
    }
}

TEST("what RE2 has not is refused, and a match that takes too long is an error")
{
    static const char *const foreign[] = {"(a)\\1", "(?=a)", "(?<!a)b", "(?>a)", "a++", "(?R)",
                                          "(*FAIL)", "(", "[z-a]"};
    struct regexp *re;
    struct slice groups[REGEXP_GROUPS_MAX], long_text;
    char as[64];
    size_t n;
    begin(SLICE("/"));
    provision.path = SLICE("test");
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        CHECK_INT(regexp_compile(&provision, slice_from(foreign[i]), &re), ERR_INVALID);
        CHECK(strstr(provision.error, "test: compiling") == provision.error);
    }
    CHECK_OK(regexp_compile(&provision, SLICE("^(a+)+$"), &re));
    memset(as, 'a', sizeof as);
    as[sizeof as - 1] = 'b';
    long_text = slice_of(as, sizeof as);
    CHECK_INT(regexp_match(re, long_text, groups, &n), ERR_LIMIT);
    regexp_free(re);
}

TEST("every match is replaced, groups by number and name")
{
    struct regexp *re;
    struct slice out;
    begin(SLICE("/"));
    CHECK_OK(regexp_compile(&provision, SLICE("(?P<first>\\w)(\\d)"), &re));
    CHECK_OK(regexp_replace(re, SLICE("a1-b2"), SLICE("$2${first}$$"), &arena, &out));
    CHECK_TEXT(out, "1a$-2b$");
    CHECK_OK(regexp_replace(re, SLICE("none"), SLICE("x"), &arena, &out));
    CHECK_TEXT(out, "none");
    regexp_free(re);
    CHECK_OK(regexp_compile(&provision, SLICE("x*"), &re));
    CHECK_OK(regexp_replace(re, SLICE("abc"), SLICE("-"), &arena, &out));
    CHECK_TEXT(out, "-a-b-c-");
    CHECK_OK(regexp_replace(re, SLICE("axb"), SLICE("-"), &arena, &out));
    CHECK_TEXT(out, "-a-b-");
    regexp_free(re);
}

static char visited[4096];

static enum err note_visit(const void *cfg, struct exchange *e, const struct chain *next)
{
    size_t n = strlen(visited);
    snprintf(visited + n, sizeof visited - n, "%d ", (int)*(const int64_t *)cfg);
    return chain_next(e, next);
}

/* Forty routes: plain names, several, the same again, wildcards, none, sets with and without. */
static json_t *many_routes(void)
{
    static const char *const kinds[] = {
        "[{\"host\":[\"a%d.example\"]}]", "[{\"host\":[\"A%d.example\",\"b.example\"]}]",
        "[{\"host\":[\"c.example\"]},{\"host\":[\"a%d.example\"]}]",
        "[{\"host\":[\"*.example\",\"d%d.test\"]}]", "[{\"method\":[\"GET\"]},{\"host\":[\"x%d\"]}]",
        "[{\"host\":[\"a%d.example\"],\"method\":[\"POST\"]}]", "null"};
    json_t *list = json_array();
    for (int i = 0; i < 40; i++) {
        char match[200], route[400];
        int kind = i % 3 != 0 ? i % 2 : i / 3 % 7; /* most are plain, so that an index is made */
        snprintf(match, sizeof match, kinds[kind], i % 5);
        snprintf(route, sizeof route, "{\"match\":%s,\"terminal\":%s,\"handle\":[{\"handler\":\"note\","
                 "\"n\":%d}]}", match, i % 19 == 18 ? "true" : "false", i);
        json_array_append_new(list, json_loads(route, 0, NULL));
    }
    return list;
}

TEST("the index of host names leaves out only routes that do not match")
{
    static const char *const hosts[] = {"a0.example", "A1.Example:8080", "b.example", "c.example",
                                        "d2.test", "x3", "other.example", "nowhere", "", "[::1]:80"};
    struct route_list list = {0};
    json_t *routes = many_routes();
    begin(SLICE("/"));
    CHECK_OK(route_list_provision(&list, routes, &provision));
    json_decref(routes);
    CHECK(list.hosts != NULL);
    const struct host_index *index = list.hosts;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        char with[sizeof visited];
        x.req.host = slice_from(hosts[i]);
        list.hosts = index;
        visited[0] = '\0';
        CHECK_OK(route_list_run(&list, &x, NULL));
        memcpy(with, visited, sizeof with);
        list.hosts = NULL;
        visited[0] = '\0';
        CHECK_OK(route_list_run(&list, &x, NULL));
        CHECK_TEXT(slice_from(with), visited);
        CHECK(visited[0] != '\0');
    }
    end();
}

TEST("of a group the first route that matches runs, however many groups there are")
{
    struct route_list list = {0};
    struct map groups;
    char want[sizeof visited] = "";
    json_t *routes = json_array();
    map_init(&groups, false);
    begin(SLICE("/"));
    provision.groups = &groups;
    for (int i = 0; i < 400; i++) { /* two rounds over two hundred groups */
        json_array_append_new(routes, json_pack("{s:o,s:[{s:s,s:i}]}", "group",
                                                json_sprintf("group%d", i % 200), "handle",
                                                "handler", "note", "n", i));
        if (i < 200)
            snprintf(want + strlen(want), sizeof want - strlen(want), "%d ", i);
    }
    CHECK_OK(route_list_provision(&list, routes, &provision));
    json_decref(routes);
    visited[0] = '\0';
    CHECK_OK(route_list_run(&list, &x, NULL));
    CHECK_TEXT(slice_from(visited), want);
    map_deinit(&groups);
    end();
}

TEST("a route whose group has run is matched all the same, and its captures count")
{
    struct route_list list = {0};
    struct map groups;
    struct slice value;
    json_t *routes = json_loads(
        "[{\"group\":\"g\",\"match\":[{\"path_regexp\":{\"name\":\"r\",\"pattern\":\"^/(.)\"}}],"
        "\"handle\":[{\"handler\":\"note\",\"n\":1}]},"
        "{\"group\":\"g\",\"match\":[{\"path_regexp\":{\"name\":\"r\",\"pattern\":\"(.)$\"}}],"
        "\"handle\":[{\"handler\":\"note\",\"n\":2}]}]", 0, NULL);
    map_init(&groups, false);
    begin(SLICE("/ab"));
    provision.groups = &groups;
    CHECK_OK(route_list_provision(&list, routes, &provision));
    json_decref(routes);
    visited[0] = '\0';
    CHECK_OK(route_list_run(&list, &x, NULL));
    CHECK_TEXT(slice_from(visited), "1 ");
    CHECK(placeholder_get(&x, SLICE("http.regexp.r.1"), &value));
    CHECK_TEXT(value, "b");
    map_deinit(&groups);
    end();
}
