/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sink of encode, step by step: bodies of unknown length, flushes, event streams, failures. A
 * handler of this test writes what a script says; a sink at the bottom keeps what arrives.
 */
#include <zlib.h>

#include "base/buffer.h"
#include "base/test.h"
#include "config/table_testing.h"
#include "handlers/encoder.h"
#include "handlers/handlers.h"
#include "http/route.h"
#include "loop/fiber.h"
#include "loop/loop.h"

static struct arena arena;
static struct exchange x;
static struct loop *loop;
static struct buffer arrived;
static char log_text[512]; /* one letter a step: h d f e a */
static int64_t told_length;
static bool done;
static const char *script;
static enum err script_result;

static void note(char letter)
{
    size_t len = strlen(log_text);
    if (len < sizeof log_text - 1)
        log_text[len] = letter;
}

static enum err bottom_inform(struct sink *s, int status, const struct fields *fields)
{
    note('i');
    return OK;
}

static enum err bottom_head(struct sink *s, struct response *res)
{
    note('h');
    told_length = res->content_length;
    res->head_sent = true;
    return OK;
}

static enum err bottom_data(struct sink *s, struct slice bytes, enum lend lend)
{
    note('d');
    return buffer_append(&arrived, bytes);
}

static enum err bottom_flush(struct sink *s)
{
    note('f');
    return OK;
}

static enum err bottom_end(struct sink *s, const struct fields *trailers)
{
    note('e');
    return OK;
}

static void bottom_abort(struct sink *s, enum err why)
{
    note('a');
}

static const struct sink_type bottom_type = {
    .inform = bottom_inform, .head = bottom_head, .data = bottom_data,
    .file = sink_file_as_data, .flush = bottom_flush, .end = bottom_end, .abort = bottom_abort,
};

/* 's' 9 bytes, 'L' 1000, 'X' 40,000 bytes; 'f' flush, 'h' head, '!' fails, '1' early hints. */
static enum err play(void)
{
    static char large[40000];
    memset(large, 'a', sizeof large);
    for (const char *c = script; *c != '\0'; c++) {
        switch (*c) {
        case 's':
            TRY(exchange_data(&x, SLICE("some data"), LEND_BORROWED));
            break;
        case 'L':
            TRY(exchange_data(&x, slice_of(large, 1000), LEND_BORROWED));
            break;
        case 'X':
            TRY(exchange_data(&x, slice_of(large, sizeof large), LEND_BORROWED));
            break;
        case 'f':
            TRY(exchange_flush(&x));
            break;
        case 'h':
            TRY(exchange_head(&x));
            break;
        case '1':
            TRY(x.sink->type->inform(x.sink, 103, &x.res.fields));
            break;
        default:
            return exchange_fail(&x, 500, "as the script says");
        }
    }
    return OK;
}

static enum err provision_script(void *cfg, const json_t *json, struct provision *p)
{
    return OK;
}

static enum err serve_script(const void *cfg, struct exchange *e, const struct chain *next)
{
    return play();
}

static const struct module script_module = {
    .id = "http.handlers.script",
    .cfg_size = 1,
    .provision = provision_script,
    .serve = serve_script,
};

static const struct module *const modules[] = {&handler_encode, &encoder_gzip, &encoder_zstd,
                                               &encoder_br, &script_module, NULL};

static void serve(void *arg)
{
    script_result = route_list_run(arg, &x, NULL);
    if (script_result == OK)
        script_result = exchange_end(&x);
    else
        x.sink->type->abort(x.sink, script_result);
    for (struct exchange_hook *h = x.hooks; h != NULL; h = h->next)
        h->run(&x, h->arg);
    done = true;
    loop_stop(loop);
}

static void add_fields(struct fields *fs, const json_t *json)
{
    const char *name;
    json_t *values, *v;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)json, name, values)
        json_array_foreach(values, i, v)
            fields_add(fs, slice_from(name), slice_from(json_string_value(v)));
}

/* Serves one request with the script; `request` and `response` are fields beside the usual ones. */
static void run(const char *what, const char *type, const json_t *request)
{
    struct route_list list = {0};
    struct sink bottom = {.type = &bottom_type, .exchange = &x};
    json_t *json = json_loads("[{\"handle\":[{\"handler\":\"encode\",\"encodings\":{\"gzip\":{}}},"
                              "{\"handler\":\"script\"}]}]", 0, NULL);
    struct provision p = {.arena = &arena, .modules = modules};
    arena_init(&arena, 16384);
    buffer_init(&arrived, 1 << 20);
    CHECK_OK(route_list_provision(&list, json, &p));
    json_decref(json);
    x = (struct exchange){.arena = &arena, .sink = &bottom};
    x.res.content_length = -1;
    x.req.method_id = METHOD_GET;
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    fields_add(&x.req.fields, SLICE("Accept-Encoding"), SLICE("gzip"));
    add_fields(&x.req.fields, request);
    fields_add(&x.res.fields, SLICE("Content-Type"), slice_from(type));
    script = what;
    memset(log_text, 0, sizeof log_text);
    done = false;
    CHECK_OK(loop_create(LOOP_AUTO, &loop));
    CHECK_OK(fiber_start(loop, serve, &list));
    if (!done)
        loop_run(loop);
    loop_destroy(loop);
}

static void over(void)
{
    buffer_deinit(&arrived);
    arena_deinit(&arena);
}

static bool encoded(void)
{
    return fields_has(&x.res.fields, SLICE("Content-Encoding"));
}

/* Length of what came, decompressed. */
static size_t plain_len(void)
{
    static char out[1 << 17];
    z_stream z = {.next_in = (Bytef *)arrived.ptr, .avail_in = (uInt)arrived.len,
                  .next_out = (Bytef *)out, .avail_out = sizeof out};
    CHECK_INT(inflateInit2(&z, 31), Z_OK);
    int result = inflate(&z, Z_SYNC_FLUSH);
    CHECK(result == Z_STREAM_END || result == Z_OK);
    inflateEnd(&z);
    return z.total_out;
}

TEST("a body of unknown length is gathered until it is enough to decide")
{
    static const struct {
        const char *script, *steps;
        bool encoded;
        int64_t length; /* announced */
        size_t bytes;   /* of content */
    } cases[] = {
        {"L", "hde", true, 0, 1000},     {"s", "hde", false, 9, 9},
        {"sss", "hde", false, 27, 27},   {"sLs", "hde", true, 0, 1018},
        {"", "he", false, 0, 0},         {"h", "he", false, 0, 0},
        {"sf", "hdfe", false, -1, 9},    {"sfL", "hdfde", false, -1, 1009},
        {"fL", "hde", true, 0, 1000},    {"Lf", "hdfde", true, -1, 1000},
        {"LfLfL", "hdfdfde", true, -1, 3000}, {"XX", "hde", true, 0, 80000},
        {"1L", "ihde", true, 0, 1000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        run(cases[i].script, "text/plain", NULL);
        CHECK_OK(script_result);
        size_t bytes = encoded() ? plain_len() : arrived.len;
        bool length = cases[i].encoded && cases[i].length == 0 ? told_length == (int64_t)arrived.len
                                                               : told_length == cases[i].length;
        if (strcmp(log_text, cases[i].steps) != 0 || encoded() != cases[i].encoded ||
            bytes != cases[i].bytes || !length)
            test_fail(__FILE__, __LINE__, "case %zu: %s, %d, %zu, %lld", i, log_text, encoded(), bytes,
                      (long long)told_length);
        over();
    }
}

TEST("a failure behind the head cuts the response, one before it leaves no trace")
{
    run("L!", "text/plain", NULL);
    CHECK_INT(script_result, ERR_FAILED);
    CHECK(x.res.head_sent);
    CHECK_TEXT(slice_from(log_text), "a");
    over();
    run("!", "text/plain", NULL);
    CHECK(!x.res.head_sent && !encoded());
    over();
}

TEST("event streams are told from their head on, as the table says what is one")
{
    size_t i;
    json_t *row, *cases = table_rows("encode-sse");
    json_array_foreach(cases, i, row)
    {
        bool want = json_is_true(json_object_get(row, "want"));
        run("hf", json_string_value(json_object_get(row, "content_type")), NULL);
        CHECK_OK(script_result); /* of others the head waits, and so a flush has nothing to do */
        if ((strchr(log_text, 'f') != NULL) != want)
            test_fail(__FILE__, __LINE__, "row %zu: %s", i, log_text);
        over();
    }
    json_decref(cases);
    run("hsf", "text/event-stream", NULL);
    CHECK(encoded());
    CHECK_TEXT(slice_from(log_text), "hdfde");
    CHECK_INT(plain_len(), 9);
    over();
}

TEST("a request that forbids transforming is not compressed, as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("encode-allowed");
    json_array_foreach(cases, i, row)
    {
        run("L", "text/plain", json_object_get(row, "headers"));
        if (encoded() != json_is_true(json_object_get(row, "expected")))
            test_fail(__FILE__, __LINE__, "row %zu", i);
        over();
    }
    json_decref(cases);
}
