/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of HTTP/2: what is a request and what is malformed (RFC 9113 §8, RFC 8441), row by row;
 * how a response's fields leave; priorities.
 */
#include "base/test.h"
#include "wire/h1_head.h"
#include "wire/h2_message.h"

static struct arena arena;
static struct hpack_decoder decoder;
static struct hpack_encoder encoder;
static struct http_server server;
static struct request request;
static struct h2_head head;
static struct h2_block block;

static void fresh(void)
{
    hpack_decoder_deinit(&decoder);
    hpack_encoder_deinit(&encoder);
    arena_deinit(&arena);
    hpack_decoder_init(&decoder);
    hpack_encoder_init(&encoder);
    arena_init(&arena, 4096);
    request = (struct request){0};
    block = (struct h2_block){.arena = &arena, .list_max = 16384, .ends = true,
                              .connect_allowed = true};
}

/* "name: value" lines as a block of literals, exactly as they are. A name may begin with ':'. */
static struct slice literal_block(const char *lines)
{
    static char bytes[65536];
    struct slice rest = slice_from(lines), line;
    char *at = bytes;
    while (rest.len > 0) {
        slice_cut(rest, '\n', &line, &rest);
        size_t cut = slice_find_slice(line, SLICE(": "));
        struct slice parts[2] = {slice_take(line, cut), slice_skip(line, cut + 2)};
        *at++ = 0;
        for (int i = 0; i < 2; i++) {
            CHECK(parts[i].len < 127);
            *at++ = (char)parts[i].len;
            memcpy(at, parts[i].ptr, parts[i].len);
            at += parts[i].len;
        }
    }
    return slice_of(bytes, (size_t)(at - bytes));
}

static enum h2_verdict decode(const char *lines)
{
    block.bytes = literal_block(lines);
    request = (struct request){0};
    enum h2_verdict v = h2_request_decode(&decoder, &block, &server, &request, &head);
    CHECK((v == H2_VERDICT_OK || v == H2_VERDICT_TOO_LARGE) == (head.bad == NULL));
    return v;
}

#define GET ":method: GET\n:scheme: https\n:path: /\n:authority: example.com\n"

TEST("a browser's request is taken apart")
{
    fresh();
    block.tls = true;
    CHECK_INT(decode(":method: GET\n:authority: Example.com:8443\n:scheme: https\n:path: /a?b=c\n"
                     "user-agent: x\naccept: */*\nte: Trailers\npriority: u=1, i\nx-empty: \n"),
              H2_VERDICT_OK);
    CHECK_TEXT(request.method, "GET");
    CHECK_INT(request.method_id, METHOD_GET);
    CHECK_TEXT(request.target, "/a?b=c");
    CHECK_TEXT(request.host, "Example.com:8443");
    CHECK_TEXT(request.scheme, "https");
    CHECK(request.major == 2 && request.minor == 0);
    CHECK(!request.has_body && request.content_length == 0 && head.length == -1);
    CHECK_INT(request.fields.count, 5);
    CHECK_TEXT(request.fields.items[0].name, "User-Agent");
    CHECK_TEXT(head.priority, "u=1, i");
}

TEST("a body is told by the stream's end and by content-length")
{
    static const struct {
        bool ends;
        const char *more;
        int verdict;
        bool has_body;
        int64_t length;
    } rows[] = {
        {false, "", H2_VERDICT_OK, true, -1},
        {false, "content-length: 5\n", H2_VERDICT_OK, true, 5},
        {false, "content-length: 0\n", H2_VERDICT_OK, true, 0}, /* trailers may come */
        {true, "content-length: 0\n", H2_VERDICT_OK, false, 0},
        {true, "content-length: 5\n", H2_VERDICT_MALFORMED, false, 0},
        {false, "content-length: 5\ncontent-length: 5\n", H2_VERDICT_MALFORMED, true, 5},
        {false, "content-length: 5, 5\n", H2_VERDICT_MALFORMED, true, 0},
        {false, "content-length: -5\n", H2_VERDICT_MALFORMED, true, 0},
        {false, "content-length: \n", H2_VERDICT_MALFORMED, true, 0},
        {false, "content-length: 9223372036854775808\n", H2_VERDICT_MALFORMED, true, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char lines[400];
        snprintf(lines, sizeof lines, ":method: POST\n:scheme: http\n:path: /\n:authority: a\n%s",
                 rows[i].more);
        fresh();
        block.ends = rows[i].ends;
        CHECK_INT(decode(lines), rows[i].verdict);
        if (rows[i].verdict == H2_VERDICT_OK)
            CHECK(request.has_body == rows[i].has_body &&
                  request.content_length == rows[i].length);
    }
}

TEST("what is malformed is refused")
{
    static const char *const rows[] = {
        "",
        ":method: GET\n:scheme: https\n:authority: a\n",
        ":method: GET\n:path: /\n:authority: a\n",
        ":scheme: https\n:path: /\n:authority: a\n",
        ":method: \n:scheme: https\n:path: /\n:authority: a\n",
        ":method: G T\n:scheme: https\n:path: /\n:authority: a\n",
        ":method: GET\n:scheme: https\n:path: \n:authority: a\n",
        ":method: GET\n:scheme: https\n:path: a\n:authority: a\n",
        ":method: GET\n:scheme: https\n:path: *\n:authority: a\n",
        ":method: GET\n:scheme: https\n:path: /a b\n:authority: a\n",
        ":method: GET\n:scheme: https\n:path: http://a/\n:authority: a\n",
        ":method: GET\n:scheme: ftp\n:path: /\n:authority: a\n",
        ":method: GET\n:scheme: \n:path: /\n:authority: a\n",
        ":method: GET\n:scheme: https\n:path: /\n:authority: u@a\n",
        ":method: GET\n:scheme: https\n:path: /\n:authority: a/b\n",
        ":method: GET\n:scheme: https\n:path: /\n:authority: a:b\n",
        GET ":method: GET\n",
        GET ":path: /\n",
        GET ":scheme: https\n",
        GET ":authority: example.com\n",
        GET ":status: 200\n",
        GET ":unknown: x\n",
        GET ":: x\n",
        "accept: */*\n" GET,
        ":method: GET\n:scheme: https\n:path: /\nx: y\n:authority: a\n",
        GET "host: other.example\n",
        GET "host: example.com\nhost: example.com\n",
        ":method: GET\n:scheme: https\n:path: /\nhost: a b\n",
        GET "Accept: x\n",
        GET "X: x\n",
        GET "a b: x\n",
        GET "a\x80: x\n",
        GET ": x\n",
        GET "x:  y\n",
        GET "x: y \n",
        GET "x: y\t\n",
        GET "x: a\rb\n",
        GET "x: a\x01" "b\n",
        GET "x: a\x7f" "b\n",
        GET "connection: close\n",
        GET "connection: \n",
        GET "keep-alive: 1\n",
        GET "proxy-connection: keep-alive\n",
        GET "transfer-encoding: chunked\n",
        GET "upgrade: websocket\n",
        GET "te: gzip\n",
        GET "te: trailers, gzip\n",
        GET "te: \n",
        ":method: CONNECT\n",
        ":method: CONNECT\n:authority: \n",
        ":method: CONNECT\n:authority: a:1\n:path: /\n",
        ":method: CONNECT\n:authority: a:1\n:scheme: http\n",
        ":method: CONNECT\n:authority: a:1\n:protocol: websocket\n",
        ":method: CONNECT\n:scheme: https\n:path: /\n:protocol: websocket\n",
        ":method: CONNECT\n:authority: a\n:scheme: https\n:path: /\n:protocol: \n",
        GET ":protocol: websocket\n",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fresh();
        enum h2_verdict v = decode(rows[i]);
        if (v != H2_VERDICT_MALFORMED)
            test_fail(__FILE__, __LINE__, "row %zu gives %d: %s", i, (int)v, rows[i]);
        CHECK_INT(decode(GET), H2_VERDICT_OK); /* the connection goes on */
    }
}

TEST("hosts: :authority, Host in its place, both the same, none at all")
{
    fresh();
    CHECK_INT(decode(GET "host: EXAMPLE.com\n"), H2_VERDICT_OK);
    CHECK_TEXT(request.host, "example.com");
    CHECK_INT(request.fields.count, 0);
    CHECK_INT(decode(":method: GET\n:scheme: http\n:path: /\nhost: b:80\n"), H2_VERDICT_OK);
    CHECK_TEXT(request.host, "b:80");
    CHECK_INT(decode(":method: GET\n:scheme: http\n:path: /\n:authority: \nhost: b\n"),
              H2_VERDICT_OK);
    CHECK_TEXT(request.host, "b");
    CHECK_INT(decode(":method: OPTIONS\n:scheme: http\n:path: *\n"), H2_VERDICT_OK);
    CHECK_INT(request.host.len, 0);
}

TEST("crumbs of cookies become one field")
{
    fresh();
    CHECK_INT(decode(GET "cookie: a=b\nx: y\ncookie: c=d\ncookie: \ncookie: e=f\n"),
              H2_VERDICT_OK);
    struct slice cookie;
    CHECK(fields_get(&request.fields, SLICE("Cookie"), &cookie));
    CHECK_TEXT(cookie, "a=b; c=d; e=f");
    CHECK_INT(request.fields.count, 2);
    fresh();
    CHECK_INT(decode(GET "cookie: a=b\n"), H2_VERDICT_OK);
    CHECK(fields_get(&request.fields, SLICE("cookie"), &cookie));
    CHECK_TEXT(cookie, "a=b");
}

TEST("CONNECT has an authority only, an extended one all and a protocol, if it is allowed")
{
    fresh();
    CHECK_INT(decode(":method: CONNECT\n:authority: a:443\n"), H2_VERDICT_OK);
    CHECK_TEXT(request.target, "a:443");
    static const char extended[] = ":method: CONNECT\n:authority: a\n:scheme: https\n:path: /ws\n"
                                   ":protocol: websocket\n";
    CHECK_INT(decode(extended), H2_VERDICT_OK);
    CHECK_TEXT(head.protocol, "websocket");
    CHECK_TEXT(request.target, "/ws");
    block.connect_allowed = false;
    CHECK_INT(decode(extended), H2_VERDICT_MALFORMED);
}

TEST("names with '_' and '.' are left out unless they are expected")
{
    static struct slice expected[] = {{"x_known", 7}};
    fresh();
    CHECK_INT(decode(GET "x_y: 1\nx.y: 2\nx_known: 3\nx-y: 4\n"), H2_VERDICT_OK);
    CHECK_INT(request.fields.count, 1);
    server.underscore_headers = expected;
    server.underscore_count = 1;
    CHECK_INT(decode(GET "x_y: 1\nx.y: 2\nX_known: 3\n"), H2_VERDICT_MALFORMED);
    CHECK_INT(decode(GET "x_y: 1\nx.y: 2\nx_known: 3\n"), H2_VERDICT_OK);
    CHECK_INT(request.fields.count, 1);
    server.underscore_count = 0;
}

TEST("too many fields and too long lists are too large, and the table goes on")
{
    static char lines[8192];
    int n = snprintf(lines, sizeof lines, "%s", GET);
    for (int i = 0; i < H1_FIELDS_MAX; i++)
        n += snprintf(lines + n, sizeof lines - (size_t)n, "a: b\n");
    fresh();
    CHECK_INT(decode(lines), H2_VERDICT_OK);
    snprintf(lines + n, sizeof lines - (size_t)n, "a: b\n");
    CHECK_INT(decode(lines), H2_VERDICT_TOO_LARGE);
    block.list_max = 300;
    CHECK_INT(decode(lines), H2_VERDICT_TOO_LARGE);
    CHECK_TEXT(request.method, "GET");
    CHECK_TEXT(request.target, "/");
    CHECK_INT(decode(GET), H2_VERDICT_OK);
    block.bytes = SLICE("\x80");
    CHECK_INT(h2_request_decode(&decoder, &block, &server, &request, &head), H2_VERDICT_BROKEN);
}

TEST("trailers have no pseudo-header fields, and lose what cannot be one")
{
    static const char *const malformed[] = {":status: 200\n", ":path: /\n", "A: b\n", "te: x\n",
                                            "a:  b\n", "connection: close\n"};
    struct fields trailers;
    const char *why;
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        fresh();
        fields_init(&trailers, &arena);
        block.bytes = literal_block(malformed[i]);
        CHECK_INT(h2_trailers_decode(&decoder, &block, &server, &trailers, &why), H2_VERDICT_MALFORMED);
        CHECK(why != NULL);
    }
    fresh();
    fields_init(&trailers, &arena);
    block.bytes = literal_block("x-sum: 1\ncontent-length: 5\nhost: a\nx_y: 2\n"
                                "x-forwarded-for: b\nexpect: c\n");
    CHECK_INT(h2_trailers_decode(&decoder, &block, &server, &trailers, &why), H2_VERDICT_OK);
    CHECK_INT(trailers.count, 1);
    CHECK_TEXT(trailers.items[0].name, "x-sum");
}

TEST("a block that nobody wants still fills the table")
{
    const char *why;
    fresh();
    CHECK(h2_block_skip(&decoder, SLICE("\x40\x01" "a\x01" "b"), &arena, &why));
    CHECK_INT(decoder.table.count, 1);
    CHECK(!h2_block_skip(&decoder, SLICE("\xff"), &arena, &why));
    CHECK(why != NULL);
}

/* --- responses --- */

static char out[8192];

static void check_out(const char *end, const char *want)
{
    char got[4096];
    size_t n = 0;
    struct hpack_reader r;
    struct hpack_field f;
    hpack_read(&r, &decoder, slice_of(out, (size_t)(end - out)), &arena, 16384);
    while (hpack_next(&r, &f) == HPACK_FIELD)
        n += (size_t)snprintf(got + n, sizeof got - n, SLICE_FMT ": " SLICE_FMT "\n",
                              SLICE_ARG(f.name), SLICE_ARG(f.value));
    CHECK(r.bad == NULL);
    CHECK_TEXT(slice_of(got, n), want);
}

TEST("a response's fields leave in small letters, without what belongs to connections")
{
    struct response res = {.status = 200, .content_length = 1234};
    struct h2_date date = {.second = -1};
    fresh();
    fields_init(&res.fields, &arena);
    fields_add(&res.fields, SLICE("Server"), SLICE("portico"));
    fields_add(&res.fields, SLICE("Connection"), SLICE("close"));
    fields_add(&res.fields, SLICE("Keep-Alive"), SLICE("1"));
    fields_add(&res.fields, SLICE("Transfer-Encoding"), SLICE("chunked"));
    fields_add(&res.fields, SLICE("Upgrade"), SLICE("h2c"));
    fields_add(&res.fields, SLICE("Proxy-Connection"), SLICE("x"));
    fields_add(&res.fields, SLICE("Content-Length"), SLICE("5"));
    fields_add(&res.fields, SLICE("Content-Length"), SLICE("1234"));
    fields_add(&res.fields, SLICE(":status"), SLICE("500"));
    fields_add(&res.fields, SLICE("a b"), SLICE("5"));
    fields_add(&res.fields, SLICE(""), SLICE("5"));
    fields_add(&res.fields, SLICE("X-Lines"), SLICE(" a\r\nb\t"));
    fields_add(&res.fields, SLICE("X-Nul"), SLICE("a\0b"));
    fields_add(&res.fields, SLICE("Set-Cookie"), SLICE("a=b"));
    fields_add(&res.fields, SLICE("Set-Cookie"), SLICE("c=d"));
    for (int i = 0; i < 6; i++) {
        char *end = h2_response_put(&encoder, out, &res, &date, 784111777);
        CHECK((size_t)(end - out) <= h2_block_room(&res.fields));
        check_out(end, ":status: 200\nserver: portico\nx-lines: a  b\nset-cookie: a=b\n"
                       "set-cookie: c=d\ndate: Sun, 06 Nov 1994 08:49:37 GMT\n"
                       "content-length: 1234\n");
    }
    CHECK_INT(date.second, 784111777);
}

TEST("no date twice, none that was removed; no length where none may be")
{
    struct response res = {.status = 304, .content_length = 5};
    struct h2_date date = {.second = -1};
    fresh();
    fields_init(&res.fields, &arena);
    fields_add(&res.fields, SLICE("Date"), SLICE("then"));
    check_out(h2_response_put(&encoder, out, &res, &date, 1), ":status: 304\ndate: then\n");
    fields_remove(&res.fields, SLICE("Date"));
    res.no_date = true;
    res.status = 204;
    check_out(h2_response_put(&encoder, out, &res, &date, 1), ":status: 204\n");
    res.status = 299;
    res.content_length = -1;
    check_out(h2_response_put(&encoder, out, &res, &date, 1), ":status: 299\n");
    fields_add(&res.fields, SLICE("Link"), SLICE("</a>"));
    check_out(h2_inform_put(&encoder, out, 103, &res.fields), ":status: 103\nlink: </a>\n");
    check_out(h2_trailers_put(&encoder, out, &res.fields), "link: </a>\n");
}

TEST("a change of the table's size comes first in whatever block is next")
{
    struct fields none;
    fresh();
    fields_init(&none, &arena);
    hpack_encoder_limit(&encoder, 0);
    char *end = h2_trailers_put(&encoder, out, &none);
    CHECK(end - out == 1 && out[0] == 0x20);
}

TEST("priorities are read as RFC 9218 says, and ignored when malformed")
{
    static const struct {
        const char *value;
        int urgency;
        bool incremental;
    } rows[] = {
        {"", 3, false},
        {"u=0", 0, false},
        {"u=7, i", 7, true},
        {"i, u=1", 1, true},
        {"i=?0", 3, false},
        {"i=?1,u=2", 2, true},
        {"u=8", 3, false},
        {"u=-1", 3, false},
        {"u=1.0", 3, false},
        {"u=\"1\", i", 3, true},
        {"u=1, u=5", 5, false},
        {"u=2;x=y, i;a", 2, true},
        {"foo=(a \"b\" c), u=4", 4, false},
        {"x=\"a, u=1\", i", 3, true},
        {" u=1 ", 1, false},
        {"u=1,", 3, false},
        {"u=", 3, false},
        {"U=1", 3, false},
        {"u=1 i", 3, false},
        {"u=1, x=\"open", 3, false},
        {"u=1, (", 3, false},
        {"=1", 3, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t urgency = 3;
        bool incremental = false;
        h2_priority_parse(slice_from(rows[i].value), &urgency, &incremental);
        if (urgency != rows[i].urgency || incremental != rows[i].incremental)
            test_fail(__FILE__, __LINE__, "\"%s\" gives u=%d i=%d", rows[i].value, urgency,
                      incremental);
    }
}
