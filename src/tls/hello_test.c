/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hellos as OpenSSL makes them, whole, cut at every byte, in many records, and wrong ones.
 */
#include "tls/hello.h"

#include "tls/tls_testing.h"

static char bytes[20000];
static size_t len;
static struct buffer joined;

static void make_hello(const char *name)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *s = SSL_new(ctx);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    SSL_set_bio(s, in, out);
    SSL_set_connect_state(s);
    if (name != NULL)
        SSL_set_tlsext_host_name(s, name);
    SSL_set_alpn_protos(s, (const unsigned char *)"\x02h2\x08http/1.1", 12);
    SSL_do_handshake(s);
    len = (size_t)BIO_read(out, bytes, sizeof bytes);
    SSL_free(s);
    SSL_CTX_free(ctx);
    buffer_deinit(&joined);
    buffer_init(&joined, HELLO_MAX + 1024);
}

static enum hello_result parse(struct slice in, struct hello *h)
{
    return hello_parse(in, &joined, h);
}

TEST("a hello tells its name, its protocols and what it can do")
{
    struct hello h;
    make_hello("Example.COM");
    CHECK_INT(parse(slice_of(bytes, len), &h), HELLO_DONE);
    CHECK_TEXT(h.server_name, "Example.COM");
    CHECK_SLICE(h.alpn, SLICE("\x02h2\x08http/1.1"));
    CHECK(hello_has(h.versions, 0x0304) && hello_has(h.groups, 29));
    CHECK(hello_has(h.schemes, 0x0403) && hello_has(h.ciphers, 0x1301));
    CHECK(!hello_has(h.ciphers, 0x0042) && !hello_alpn_only(&h, SLICE("h2")));
    make_hello(NULL);
    CHECK_INT(parse(slice_of(bytes, len), &h), HELLO_DONE);
    CHECK_INT(h.server_name.len, 0);
    buffer_deinit(&joined);
}

TEST("cut at every byte it wants more")
{
    struct hello h;
    make_hello("a.example");
    for (size_t n = 0; n < len; n++)
        CHECK_INT(parse(slice_of(bytes, n), &h), HELLO_MORE);
    buffer_deinit(&joined);
}

TEST("one in records of any size is the same")
{
    static char cut[60000];
    struct hello h;
    make_hello("a.example");
    for (size_t size = 1; size < len; size = size * 2 + 1) {
        size_t n = 0;
        for (size_t at = 5; at < len; at += size) {
            size_t k = len - at < size ? len - at : size;
            const char head[5] = {22, 3, 1, (char)(k >> 8), (char)k};
            memcpy(cut + n, head, 5);
            memcpy(cut + n + 5, bytes + at, k);
            n += 5 + k;
        }
        CHECK_INT(parse(slice_of(cut, n - 1), &h), HELLO_MORE);
        CHECK_INT(parse(slice_of(cut, n), &h), HELLO_DONE);
        CHECK_TEXT(h.server_name, "a.example");
    }
    buffer_deinit(&joined);
}

static void check_bad(struct slice in, int alert)
{
    struct hello h;
    CHECK_INT(parse(in, &h), HELLO_BAD);
    CHECK_INT(h.alert, alert);
}

TEST("what is none is refused with the alert that fits, as soon as it shows")
{
    make_hello("a.example");
    check_bad(SLICE("SSH-2.0-x"), 10);
    check_bad(SLICE("\x15\x03\x01\x00\x02\x02\x28"), 10);
    check_bad(SLICE("\x16\x02\x01\x00\x10"), 70);
    check_bad(SLICE("\x16\x03\x01\x48\x01"), 22);
    check_bad(SLICE("\x16\x03\x01\x00\x00"), 10);
    check_bad(SLICE("\x16\x03\x01\x00\x10\x02"), 10);
    check_bad(SLICE("\x16\x03\x01\x00\x10\x01\x00\xff\xff"), 47);
    bytes[len - 1 - 20] ^= 0x7f; /* somewhere in the last extensions: any answer, no harm */
    struct hello h;
    (void)parse(slice_of(bytes, len), &h);
    bytes[9] = 9; /* legacy_version */
    check_bad(slice_of(bytes, len), 70);
    buffer_deinit(&joined);
}

TEST("a request in clear text is known as one")
{
    struct hello h;
    make_hello("a.example");
    CHECK_INT(parse(SLICE("GET / HTTP/1.1\r\n"), &h), HELLO_HTTP);
    CHECK_INT(parse(SLICE("POST "), &h), HELLO_HTTP);
    CHECK_INT(parse(SLICE("OPT"), &h), HELLO_MORE);
    check_bad(SLICE("GEX"), 10);
    buffer_deinit(&joined);
}

static enum hello_result with_name(const char *name, size_t n, struct hello *h)
{
    make_hello("a.example.of.a.name");
    char *at = memmem(bytes, len, "a.example.of.a.name", 19);
    CHECK(at != NULL && n == 19);
    memcpy(at, name, n);
    return parse(slice_of(bytes, len), h);
}

TEST("names that end with a dot or hold a zero are refused")
{
    struct hello h;
    CHECK_INT(with_name("a.example.of.a.nam.", 19, &h), HELLO_BAD);
    CHECK_INT(with_name("a.example.of.a\0name", 19, &h), HELLO_BAD);
    CHECK_INT(with_name("b.example.of.a.name", 19, &h), HELLO_DONE);
    buffer_deinit(&joined);
}
