/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heads and chunks, as exact bytes: what is accepted, what each refused form is refused for, and
 * that no place where the input is cut changes the outcome.
 */
#include "base/test.h"
#include "wire/chunked.h"
#include "wire/h1_head.h"
#include "wire/h1_scan.h"

static struct h1_head head;

static enum h1_result parse(struct slice in)
{
    size_t used = 0;
    char *exact = malloc(in.len > 0 ? in.len : 1); /* one byte too far is seen by the sanitizer */
    memcpy(exact, in.ptr, in.len);
    enum h1_result r = h1_parse_request(&head, slice_of(exact, in.len), &used);
    free(exact);
    return r;
}

static const char browser[] =
    "GET /a/b?c=d HTTP/1.1\r\nHost: example.com:8080\r\nUser-Agent: Mozilla/5.0 (X11)\r\n"
    "Accept: */*\r\nCookie: a=b; c=\"d\"\r\nX-Empty:\r\nX-Spaces: \t a b \t \r\n\r\nrest";

TEST("a browser's head is taken apart")
{
    size_t used;
    CHECK_INT(h1_parse_request(&head, slice_of(browser, sizeof browser - 1), &used), H1_DONE);
    CHECK_INT(used, sizeof browser - 1 - 4);
    CHECK_TEXT(head.method, "GET");
    CHECK_TEXT(head.target, "/a/b?c=d");
    CHECK_TEXT(head.host, "example.com:8080");
    CHECK_INT(head.minor, 1);
    CHECK_INT(head.count, 6);
    CHECK_TEXT(head.fields[4].value, "");
    CHECK_TEXT(head.fields[5].value, "a b");
    CHECK(head.keep_alive && head.body == H1_BODY_NONE);
}

TEST("every cut of a head asks for more and is never bad")
{
    for (size_t i = 0; i < sizeof browser - 1 - 4; i++)
        CHECK_INT(parse(slice_of(browser, i)), H1_MORE);
}

TEST("what smuggles, or is malformed, is refused")
{
    static const struct {
        const char *text;
        enum h1_result want;
    } rows[] = {
#define R(line_and_fields) "GET / HTTP/1.1\r\nHost: a\r\n" line_and_fields "\r\n"
        {R("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), H1_BAD},
        {R("Content-Length: 1\r\nContent-Length: 1\r\n"), H1_BAD},
        {R("Content-Length: 1, 1\r\n"), H1_BAD},
        {R("Content-Length: +1\r\n"), H1_BAD},
        {R("Content-Length: 0x1\r\n"), H1_BAD},
        {R("Content-Length: -1\r\n"), H1_BAD},
        {R("Content-Length: 99999999999999999999\r\n"), H1_BAD},
        {R("Content-Length:\r\n"), H1_BAD},
        {R("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), H1_BAD},
        {R("Transfer-Encoding: gzip, chunked\r\n"), H1_CODING},
        {R("Transfer-Encoding: xchunked\r\n"), H1_CODING},
        {R("Transfer-Encoding: \"chunked\"\r\n"), H1_CODING},
        {R("Transfer-Encoding: chunked, identity\r\n"), H1_BAD},
        {R("Transfer-Encoding: chunked, chunked\r\n"), H1_BAD},
        {R("Transfer-Encoding: gzip, chunked, chunked\r\n"), H1_BAD},
        {R("Transfer-Encoding: chunked;q=1\r\n"), H1_CODING},
        {R("Transfer-Encoding: identity\r\n"), H1_CODING},
        {R("Transfer-Encoding:\r\n"), H1_BAD},
        {R("Transfer-Encoding: ,\r\n"), H1_BAD},
        {R("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), H1_BAD},
        {R("Content-Length: 1\r\nContent-Length: 2\r\n"), H1_BAD},
        {R("Content-Length: 1 2\r\n"), H1_BAD},
        {R("Content-Length: 9223372036854775808\r\n"), H1_BAD},
        {R("Expect: 200-maybe\r\n"), H1_EXPECT},
        {R("Expect:\r\n"), H1_EXPECT},
        {R("Transfer-Encoding : chunked\r\n"), H1_BAD},
        {R(" Transfer-Encoding: chunked\r\n"), H1_BAD},
        {R("Transfer-Encoding:\x0b" "chunked\r\n"), H1_BAD},
        {R("X: a\r\n b\r\n"), H1_BAD},
        {R("X: a\nTransfer-Encoding: chunked\r\n"), H1_BAD},
        {R("X: a\rY: b\r\n"), H1_BAD},
        {R("X: a\r\r\n"), H1_BAD},
        {R("X\xc3: a\r\n"), H1_BAD},
        {R("X Y: a\r\n"), H1_BAD},
        {R(": a\r\n"), H1_BAD},
        {R("X\r\n"), H1_BAD},
        {R("Host: b\r\n"), H1_BAD},
        {R("Host: a\r\n"), H1_BAD},
        {"GET / HTTP/1.1\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: a{b}\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: a%zz\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: a%2\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: []\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: [evil.example]\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", H1_BAD},
        {"GET http://a\"b/ HTTP/1.0\r\n\r\n", H1_BAD},
        {"GET http://u@a/ HTTP/1.0\r\n\r\n", H1_BAD},
        {"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", H1_DONE},
        {"GET / HTTP/1.1\r\nHost: x@a\r\n\r\n", H1_BAD},
        {"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", H1_BAD},
        {"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", H1_BAD},
        {"GET a HTTP/1.1\r\nHost: a\r\n\r\n", H1_BAD},
        {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", H1_BAD},
        {"CONNECT b:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", H1_BAD},
        {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", H1_BAD},
        {"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.1\nHost: a\n\n", H1_BAD},
        {"GET /\r\n\r\n", H1_BAD},
        {"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", H1_BAD},
        {"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.x\r\nHost: a\r\n\r\n", H1_BAD},
        {"GET / HTTP/1.10\r\nHost: a\r\n\r\n", H1_BAD},
        {"GET / HTTP/0.9\r\nHost: a\r\n\r\n", H1_VERSION},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", H1_VERSION},
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", H1_VERSION},
        {"GET / HTTP/11\r\nHost: a\r\n\r\n", H1_VERSION},
        {"GET / http/1.1\r\nHost: a\r\n\r\n", H1_BAD},
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", H1_BAD},
        {"\x16\x03\x01\x02\x00\x01", H1_BAD},
        {R("X: \x7f\r\n"), H1_BAD},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        enum h1_result r = parse(slice_from(rows[i].text));
        if (r != rows[i].want)
            test_fail(__FILE__, __LINE__, "row %zu gives %d, want %d: %s", i, r, rows[i].want,
                      rows[i].text);
        CHECK(r != H1_BAD || head.bad != NULL);
    }
}

TEST("a NUL byte in a field value is refused")
{
    CHECK_INT(parse(SLICE("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n")), H1_BAD);
}

TEST("framing, persistence and upgrade come from the fields")
{
    CHECK_INT(parse(SLICE("\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
                          "Expect: 100-Continue\r\nConnection: Upgrade, close\r\n"
                          "Upgrade: websocket\r\n\r\n")), H1_DONE);
    CHECK(head.body == H1_BODY_LENGTH && head.content_length == 5 && head.expect_continue);
    CHECK(!head.keep_alive);
    CHECK_INT(head.upgrade.len, 9);
    CHECK_INT(parse(SLICE("POST / HTTP/1.1\r\nHost:\r\nTransfer-Encoding: Chunked\r\n\r\n")),
              H1_DONE);
    CHECK(head.body == H1_BODY_CHUNKED && head.keep_alive);
    CHECK_INT(parse(SLICE("GET / HTTP/1.0\r\n\r\n")), H1_DONE);
    CHECK(!head.keep_alive && !head.has_host);
    CHECK_INT(parse(SLICE("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")), H1_DONE);
    CHECK(head.keep_alive);
    CHECK_INT(parse(SLICE("GET http://A:80?x HTTP/1.1\r\nHost: a:80\r\n\r\n")), H1_DONE);
    CHECK_INT(head.host.len, 4);
    CHECK_INT(parse(SLICE("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")), H1_DONE);
}

TEST("hosts in all their forms, a higher minor version and odd methods are accepted")
{
    static const char *const hosts[] = {"", "a", "A.b-c_d~e", "a:", "a:80", "127.0.0.1:65535",
                                        "[::1]", "[::1]:8080", "[fe80::1%25eth0]:1", "a%2fb",
                                        "*.x", "[::ffff:1.2.3.4]"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        if (!h1_host_ok(slice_from(hosts[i])))
            test_fail(__FILE__, __LINE__, "%s is refused", hosts[i]);
    }
    CHECK(!h1_host_ok(SLICE("..")) && !h1_host_ok(SLICE("..:80")) && !h1_host_ok(SLICE(".")));
    CHECK_INT(parse(SLICE("GET / HTTP/1.1\r\nHost: ..\r\n\r\n")), H1_BAD);
    CHECK_INT(parse(SLICE("GET http://../ HTTP/1.1\r\nHost: a\r\n\r\n")), H1_BAD);
    CHECK_INT(parse(SLICE("GET / HTTP/1.2\r\nHost: a\r\n\r\n")), H1_DONE);
    CHECK(head.minor == 1 && head.keep_alive);
    CHECK_INT(parse(SLICE("get / HTTP/1.1\r\nHost: a\r\n\r\n")), H1_DONE);
    CHECK_INT(parse(SLICE("!#$%&'*+-.^_`|~ / HTTP/1.1\r\nHost: a\r\n\r\n")), H1_DONE);
    CHECK_INT(parse(SLICE("GET / HTTP/1.1\r\nHost: a\r\nX: \x80\xff\r\n\r\n")), H1_DONE);
    CHECK_INT(parse(SLICE("CONNECT a:1 HTTP/1.1\r\nHost: A:1\r\n\r\n")), H1_DONE);
}

TEST("a method beyond its limit is unknown wherever the input is cut")
{
    char text[200];
    memset(text, 'A', sizeof text);
    CHECK_INT(parse(slice_of(text, H1_METHOD_MAX)), H1_MORE);
    CHECK_INT(parse(slice_of(text, H1_METHOD_MAX + 1)), H1_METHOD);
    snprintf(text + H1_METHOD_MAX + 1, 100, " / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(parse(slice_from(text)), H1_METHOD);
    CHECK_INT(parse(slice_from(text + 1)), H1_DONE);
}

TEST("more fields than the maximum are too large")
{
    char text[8192];
    int n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < H1_FIELDS_MAX; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "A: b\r\n");
    CHECK_INT(parse(slice_of(text, (size_t)n)), H1_TOO_LARGE);
}

TEST("an upstream's answer is framed by its status and fields")
{
    size_t used;
    struct slice in = SLICE("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
    CHECK_INT(h1_parse_response(&head, in, false, &used), H1_DONE);
    CHECK(head.status == 200 && head.body == H1_BODY_LENGTH && head.content_length == 3);
    CHECK_TEXT(head.reason, "OK");
    CHECK_INT(h1_parse_response(&head, in, true, &used), H1_DONE);
    CHECK(head.body == H1_BODY_NONE && head.content_length == 3);
    CHECK_INT(h1_parse_response(&head, SLICE("HTTP/1.0 404\r\n\r\n"), false, &used), H1_DONE);
    CHECK(head.status == 404 && head.body == H1_BODY_CLOSE);
    CHECK_INT(h1_parse_response(&head, SLICE("HTTP/1.1 204 No\r\n\r\n"), false, &used), H1_DONE);
    CHECK_INT(head.body, H1_BODY_NONE);
    CHECK_INT(h1_parse_response(&head, SLICE("HTTP/1.1 20 OK\r\n\r\n"), false, &used), H1_BAD);
    CHECK_INT(h1_parse_response(&head, SLICE("HTTP/1.1 2000 OK\r\n\r\n"), false, &used), H1_BAD);
    CHECK_INT(h1_parse_response(&head, SLICE("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
                                             "Transfer-Encoding: chunked\r\n\r\n"), false, &used),
              H1_BAD);
    CHECK_INT(h1_parse_response(&head, SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
                                false, &used), H1_BAD);
}

static enum chunked_event decode(struct slice in, size_t piece, char *out, size_t *n)
{
    struct chunked c;
    chunked_init(&c);
    *n = 0;
    enum chunked_event e = CHUNKED_MORE;
    while (in.len > 0) {
        struct slice part = slice_take(in, piece), data;
        in = slice_skip(in, piece);
        while ((e = chunked_next(&c, &part, 1000, &data)) == CHUNKED_DATA) {
            memcpy(out + *n, data.ptr, data.len);
            *n += data.len;
        }
        if (e != CHUNKED_MORE)
            return e;
    }
    return e;
}

TEST("chunks are decoded alike in pieces of every size")
{
    struct slice in = SLICE("5\r\nhello\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\n");
    char out[64];
    size_t n;
    for (size_t piece = 1; piece <= in.len; piece++) {
        CHECK_INT(decode(in, piece, out, &n), CHUNKED_LAST);
        CHECK_TEXT(slice_of(out, n), "hello0123456789");
    }
}

TEST("malformed chunks are refused")
{
    static const char *const rows[] = {
        "\r\n", "g\r\n", " 5\r\nhello\r\n", "5 \r\nhello\r\n", "+5\r\nhello\r\n", "0x5\r\nhello\r\n",
        "-1\r\n", "5\nhello\r\n", "5\r\nhelloX\r\n", "5\r\nhello\n", "5\r\nhello\r\r", "5\rhello",
        "5;a\x01\r\n", "5;a\nb\r\n", "fffffffffffffffff\r\n", ";\r\n",
    };
    char out[64];
    size_t n;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        enum chunked_event e = decode(slice_from(rows[i]), 1, out, &n);
        if (e != CHUNKED_BAD)
            test_fail(__FILE__, __LINE__, "row %zu gives %d", i, e);
    }
    char longest[CHUNKED_LINE_MAX + 10];
    memset(longest, 'a', sizeof longest);
    longest[0] = '5';
    longest[1] = ';';
    CHECK_INT(decode(slice_of(longest, sizeof longest), 7, out, &n), CHUNKED_BAD);
}

TEST("one-byte chunks with long extensions are refused after a while, plain ones never are")
{
    static char text[400 * 260];
    static char out[400 * 260];
    size_t len = 0, n;
    char extension[201];
    memset(extension, 'x', 200);
    extension[200] = '\0';
    for (int i = 0; i < 400; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "1;%s\r\na\r\n", extension);
    CHECK_INT(decode(slice_of(text, len), 4096, out, &n), CHUNKED_BAD);
    CHECK(n > 50 && n < 120);
    len = 0;
    for (int i = 0; i < 10000; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "1\r\na\r\n");
    CHECK_INT(decode(slice_of(text, len), 4096, out, &n), CHUNKED_MORE);
    CHECK_INT(n, 10000);
}

TEST("a chunk's size line is written in hexadecimal")
{
    char out[CHUNKED_HEAD_MAX];
    CHECK_TEXT(slice_of(out, chunked_head(out, 0x1f4)), "1f4\r\n");
    CHECK_TEXT(slice_of(out, chunked_head(out, UINT64_MAX)), "ffffffffffffffff\r\n");
}

TEST("the vector scans stop where the scalar ones do, at every place and byte")
{
    char text[67];
    for (unsigned byte = 0; byte < 256; byte++) {
        for (size_t at = 0; at < sizeof text; at += 3) {
            memset(text, 'a', sizeof text);
            text[at] = (char)byte;
            const char *end = text + sizeof text;
            for (size_t from = 0; from < 20; from++) {
                CHECK(h1_scan_value(text + from, end) == h1_scan_value_scalar(text + from, end));
                CHECK(h1_scan_target(text + from, end) == h1_scan_target_scalar(text + from, end));
            }
        }
    }
}

TEST("a plain name is letters, digits and dashes at any length and place")
{
    char name[40];
    for (size_t len = 0; len <= sizeof name; len++) {
        memset(name, 'x', sizeof name);
        CHECK(h1_scan_plain(name, len));
        for (size_t at = 0; at < len; at++) {
            for (int c = 0; c < 256; c++) {
                name[at] = (char)c;
                bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                             (c >= '0' && c <= '9') || c == '-';
                CHECK_INT(h1_scan_plain(name, len), plain);
            }
            name[at] = 'x';
        }
    }
}

TEST("trailers end with an empty line and are as strict as fields")
{
    struct h1_field fields[4];
    unsigned count;
    size_t used;
    const char *why;
    CHECK_INT(h1_parse_trailers(fields, 4, &count, SLICE("A: b\r\nC: d\r\n\r\nX"), &used, &why),
              H1_DONE);
    CHECK_INT(count, 2);
    CHECK_INT(used, 14);
    CHECK_INT(h1_parse_trailers(fields, 4, &count, SLICE("\r\n"), &used, &why), H1_DONE);
    CHECK_INT(h1_parse_trailers(fields, 4, &count, SLICE("A: b\r\n"), &used, &why), H1_MORE);
    CHECK_INT(h1_parse_trailers(fields, 1, &count, SLICE("A: b\r\nC: d\r\n\r\n"), &used, &why),
              H1_TOO_LARGE);
    CHECK_INT(h1_parse_trailers(fields, 4, &count, SLICE("A : b\r\n\r\n"), &used, &why), H1_BAD);
}
