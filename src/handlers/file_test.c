/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conditions and ranges as values, names and the file matcher against Caddy's published tables; the
 * rest of the file server is asked over real connections, in tests/files_test.py.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/test.h"
#include "config/table_testing.h"
#include "files/file_cache.h"
#include "files/path.h"
#include "handlers/handlers.h"
#include "handlers/listing.h"
#include "http/conditional.h"
#include "http/route.h"
#include "http/uri.h"
#include "loop/loop.h"

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
        {"bytes=-0", 10, RANGE_OUTSIDE, 0, 0, 0}, {"bytes=-5", 0, RANGE_NONE, 0, 0, 0},
        {"bytes=-3", 10, RANGE_SOME, 1, 7, 3}, {"bytes=-20", 10, RANGE_SOME, 1, 0, 10},
        {"bytes=2-200", 10, RANGE_SOME, 1, 2, 8}, {"bytes=0-0, 5-6 ,", 10, RANGE_SOME, 2, 5, 2},
        {"bytes=0-0,20-30", 10, RANGE_SOME, 1, 0, 1}, {"bytes=10-", 10, RANGE_OUTSIDE, 0, 0, 0},
        {"bytes=0-", 0, RANGE_NONE, 0, 0, 0}, {"bytes=-1", 0, RANGE_NONE, 0, 0, 0},
        {"bytes=-0", 10, RANGE_OUTSIDE, 0, 0, 0}, {"bytes=5-4", 10, RANGE_INVALID, 0, 0, 0},
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

/* --- tables --- */

TEST("a request's path never leaves its root, as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("safe-path-join");
    json_array_foreach(cases, i, row)
    {
        struct slice path;
        arena_init(&arena, 4096);
        CHECK_OK(uri_decode(row_slice(row, "path"), &arena, &path));
        CHECK_SLICE(path_join(row_slice(row, "root"), path, &arena), row_slice(row, "expect"));
        arena_deinit(&arena);
    }
    json_decref(cases);
}

TEST("files are hidden as the table says")
{
    size_t i, k;
    json_t *row, *one, *cases = table_rows("file-hidden");
    json_array_foreach(cases, i, row)
    {
        bool hidden = false;
        json_array_foreach(json_object_get(row, "hide"), k, one)
            hidden = hidden || path_hidden_by(slice_from(json_string_value(one)),
                                              row_slice(row, "path"));
        if (hidden != json_is_true(json_object_get(row, "expect")))
            test_fail(__FILE__, __LINE__, "row %zu gives %d", i, hidden);
    }
    json_decref(cases);
}

TEST("names are cleaned as Go's path.Clean does")
{
    static const char *const cases[][2] = {
        {"", "."}, {"/", "/"}, {"a", "a"}, {"a/", "a"}, {"a//b", "a/b"}, {"./a", "a"},
        {"../a", "../a"}, {"../../a", "../../a"}, {"a/..", "."}, {"a/../..", ".."}, {"/..", "/"},
        {"/../a", "/a"}, {"a/../../b", "../b"}, {"/a/./b/../c/", "/a/c"}, {"..", ".."},
        {"...", "..."}, {"/.a", "/.a"}, {"a/b/../..", "."}, {"//", "/"}, {"../..", "../.."},
        {"a/../../../b", "../../b"},
    };
    arena_init(&arena, 4096);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_TEXT(path_clean(slice_from(cases[i][0]), &arena), cases[i][1]);
    CHECK_TEXT(path_absolute(SLICE("/srv/a"), SLICE("../b"), &arena), "/srv/b");
    arena_deinit(&arena);
}

TEST("breadcrumbs are what the table says")
{
    size_t i, k, count;
    json_t *row, *want, *cases = table_rows("browse-breadcrumbs");
    json_array_foreach(cases, i, row)
    {
        arena_init(&arena, 4096);
        struct crumb *crumbs = listing_crumbs(row_slice(row, "path"), &arena, &count);
        CHECK_INT(count, json_array_size(json_object_get(row, "expect")));
        json_array_foreach(json_object_get(row, "expect"), k, want)
        {
            CHECK_SLICE(crumbs[k].link, row_slice(want, "link"));
            CHECK_SLICE(crumbs[k].text, row_slice(want, "text"));
        }
        arena_deinit(&arena);
    }
    json_decref(cases);
}

/* --- the file matcher --- */

static struct exchange x;
static struct loop *loop;
static char folder[64];

static void begin_files(void)
{
    test_folder(folder, sizeof folder);
    CHECK_OK(loop_create(LOOP_EPOLL, &loop));
    file_cache_thread_init();
}

static void end_files(void)
{
    file_cache_thread_deinit();
    loop_destroy(loop);
}

static void put(const char *name, const char *content)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (char *slash = strchr(path + strlen(folder) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, content, strlen(content)) < 0)
        test_fail(__FILE__, __LINE__, "cannot write %s", path);
    close(fd);
}

static const struct module *const modules[] = {&matcher_file, &handler_rewrite, NULL};
static struct provision provision;

static void begin_exchange(struct slice path)
{
    arena_deinit(&arena);
    arena_init(&arena, 16384);
    provision = (struct provision){.arena = &arena, .modules = modules};
    x = (struct exchange){.arena = &arena};
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    x.req.uri.path = path;
    x.req.original_uri = x.req.uri;
}

/* Asks a file matcher whose root is the folder; `more` are further members of its JSON. */
static enum err ask(const char *more, bool *matches)
{
    struct matcher_set *sets;
    uint32_t count;
    json_t *json = json_pack("[{s: o}]", "file", json_loads(more, 0, NULL));
    json_object_set_new(json_object_get(json_array_get(json, 0), "file"), "root",
                        json_string(folder));
    if (matcher_sets_provision(&sets, &count, json, &provision) != OK)
        test_fail(__FILE__, __LINE__, "%s", provision.error);
    json_decref(json);
    return matcher_sets_match(sets, count, &x, matches);
}

static struct slice told(const char *name)
{
    struct slice value = SLICE_NONE;
    (void)placeholder_get(&x, slice_from(name), &value);
    return value;
}

static void put_table_files(void)
{
    static const char *const names[] = {
        "%D9%85%D9%84%D9%81.txt", "foo.php.php/index.php", "foo.txt", "foodir/bar.txt",
        "foodir/foo.txt", "foodir/secr\\et.txt", "index.php", "large.txt", "modtime.txt",
        "notphp.php.txt", "remote.php", "with:in-name.txt", "ملف.txt"};
    begin_files();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        put(names[i], names[i]);
}

static void check_match_table(const char *table, const char *config)
{
    size_t i;
    json_t *row, *cases = table_rows(table);
    put_table_files();
    json_array_foreach(cases, i, row)
    {
        struct slice path, ignored;
        bool matches = false, want = json_is_true(json_object_get(row, "expect"));
        begin_exchange(SLICE_NONE);
        slice_cut(row_slice(row, "path"), '?', &ignored, &path);
        CHECK_OK(uri_decode(ignored, &arena, &path));
        x.req.uri.path = path;
        CHECK_OK(ask(config, &matches));
        if (matches != want)
            test_fail(__FILE__, __LINE__, "row %zu gives %d", i, matches);
        if (!want)
            continue;
        CHECK_SLICE(told("http.matchers.file.relative"), row_slice(row, "relative"));
        CHECK_SLICE(told("http.matchers.file.type"), row_slice(row, "type"));
    }
    json_decref(cases);
    end_files();
}

TEST("the file matcher finds what the table says")
{
    check_match_table("match-file", "{\"try_files\": [\"{http.request.uri.path}\", "
                                    "\"{http.request.uri.path}/\"]}");
}

TEST("the file matcher splits scripts from what follows as the table says")
{
    check_match_table("match-file-php",
                      "{\"try_files\": [\"{http.request.uri.path}\", "
                      "\"{http.request.uri.path}/index.php\"], \"split_path\": [\".php\"]}");
}

TEST("a rewrite to the matched file escapes its name as the table says")
{
    size_t i, k;
    json_t *row, *file, *cases = table_rows("try-files-rewrite");
    json_array_foreach(cases, i, row)
    {
        struct slice ignored;
        struct uri uri;
        bool matches = false;
        begin_files();
        json_array_foreach(json_object_get(row, "files"), k, file)
            put(json_string_value(file), "x");
        begin_exchange(SLICE_NONE);
        CHECK_OK(uri_parse(row_slice(row, "target"), &uri, &ignored, &arena));
        x.req.uri = uri;
        CHECK_OK(ask("{\"try_files\": [\"{http.request.uri.path}\"]}", &matches));
        CHECK(matches);
        void *cfg = arena_zalloc(&arena, handler_rewrite.cfg_size);
        json_t *json = json_pack("{s: s}", "uri", "{http.matchers.file.relative}");
        CHECK_OK(handler_rewrite.provision(cfg, json, &provision));
        json_decref(json);
        struct chain nothing = {.list = &(struct route_list){0}};
        CHECK_OK(handler_rewrite.serve(cfg, &x, &nothing));
        CHECK_SLICE(x.req.uri.path, row_slice(row, "path"));
        CHECK_SLICE(uri_text(&x.req.uri, &arena), row_slice(row, "request_uri"));
        end_files();
    }
    json_decref(cases);
}

TEST("the file matcher's policies choose by order, size and age")
{
    bool matches = false;
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    char path[512];
    begin_files();
    put("small", "1");
    put("big", "0123456789");
    put("old", "12345");
    snprintf(path, sizeof path, "%s/old", folder);
    CHECK_INT(utimensat(AT_FDCWD, path, old, 0), 0);
    static const char *const cases[][2] = {
        {"first_exist", "/old"}, {"smallest_size", "/small"}, {"largest_size", "/big"},
        {"most_recently_modified", "/big"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char config[200];
        snprintf(config, sizeof config, "{\"try_files\": [\"none\", \"old\", \"big\", \"small\"],"
                 "\"try_policy\": \"%s\"}", cases[i][0]);
        begin_exchange(SLICE("/"));
        CHECK_OK(ask(config, &matches));
        CHECK(matches);
        if (i < 3) /* the two young ones may have the same time */
            CHECK_TEXT(told("http.matchers.file.relative"), cases[i][1]);
        else
            CHECK(!slice_is(told("http.matchers.file.relative"), "/old"));
    }
    begin_exchange(SLICE("/"));
    CHECK_OK(ask("{\"try_files\": [\"none\", \"/fall/back\"], \"try_policy\": "
                 "\"first_exist_fallback\"}", &matches));
    CHECK(matches);
    CHECK_TEXT(told("http.matchers.file.relative"), "/fall/back");
    begin_exchange(SLICE("/"));
    CHECK_INT(ask("{\"try_files\": [\"none\", \"=418\"]}", &matches), ERR_FAILED);
    CHECK_INT(x.error.status, 418);
    begin_exchange(SLICE("/[ab]*"));
    CHECK_OK(ask("{\"try_files\": [\"{http.request.uri.path}\"]}", &matches));
    CHECK(!matches);
    end_files();
}
