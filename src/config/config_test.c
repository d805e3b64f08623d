/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Caddyfile language against Caddy's published tables, and JSON in Go's form.
 */
#include <stdlib.h>

#include "base/test.h"
#include "base/text.h"
#include "config/env_file.h"
#include "config/format.h"
#include "config/jsonx.h"
#include "config/parser.h"
#include "config/table_testing.h"

static struct arena arena;
static struct diag diag;

static void begin(void)
{
    arena_deinit(&arena);
    arena_init(&arena, 65536);
    diag_clear(&diag);
}

static const char *data_path(const char *relative)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/tests/data/%s", getenv("PORTICO_SOURCE"), relative);
    return path;
}

static struct slice text_of(const json_t *j)
{
    return slice_of(json_string_value(j), json_string_length(j));
}

#define FAIL_ROW(row, ...)                                                                         \
    do {                                                                                           \
        char *row_text_ = json_dumps(row, 0);                                                      \
        fprintf(stderr, "# row: %s\n", row_text_);                                                 \
        free(row_text_);                                                                           \
        test_fail(__FILE__, __LINE__, __VA_ARGS__);                                                \
    } while (0)

static void lexer_row(const json_t *row)
{
    struct tokens list = {0};
    const json_t *want = json_object_get(row, "tokens");
    begin();
    enum err e = caddyfile_lex(&arena, SLICE("Testfile"), text_of(json_object_get(row, "input")),
                               &list, &diag);
    if (json_is_null(want)) {
        if (e == OK || !slice_is(text_of(json_object_get(row, "error")), diag.text))
            FAIL_ROW(row, "error is \"%s\"", diag.text);
        return;
    }
    if (e != OK || list.count != json_array_size(want))
        FAIL_ROW(row, "%zu tokens, error %s", list.count, diag.text);
    for (size_t i = 0; i < list.count; i++) {
        const json_t *pair = json_array_get(want, i);
        if (list.items[i].line != json_integer_value(json_array_get(pair, 0)) ||
            !slice_eq(list.items[i].text, text_of(json_array_get(pair, 1))))
            FAIL_ROW(row, "token %zu is %u \"" SLICE_FMT "\"", i, list.items[i].line,
                     SLICE_ARG(list.items[i].text));
    }
}

TEST("the lexer splits text as published")
{
    json_t *all = table_load("caddyfile-lexer");
    FOR_CASES(row, all)
        lexer_row(row);
    json_decref(all);
}

TEST("a token knows its column, and bytes that are not UTF-8 become U+FFFD")
{
    struct tokens list = {0};
    begin();
    CHECK_OK(caddyfile_lex(&arena, SLICE("x"), SLICE("a  b\xff\n\t\"c d\"  e"), &list, &diag));
    CHECK_INT(list.count, 4);
    CHECK_INT(list.items[1].column, 4);
    CHECK_TEXT(list.items[1].text, "b\xef\xbf\xbd");
    CHECK_INT(list.items[2].line, 2);
    CHECK_INT(list.items[2].column, 2);
    CHECK_INT(list.items[2].quote, '"');
    CHECK_INT(list.items[3].column, 9);
    CHECK_INT(caddyfile_lex(&arena, SLICE("x"), SLICE(""), &list, &diag), ERR_INVALID);
    CHECK_TEXT(slice_from(diag.text), "EOF");
}

TEST("environment variables are replaced as published")
{
    json_t *all = table_load("caddyfile-env");
    setenv("FOOBAR", "foobar", 1);
    setenv("CHAINED", "$FOOBAR", 1);
    FOR_CASES(row, all) {
        struct slice out;
        begin();
        CHECK_OK(caddyfile_replace_env(&arena, text_of(json_object_get(row, "input")), &out));
        CHECK_SLICE(out, text_of(json_object_get(row, "expect")));
    }
    json_decref(all);
}

static struct slice test_file(void)
{
    return arena_copy(&arena, slice_from(data_path("config/Testfile")));
}

static bool keys_are(const struct server_block *b, const json_t *want)
{
    if (b->key_count != json_array_size(want))
        return false;
    for (size_t i = 0; i < b->key_count; i++)
        if (!slice_eq(b->keys[i].text, text_of(json_array_get(want, i))))
            return false;
    return true;
}

static void parse_one_row(const json_t *row)
{
    struct server_block b = {0};
    struct slice input = text_of(json_object_get(row, "input"));
    const json_t *want = json_object_get(row, "segment_tokens");
    begin();
    enum err e = caddyfile_parse_first(&arena, test_file(), input, &b, &diag);
    if (input.len == 0)
        e = OK; /* the empty file is an error of the file, not of its first block */
    if ((e != OK) != json_is_true(json_object_get(row, "error")))
        FAIL_ROW(row, "error is \"%s\"", diag.text);
    if (!keys_are(&b, json_object_get(row, "keys")) || b.segment_count != json_array_size(want))
        FAIL_ROW(row, "%zu keys, %zu segments", b.key_count, b.segment_count);
    for (size_t i = 0; i < b.segment_count; i++)
        if ((json_int_t)b.segments[i].count != json_integer_value(json_array_get(want, i)))
            FAIL_ROW(row, "segment %zu has %zu tokens", i, b.segments[i].count);
}

TEST("the first server block is parsed as published")
{
    json_t *all = table_load("caddyfile-parse-one");
    FOR_CASES(row, all)
        parse_one_row(row);
    json_decref(all);
}

TEST("every server block is parsed as published")
{
    json_t *all = table_load("caddyfile-parse-all");
    FOR_CASES(row, all) {
        struct server_blocks blocks;
        const json_t *want = json_object_get(row, "keys");
        begin();
        enum err e = caddyfile_parse(&arena, test_file(), text_of(json_object_get(row, "input")),
                                     &blocks, &diag);
        if ((e != OK) != json_is_true(json_object_get(row, "error")))
            FAIL_ROW(row, "error is \"%s\"", diag.text);
        if (e != OK)
            continue;
        if (blocks.count != json_array_size(want))
            FAIL_ROW(row, "%zu blocks", blocks.count);
        for (size_t i = 0; i < blocks.count; i++)
            if (!keys_are(&blocks.items[i], json_array_get(want, i)))
                FAIL_ROW(row, "keys of block %zu", i);
    }
    json_decref(all);
}

TEST("arguments of imports are replaced as published")
{
    json_t *all = table_load("caddyfile-import-args");
    FOR_CASES(row, all) {
        struct slice args[4];
        const json_t *list = json_object_get(row, "args");
        begin();
        for (size_t i = 0; i < json_array_size(list); i++)
            args[i] = text_of(json_array_get(list, i));
        CHECK_SLICE(import_args(&arena, text_of(json_object_get(row, "input")), args,
                                json_array_size(list)),
                    text_of(json_object_get(row, "expect")));
    }
    json_decref(all);
}

TEST("variadic placeholders are told from others as published")
{
    json_t *all = table_load("caddyfile-variadic");
    FOR_CASES(row, all) {
        size_t from, to;
        struct token t = {.text = text_of(json_object_get(row, "input"))};
        if (import_variadic(&t, 10, &from, &to) != json_is_true(json_object_get(row, "result")))
            FAIL_ROW(row, "another answer");
    }
    json_decref(all);
}

TEST("files of variables are read as published")
{
    json_t *all = table_load("envfile");
    FOR_CASES(row, all) {
        struct env_var *vars;
        size_t count;
        const json_t *want = json_object_get(row, "expect");
        begin();
        enum err e = env_file_parse(&arena, text_of(json_object_get(row, "input")), &vars, &count,
                                    &diag);
        if ((e != OK) != json_is_true(json_object_get(row, "error")))
            FAIL_ROW(row, "error is \"%s\"", diag.text);
        if (e != OK)
            continue;
        if (count != json_object_size(want))
            FAIL_ROW(row, "%zu variables", count);
        for (size_t i = 0; i < count; i++)
            if (!slice_eq(vars[i].value,
                          text_of(json_object_get(want, arena_str(&arena, vars[i].name)))))
                FAIL_ROW(row, SLICE_FMT " is \"" SLICE_FMT "\"", SLICE_ARG(vars[i].name),
                         SLICE_ARG(vars[i].value));
    }
    json_decref(all);
}

static void check_blocks(const char *input, struct server_blocks *blocks)
{
    begin();
    enum err e = caddyfile_parse_alone(&arena, SLICE("Caddyfile"), slice_from(input), blocks, &diag);
    if (e != OK)
        test_fail(__FILE__, __LINE__, "%s", diag.text);
}

TEST("an import brings arguments and blocks")
{
    struct server_blocks b;
    check_blocks("(s) {\n\ta {args[1]} {args[:]}\n\t{block}\n\tb {blocks.two}\n}\n"
                 ":80 {\n\timport s x y {\n\t\tone 1\n\t\ttwo 2 3\n\t}\n\tc\n}\n",
                 &b);
    CHECK_INT(b.count, 1);
    CHECK_INT(b.items[0].segment_count, 6); /* imported words begin a line of their own */
    CHECK_INT(b.items[0].segments[0].count, 4);
    CHECK_TEXT(b.items[0].segments[0].items[1].text, "y");
    CHECK_TEXT(segment_name(&b.items[0].segments[1]), "one");
    CHECK_TEXT(segment_name(&b.items[0].segments[2]), "two");
    CHECK_TEXT(segment_name(&b.items[0].segments[4]), "2");
    CHECK_TEXT(segment_name(&b.items[0].segments[5]), "c");
}

TEST("a snippet that imports itself is refused, and so is a bomb of imports")
{
    struct server_blocks b;
    struct buffer bomb;
    begin();
    CHECK_INT(caddyfile_parse_alone(&arena, SLICE("Caddyfile"),
                                    SLICE("(a) {\n\timport a\n}\n:80 {\n\timport a\n}\n"), &b, &diag),
              ERR_INVALID);
    CHECK(strstr(diag.text, "a cycle of imports exists between Caddyfile:a and Caddyfile:a") != NULL);
    buffer_init(&bomb, 65536);
    buffer_append_f(&bomb, "(s0) {\n\tx y z\n}\n");
    for (int i = 1; i < 40; i++)
        buffer_append_f(&bomb, "(s%d) {\n\timport s%d\n\timport s%d\n}\n", i, i - 1, i - 1);
    buffer_append_f(&bomb, ":80 {\n\timport s39\n}\n");
    begin();
    CHECK(caddyfile_parse_alone(&arena, SLICE("Caddyfile"), buffer_slice(&bomb), &b, &diag) != OK);
    CHECK(strstr(diag.text, "too many imports: more than 10000, at Caddyfile:") != NULL);
    buffer_deinit(&bomb);
}

TEST("an error tells file, line, column and the imports that lead there")
{
    struct server_blocks b;
    begin();
    CHECK_INT(caddyfile_parse_alone(&arena, SLICE("Caddyfile"),
                                    SLICE("(s) {\n\tfoo {}\n}\n:80 {\n\timport s\n}\n"), &b, &diag),
              ERR_INVALID);
    CHECK_TEXT(slice_from(diag.text), "Unexpected '{}' at end of line, at Caddyfile:2 import chain "
                                      "['Caddyfile:5 (import s)']");
    CHECK_INT(diag.line, 2);
    CHECK_INT(diag.column, 6);
    CHECK_TEXT(slice_from(diag.file), "Caddyfile");
}

static struct slice read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return SLICE_NONE;
    char *text = arena_alloc(&arena, 1 << 16);
    size_t n = fread(text, 1, 1 << 16, f);
    fclose(f);
    return slice_of(text, n);
}

TEST("the formatter writes the published form, and its own output stays as it is")
{
    char command[4200];
    char name[512];
    int count = 0;
    begin();
    snprintf(command, sizeof command, "ls %s", data_path("fmt"));
    FILE *list = popen(command, "r");
    CHECK(list != NULL);
    while (fgets(name, sizeof name, list) != NULL) {
        char relative[600];
        struct buffer out;
        size_t len = strcspn(name, "\n");
        if (len < 4 || memcmp(name + len - 3, ".in", 3) != 0)
            continue;
        name[len - 3] = '\0';
        snprintf(relative, sizeof relative, "fmt/%s.in", name);
        struct slice in = read_file(data_path(relative));
        snprintf(relative, sizeof relative, "fmt/%s.out", name);
        struct slice want = read_file(data_path(relative));
        buffer_init(&out, 1 << 20);
        CHECK_OK(caddyfile_format(in, &out));
        if (!slice_eq(buffer_slice(&out), want))
            test_fail(__FILE__, __LINE__, "%s: got\n" SLICE_FMT, name, SLICE_ARG(out));
        buffer_deinit(&out);
        count++;
    }
    pclose(list);
    CHECK_INT(count, 30);
}

TEST("the first line that formatting changes is told, CRLF does not count")
{
    unsigned line;
    CHECK(!caddyfile_format_differs(SLICE(":80 {\r\n\ta b\r\n}\r\n"), &line));
    CHECK(caddyfile_format_differs(SLICE(":80 {\n\ta\n  b\n}\n"), &line));
    CHECK_INT(line, 3);
}

static void check_json(const char *in, const char *compact, const char *pretty)
{
    struct buffer b;
    begin();
    json_t *j = jsonx_load(SLICE("x"), slice_from(in), &diag);
    CHECK(j != NULL);
    buffer_init(&b, 65536);
    CHECK_OK(jsonx_dump(&b, j));
    CHECK_TEXT(buffer_slice(&b), compact);
    buffer_clear(&b);
    CHECK_OK(jsonx_dump_pretty(&b, j));
    CHECK_TEXT(buffer_slice(&b), pretty);
    buffer_deinit(&b);
    json_decref(j);
}

TEST("JSON is written as Go writes it")
{
    check_json("{\"b\": [1, 2.5, {}], \"a\": \"<&>\\u2028\\u0001\\n\\u00e9\"}",
               "{\"b\":[1,2.5,{}],\"a\":\"\\u003c\\u0026\\u003e\\u2028\\u0001\\n\xc3\xa9\"}",
               "{\n\t\"b\": [\n\t\t1,\n\t\t2.5,\n\t\t{}\n\t],\n\t\"a\": "
               "\"\\u003c\\u0026\\u003e\\u2028\\u0001\\n\xc3\xa9\"\n}");
    check_json("[1e21, 1e-7, 0.000001, 123456789012345680000.0, -0.5, 1e-10]",
               "[1e+21,1e-7,0.000001,123456789012345680000,-0.5,1e-10]",
               "[\n\t1e+21,\n\t1e-7,\n\t0.000001,\n\t123456789012345680000,\n\t-0.5,\n\t1e-10\n]");
}

TEST("JSON that is not good is refused with its place")
{
    char deep[3000];
    begin();
    CHECK(jsonx_load(SLICE("x"), SLICE("{\"a\":1,\n\"a\":2}"), &diag) == NULL);
    CHECK_INT(diag.line, 2);
    CHECK(jsonx_load(SLICE("x"), SLICE("{} {}"), &diag) == NULL);
    CHECK(jsonx_load(SLICE("x"), SLICE(""), &diag) == NULL);
    memset(deep, '[', sizeof deep);
    CHECK(jsonx_load(SLICE("x"), slice_of(deep, sizeof deep), &diag) == NULL);
    CHECK(strstr(diag.text, "deeper") != NULL);
}

TEST("a dispenser's scalars are numbers, booleans or text")
{
    struct tokens list = {0};
    struct dispenser d;
    static const char *const want[] = {"1", "-2", "1.5", "true", "\"x\"", "\"7\""};
    begin();
    CHECK_OK(caddyfile_lex(&arena, SLICE("x"), SLICE("1 -2 1.5 true x \"7\""), &list, &diag));
    dispenser_init(&d, list.items, list.count, &arena, &diag);
    for (size_t i = 0; i < 6; i++) {
        struct buffer b;
        CHECK(dispenser_next(&d));
        json_t *j = dispenser_scalar(&d);
        buffer_init(&b, 100);
        CHECK_OK(jsonx_dump(&b, j));
        CHECK_TEXT(buffer_slice(&b), want[i]);
        buffer_deinit(&b);
        json_decref(j);
    }
    CHECK(!dispenser_next(&d));
}

TEST("a long sentence is cut at a whole character")
{
    char text[2100];
    begin();
    memset(text, 'x', sizeof text);
    for (size_t i = 2046; i + 1 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    text[sizeof text - 1] = '\0';
    diag_say(&diag, "%s", text);
    CHECK_INT(strlen(diag.text), 2046);
}

TEST("a sentence is cut at a whole character before its place is told")
{
    char text[1200];
    struct token only = {.text = SLICE("a"), .file = SLICE("f"), .line = 1};
    struct dispenser d;
    begin();
    for (size_t i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    text[sizeof text - 2] = '\0';
    dispenser_init(&d, &only, 1, &arena, &diag);
    CHECK(dispenser_next(&d));
    CHECK(dispenser_err_f(&d, "%s", text) == ERR_INVALID);
    CHECK(utf8_valid(slice_from(diag.text)));
    CHECK(slice_ends(slice_from(diag.text), SLICE("\xc3\xa9, at f:1")));
}
