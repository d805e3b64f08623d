/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The expression matcher against Caddy's table, and the language beyond it.
 */
#include "base/buffer.h"
#include "base/test.h"
#include "config/table_testing.h"
#include "handlers/handlers.h"
#include "http/route.h"
#include "http/uri.h"

static const struct module *const modules[] = {
    &matcher_client_ip, &matcher_expression, &matcher_header, &matcher_header_regexp, &matcher_host,
    &matcher_method, &matcher_path, &matcher_path_regexp, &matcher_protocol, &matcher_query,
    &matcher_remote_ip, &matcher_url_pattern, &matcher_vars, &matcher_vars_regexp, NULL};

static struct arena arena;
static struct exchange x;
static struct provision provision;

static void begin(const char *target)
{
    struct slice authority = SLICE("");
    const char *path = strstr(target, "://");
    arena_init(&arena, 16384);
    provision = (struct provision){.arena = &arena, .modules = modules, .path = SLICE("test")};
    x = (struct exchange){.arena = &arena};
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    x.req.scheme = strncmp(target, "https", 5) == 0 ? SLICE("https") : SLICE("http");
    if (path != NULL) {
        size_t len = strcspn(path + 3, "/");
        authority = slice_of(path + 3, len);
        target = path[3 + len] != '\0' ? path + 3 + len : "/";
    }
    x.req.host = authority;
    x.req.method = SLICE("GET");
    x.req.method_id = METHOD_GET;
    x.req.major = x.req.minor = 1;
    x.remote_host = x.client_ip = SLICE("192.0.2.1");
    x.remote_port = SLICE("1234");
    CHECK_OK(uri_parse(slice_from(target), &x.req.uri, &authority, &arena));
    x.req.original_uri = x.req.uri;
    exchange_set_var(&x, SLICE("http.vars.foo"), SLICE("bar"));
}

static void end(void)
{
    for (struct provision_release *r = provision.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    arena_deinit(&arena);
}

static enum err compile(const json_t *expression, struct matcher_set **sets)
{
    uint32_t count;
    json_t *json = json_pack("[{s:O}]", "expression", expression);
    enum err e = matcher_sets_provision(sets, &count, json, &provision);
    json_decref(json);
    return e;
}

/* Client certificates need TLS: tests of whole programs. */
static bool is_for_later(const json_t *row)
{
    return json_is_true(json_object_get(row, "client_certificate"));
}

static void check_row(const json_t *row, size_t i)
{
    struct matcher_set *sets;
    const char *target = json_string_value(json_object_get(row, "target"));
    const char *name, *method = json_string_value(json_object_get(row, "method"));
    json_t *values, *v;
    bool matches = false;
    size_t k;
    begin(target != NULL && target[0] != '\0' ? target : "/");
    x.req.method = slice_from(method);
    json_object_foreach(json_object_get(row, "headers"), name, values)
        json_array_foreach(values, k, v)
            fields_add(&x.req.fields, slice_from(name), slice_from(json_string_value(v)));
    enum err e = compile(json_object_get(row, "expression"), &sets);
    if ((e != OK) != json_is_true(json_object_get(row, "error")))
        test_fail(__FILE__, __LINE__, "row %zu: %s", i, provision.error);
    if (e == OK)
        CHECK_OK(matcher_sets_match(sets, 1, &x, &matches));
    if (matches != json_is_true(json_object_get(row, "expect")))
        test_fail(__FILE__, __LINE__, "row %zu", i);
    end();
}

TEST("expressions match as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("match-expression");
    CHECK_INT(json_array_size(cases), 54);
    json_array_foreach(cases, i, row)
    {
        if (!is_for_later(row))
            check_row(row, i);
    }
    json_decref(cases);
}

enum outcome { NO, YES, FAILS, REFUSED };

TEST("the language: operators, types, strings, lists, maps, placeholders")
{
    static const struct {
        const char *text;
        enum outcome want;
    } cases[] = {
        {"true", YES}, {"false", NO}, {"!false", YES}, {"!!true", YES}, {"1 == 1", YES},
        {"1 + 2 * 3 == 7", YES}, {"(1 + 2) * 3 == 9", YES}, {"7 / 2 == 3", YES}, {"7 % 4 == 3", YES},
        {"-3 < 2", YES}, {"2 - 3 == -1", YES}, {"1.5 * 2.0 == 3.0", YES}, {"1 < 2 && 2 < 3", YES},
        {"0x10 == 16", YES}, {"1e3 == 1000.0", YES}, {"1u == 1", YES}, {"1 == 1.0", YES},
        {"1 >= 2 || 2 <= 2", YES}, {"1 > 2 || 1 != 1", NO}, {"true || false && false", YES},
        {"1 < 2 ? true : false", YES}, {"1 > 2 ? true : 1 == 1", YES},
        {"'a' + 'b' == 'ab'", YES}, {"'a' < 'b'", YES}, {"\"x\" == 'x'", YES},
        {"'\\n\\x41\\u00e9\\101' == '\\nA\xc3\xa9""A'", YES}, {"r'\\d' == '\\\\d'", YES},
        {"'''it's''' == \"it's\"", YES}, {"'a' in ['a', 'b']", YES}, {"'c' in ['a', 'b']", NO},
        {"'k' in {'k': 1}", YES}, {"{'k': 2}['k'] == 2", YES}, {"{'k': 2}.k == 2", YES},
        {"[1, 2, 3][1] == 2", YES}, {"[1, 2] == [1, 2]", YES}, {"[1] + [2] == [1, 2]", YES},
        {"size('h\xc3\xa9') == 2", YES}, {"size([1, 2]) == 2", YES}, {"'abc'.size() == 3", YES},
        {"int('42') == 42", YES}, {"string(42) == '42'", YES}, {"double('1.5') == 1.5", YES},
        {"'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')", YES},
        {"'abc'.matches('^a.c$')", YES}, {"matches('abc', 'x')", NO},
        {"'AbC'.lowerAscii() == 'abc' && 'AbC'.upperAscii() == 'ABC'", YES},
        {"' a '.trim() == 'a'", YES}, {"'a-b'.replace('-', '+') == 'a+b'", YES},
        {"'a,b'.split(',') == ['a', 'b']", YES}, {"'abc'.indexOf('c') == 2", YES},
        {"null == null", YES}, {"'1' == 1", NO}, {"true // a comment", YES},
        {"{http.request.method} == 'GET'", YES}, {"{http.request.method} != 'GET'", NO},
        {"{http.request.uri.path}.startsWith('/books')", YES},
        {"{http.request.uri.query.n} == 5", YES}, {"{http.request.uri.query.n} > 4.5", YES},
        {"int({http.request.uri.query.n}) + 1 == 6", YES}, {"{http.vars.foo} in ['bar']", YES},
        {"{http.request.uri.query.flag} == true", YES}, {"{http.request.uri.query.none} == ''", YES},
        {"!{http.request.uri.query.flag}", NO}, {"{http.request.uri.query.flag} && true", YES},
        {"path('/books/*') && !method('POST')", YES}, {"path('/x') || query({'n': '5'})", YES},
        {"ph(req, 'http.request.method') == \"GET\"", YES},
        {"1 / 0 == 1", FAILS}, {"true || 1 / 0 == 1", YES}, {"1 / 0 == 1 || true", YES},
        {"1 / 0 == 1 && false", NO}, {"1 / 0 == 1 && true", FAILS}, {"[1][5] == 1", FAILS},
        {"{'a': 1}['b'] == 1", FAILS}, {"'a' < 1", FAILS}, {"int('x') == 1", FAILS},
        {"9223372036854775807 + 1 > 0", FAILS}, {"!{http.request.method}", FAILS},
        {"", REFUSED}, {"1", REFUSED}, {"'a'", REFUSED}, {"1 +", REFUSED}, {"(true", REFUSED},
        {"true true", REFUSED}, {"nope", REFUSED}, {"nope()", REFUSED}, {"'a'.nope()", REFUSED},
        {"'unclosed", REFUSED}, {"'\\q' == ''", REFUSED}, {"99999999999999999999 == 1", REFUSED},
        {"[1, 2", REFUSED}, {"{'a' 1}.a == 1", REFUSED}, {"1 && true", REFUSED}, {"!1", REFUSED},
        {"'a'.matches('(')", REFUSED}, {"'a'.matches('a' + 'b')", REFUSED}, {"size() == 1", REFUSED},
        {"path(1)", REFUSED}, {"header({'a': 1})", REFUSED}, {"= 1", REFUSED}, {"{http.vars.foo}", REFUSED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct matcher_set *sets;
        bool matches = false;
        enum outcome got = REFUSED;
        json_t *text = json_string(cases[i].text);
        CHECK(text != NULL);
        begin("http://example.com/books/1?n=5&flag=true");
        if (compile(text, &sets) == OK) {
            enum err e = matcher_sets_match(sets, 1, &x, &matches);
            got = e != OK ? FAILS : matches ? YES : NO;
            CHECK_INT(x.error.status, e != OK ? 500 : 0); /* what is hidden leaves no trace */
        }
        json_decref(text);
        if (got != cases[i].want)
            test_fail(__FILE__, __LINE__, "%s gives %d: %s " SLICE_FMT, cases[i].text, got,
                      provision.error, SLICE_ARG(x.error.message));
        end();
    }
}

TEST("deep nesting is refused, captures carry the matcher's name, the place is told")
{
    struct matcher_set *sets;
    struct slice value;
    bool matches;
    char deep[400];
    memset(deep, '(', 200);
    memcpy(deep + 200, "true", 5);
    begin("/abc");
    json_t *text = json_string(deep);
    CHECK_INT(compile(text, &sets), ERR_INVALID);
    json_decref(text);
    provision.path = SLICE("test"); /* a failure leaves it at its place */
    memset(deep, '!', 200);
    text = json_string(deep);
    CHECK_INT(compile(text, &sets), ERR_INVALID);
    json_decref(text);
    struct buffer chain;
    buffer_init(&chain, 1 << 16);
    for (int i = 0; i < 40; i++)
        CHECK_OK(BUFFER_PUT(&chain, "1 + "));
    CHECK_OK(BUFFER_PUT(&chain, "1 == 41"));
    text = json_stringn(chain.ptr, chain.len);
    CHECK_INT(compile(text, &sets), ERR_INVALID); /* a deep tree */
    json_decref(text);
    buffer_clear(&chain);
    for (int i = 0; i < 200; i++)
        CHECK_OK(BUFFER_PUT(&chain, "path('/x') || "));
    CHECK_OK(BUFFER_PUT(&chain, "true"));
    text = json_stringn(chain.ptr, chain.len);
    CHECK_OK(compile(text, &sets)); /* a wide one */
    CHECK_OK(matcher_sets_match(sets, 1, &x, &matches));
    CHECK(matches);
    json_decref(text);
    buffer_deinit(&chain);
    text = json_pack("{s:s,s:s}", "expr", "path_regexp('^/(a.)')", "name", "mine");
    CHECK_OK(compile(text, &sets));
    CHECK_OK(matcher_sets_match(sets, 1, &x, &matches));
    CHECK(placeholder_get(&x, SLICE("http.regexp.mine.1"), &value));
    CHECK_TEXT(value, "ab");
    json_decref(text);
    text = json_string("true &&");
    provision.path = SLICE("test");
    CHECK_INT(compile(text, &sets), ERR_INVALID);
    CHECK_TEXT(slice_from(provision.error), "test.match[0]: compiling CEL program: expected a value at "
                                            "column 8: ");
    json_decref(text);
    end();
}
