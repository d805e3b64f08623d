/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header blocks of requests and answers: what they become, and what is wrong with them.
 */
#include "client/h2_heads.h"

#include "base/buffer.h"
#include "base/mem.h"
#include "base/test.h"

struct pair {
    const char *name, *value;
};

/* A block of literals without indexing, as HPACK writes them shortest. */
static struct slice block_of(const struct pair *pairs, struct buffer *b)
{
    buffer_init(b, 1 << 20);
    for (; pairs->name != NULL; pairs++) {
        struct slice name = slice_from(pairs->name), value = slice_from(pairs->value);
        (void)!buffer_append_byte(b, 0);
        (void)!buffer_append_byte(b, (char)name.len);
        (void)!buffer_append(b, name);
        (void)!buffer_append_byte(b, (char)value.len);
        (void)!buffer_append(b, value);
    }
    return buffer_slice(b);
}

static struct {
    struct arena arena;
    struct hpack_decoder decoder;
    struct h2_answer_head *head;
    struct fields trailers;
    const char *why;
} got;

static enum h2_verdict decode(const struct pair *pairs, bool ends, bool trailers, uint32_t max)
{
    struct buffer b;
    arena_init(&got.arena, 4096);
    hpack_decoder_init(&got.decoder);
    got.why = NULL;
    struct h2_block block = {.bytes = block_of(pairs, &b), .arena = &got.arena, .ends = ends,
                             .list_max = max};
    enum h2_verdict v = trailers
                            ? h2_answer_trailers(&got.decoder, &block, &got.trailers, &got.why)
                            : h2_answer_decode(&got.decoder, &block, &got.head, &got.why);
    buffer_deinit(&b);
    return v;
}

static void clean(void)
{
    hpack_decoder_deinit(&got.decoder);
    arena_deinit(&got.arena);
}

TEST("an answer's head is its status, its length and its fields")
{
    const struct pair pairs[] = {{":status", "206"}, {"content-length", "12"}, {"x-request-id", "7"},
                                 {"sec-websocket-protocol", "chat"}, {NULL, NULL}};
    CHECK_INT(decode(pairs, false, false, 65536), H2_VERDICT_OK);
    CHECK_INT(got.head->status, 206);
    CHECK_INT(got.head->length, 12);
    CHECK_INT(got.head->count, 3);
    CHECK_TEXT(got.head->fields[0].name, "Content-Length");
    CHECK_TEXT(got.head->fields[1].name, "X-Request-Id");
    CHECK_TEXT(got.head->fields[1].value, "7");
    CHECK_TEXT(got.head->fields[2].name, "Sec-WebSocket-Protocol");
    clean();
}

TEST("what no answer may be is malformed")
{
    static const struct pair bad[][4] = {
        {{"x", "y"}},
        {{"x", "y"}, {":status", "200"}},
        {{":status", "200"}, {":status", "200"}},
        {{":status", "101"}},
        {{":status", "99"}},
        {{":status", "2000"}},
        {{":status", "2x0"}},
        {{":status", "+20"}},
        {{":status", ""}},
        {{":method", "GET"}, {":status", "200"}},
        {{":status", "200"}, {":path", "/"}},
        {{":status", "200"}, {"X", "y"}},
        {{":status", "200"}, {"x y", "z"}},
        {{":status", "200"}, {"x", "a\rb"}},
        {{":status", "200"}, {"x", "a\nSet-Cookie: b"}},
        {{":status", "200"}, {"x", " a"}},
        {{":status", "200"}, {"x", "a "}},
        {{":status", "200"}, {"connection", "close"}},
        {{":status", "200"}, {"transfer-encoding", "chunked"}},
        {{":status", "200"}, {"keep-alive", "1"}},
        {{":status", "200"}, {"proxy-connection", "x"}},
        {{":status", "200"}, {"upgrade", "x"}},
        {{":status", "200"}, {"te", "trailers"}},
        {{":status", "200"}, {"content-length", "1"}, {"content-length", "1"}},
        {{":status", "200"}, {"content-length", "-1"}},
        {{":status", "200"}, {"content-length", "1, 1"}},
        {{":status", "100"}, {"content-length", "1"}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_INT(decode(bad[i], false, false, 65536), H2_VERDICT_MALFORMED);
        CHECK(got.why != NULL);
        clean();
    }
    const struct pair interim[] = {{":status", "103"}, {NULL, NULL}};
    CHECK_INT(decode(interim, true, false, 65536), H2_VERDICT_MALFORMED);
    clean();
}

TEST("an answer's head has a limit of bytes, and of fields")
{
    struct pair many[132] = {{":status", "200"}};
    for (int i = 1; i < 131; i++)
        many[i] = (struct pair){"a", "b"};
    CHECK_INT(decode(many, false, false, 65536), H2_VERDICT_TOO_LARGE);
    CHECK_TEXT(slice_from(got.why), "too many response header fields");
    clean();
    many[129].name = NULL;
    CHECK_INT(decode(many, false, false, 65536), H2_VERDICT_OK);
    clean();
    CHECK_INT(decode(many, false, false, 1000), H2_VERDICT_TOO_LARGE);
    clean();
}

TEST("trailers are fields and nothing else")
{
    static const struct pair bad[][2] = {{{":status", "200"}}, {{"content-length", "0"}},
                                         {{"connection", "x"}}, {{"a", "b\n"}}};
    const struct pair good[] = {{"grpc-status", "0"}, {NULL, NULL}};
    CHECK_INT(decode(good, true, true, 65536), H2_VERDICT_OK);
    CHECK_INT(got.trailers.count, 1);
    CHECK_TEXT(got.trailers.items[0].name, "Grpc-Status");
    clean();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pair one[] = {bad[i][0], {NULL, NULL}};
        CHECK_INT(decode(one, true, true, 65536), H2_VERDICT_MALFORMED);
        clean();
    }
}

/* The fields of a block that a decoder gives, as "name: value\n". */
static struct slice read_back(struct hpack_decoder *d, struct slice block, struct arena *arena)
{
    struct hpack_reader in;
    struct hpack_field f;
    struct slice all = SLICE("");
    hpack_read(&in, d, block, arena, 65536);
    while (hpack_next(&in, &f) == HPACK_FIELD)
        all = arena_printf(arena, SLICE_FMT SLICE_FMT ": " SLICE_FMT "\n", SLICE_ARG(all),
                           SLICE_ARG(f.name), SLICE_ARG(f.value));
    return all;
}

static void check_request(struct h2_request_head h, const char *want)
{
    struct hpack_encoder e;
    struct hpack_decoder d;
    hpack_encoder_init(&e);
    hpack_decoder_init(&d);
    for (int i = 0; i < 4; i++) { /* the same from the tables */
        struct arena arena;
        arena_init(&arena, 4096);
        size_t room = h2_request_room(&h);
        char *at = mem_alloc(room), *end = h2_request_put(&e, at, &h);
        CHECK((size_t)(end - at) <= room);
        CHECK_TEXT(read_back(&d, slice_of(at, (size_t)(end - at)), &arena), want);
        mem_free(at);
        arena_deinit(&arena);
    }
    hpack_encoder_deinit(&e);
    hpack_decoder_deinit(&d);
}

TEST("a request's fields are those that belong to it")
{
    struct arena arena;
    struct fields fs;
    arena_init(&arena, 4096);
    fields_init(&fs, &arena);
    fields_add(&fs, SLICE("Host"), SLICE("b"));
    fields_add(&fs, SLICE("X-Name"), SLICE(" v\t"));
    fields_add(&fs, SLICE("Connection"), SLICE("close"));
    fields_add(&fs, SLICE("Cookie"), SLICE("a=1; b=2"));
    fields_add(&fs, SLICE("TE"), SLICE("gzip"));
    fields_add(&fs, SLICE("Te"), SLICE("trailers"));
    fields_add(&fs, SLICE("Content-Length"), SLICE("99"));
    fields_add(&fs, SLICE(":path"), SLICE("/evil"));
    fields_add(&fs, SLICE("X-Split"), SLICE("a\r\nb: c"));
    struct h2_request_head h = {SLICE("POST"), SLICE("https"), SLICE("a:1"), SLICE("/p?q"),
                                SLICE_NONE, &fs, 5};
    check_request(h, ":method: POST\n:scheme: https\n:path: /p?q\n:authority: a:1\nx-name: v\n"
                     "cookie: a=1; b=2\nte: trailers\ncontent-length: 5\n");
    fs.count = 0;
    h.length = -1;
    h.method = SLICE("CONNECT");
    check_request(h, ":method: CONNECT\n:authority: a:1\n");
    h.protocol = SLICE("websocket");
    check_request(h, ":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /p?q\n"
                     ":authority: a:1\n");
    arena_deinit(&arena);
}
