/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Headers of the PROXY protocol, whole, in every piece, and broken.
 */
#include "net/proxy_header.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/test.h"

static const char *text_of(const struct sockaddr_storage *a)
{
    static char text[80];
    char host[INET6_ADDRSTRLEN];
    bool six = a->ss_family == AF_INET6;
    const struct sockaddr_in *four = (const void *)a;
    const struct sockaddr_in6 *six_in = (const void *)a;
    inet_ntop(a->ss_family, six ? (const void *)&six_in->sin6_addr : (const void *)&four->sin_addr,
              host, sizeof host);
    snprintf(text, sizeof text, "%s|%u", host, ntohs(six ? six_in->sin6_port : four->sin_port));
    return text;
}

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define ADDRESSES_4 "\xc0\0\x02\x01\xc0\0\x02\x02\x30\x39\0\x50"
#define ADDRESSES_6 "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01" \
                    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x30\x39\0\x50"

static const struct {
    struct slice bytes;
    const char *from, *to; /* NULL: not given */
} good[] = {
    {{"PROXY TCP4 192.0.2.1 192.0.2.2 12345 80\r\n", 41}, "192.0.2.1|12345", "192.0.2.2|80"},
    {{"PROXY TCP6 2001:db8::1 2001:db8::2 12345 80\r\n", 45}, "2001:db8::1|12345",
     "2001:db8::2|80"},
    {{"PROXY UNKNOWN\r\n", 15}, NULL, NULL},
    {{"PROXY UNKNOWN what ever 1 2 3\r\n", 31}, NULL, NULL},
    {{V2 "\x21\x11\0\x0c" ADDRESSES_4, 28}, "192.0.2.1|12345", "192.0.2.2|80"},
    {{V2 "\x21\x11\0\x10" ADDRESSES_4 "\x04\0\x01\0", 32}, "192.0.2.1|12345", "192.0.2.2|80"},
    {{V2 "\x21\x21\0\x24" ADDRESSES_6, 52}, "2001:db8::1|12345", "2001:db8::2|80"},
    {{V2 "\x20\0\0\0", 16}, NULL, NULL},
    {{V2 "\x20\x11\0\x0c" ADDRESSES_4, 28}, NULL, NULL},
    {{V2 "\x21\0\0\x02zz", 18}, NULL, NULL},
};

TEST("whole headers are read, with bytes behind them, and every shorter piece waits for more")
{
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct proxy_header h;
        char with_rest[256];
        struct slice s = good[i].bytes;
        memcpy(with_rest, s.ptr, s.len);
        memcpy(with_rest + s.len, "GET / HTTP/1.1", 14);
        CHECK_INT(proxy_header_parse(slice_of(with_rest, s.len + 14), &h), PROXY_DONE);
        CHECK_INT(h.len, s.len);
        CHECK_INT(h.given, good[i].from != NULL);
        if (h.given) {
            CHECK_TEXT(slice_from(text_of(&h.from)), good[i].from);
            CHECK_TEXT(slice_from(text_of(&h.to)), good[i].to);
        }
        for (size_t n = 0; n < s.len; n++) {
            char *piece = malloc(n + 1); /* its end is where AddressSanitizer sees it */
            memcpy(piece, s.ptr, n);
            enum proxy_result r = proxy_header_parse(slice_of(piece, n), &h);
            free(piece);
            CHECK_INT(r, n < (s.ptr[0] == 'P' ? 6 : 12) ? PROXY_UNSURE : PROXY_MORE);
        }
    }
}

TEST("what begins otherwise is no header, what begins well and goes wrong is a bad one")
{
    static const struct slice none[] = {
        {"GET / HTTP/1.1\r\n", 16}, {"PROPFIND ", 9}, {"PROXZ ", 6}, {"\r\nGET", 5}, {"\x16\x03", 2}};
    static const struct slice bad[] = {
        {"PROXY TCP4 192.0.2.1 192.0.2.2 12345 80\n", 40},
        {"PROXY \n", 7},
        {"PROXY \r\n", 8},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 12345\r\n", 38},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 12345 80 \r\n", 42},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 12345 65536\r\n", 44},
        {"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", 37},
        {"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", 40},
        {"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", 36},
        {V2 "\x11\x11\0\x0c" ADDRESSES_4, 28},
        {V2 "\x22\x11\0\x0c" ADDRESSES_4, 28},
        {V2 "\x21\x11\0\x04zzzz", 20},
        {V2 "\x21\x11\xff\xff", 16},
    };
    struct proxy_header h;
    char line[200] = "PROXY TCP4 ";
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        CHECK_INT(proxy_header_parse(none[i], &h), PROXY_NONE);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_INT(proxy_header_parse(bad[i], &h), PROXY_BAD);
    memset(line + 11, '1', sizeof line - 11);
    CHECK_INT(proxy_header_parse(slice_of(line, 107), &h), PROXY_BAD);
    CHECK_INT(proxy_header_parse(slice_of(line, 106), &h), PROXY_MORE);
}

TEST("what is written is what is read")
{
    static const char *const texts[] = {"192.0.2.1", "2001:db8::1",
                                        "abcd:abcd:abcd:abcd:abcd:abcd:abcd:abcd"};
    char out[PROXY_PUT_MAX];
    struct proxy_header h;
    struct ip_address ip;
    for (unsigned version = 1; version <= 2; version++) {
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            CHECK(ip_parse(slice_from(texts[i]), &ip));
            size_t len = proxy_header_put(version, &ip, 65535, out);
            CHECK(len <= sizeof out);
            CHECK_INT(proxy_header_parse(slice_of(out, len), &h), PROXY_DONE);
            CHECK(h.given && h.len == len);
            CHECK_INT(h.from.ss_family, ip.is_six ? AF_INET6 : AF_INET);
            CHECK_INT(ntohs(((struct sockaddr_in *)&h.from)->sin_port), 65535);
            CHECK(memcmp(ip.is_six ? (void *)&((struct sockaddr_in6 *)&h.from)->sin6_addr
                                   : (void *)&((struct sockaddr_in *)&h.from)->sin_addr,
                         ip.bytes, ip.is_six ? 16 : 4) == 0);
        }
        size_t len = proxy_header_put(version, NULL, 0, out);
        CHECK_INT(proxy_header_parse(slice_of(out, len), &h), PROXY_DONE);
        CHECK(!h.given && h.len == len);
    }
}
