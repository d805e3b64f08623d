/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which URL goes by which proxy, by Go's rules.
 */
#include "base/test.h"
#include "client/forward_proxy.h"

static bool by_proxy(const char *no, bool tls, const char *host, uint16_t port)
{
    struct proxy_rules rules = {.http = SLICE("http://p:1"), .https = SLICE("http://q:2"),
                                .no = slice_from(no)};
    struct slice proxy;
    const char *why;
    CHECK_OK(proxy_rules_choose(&rules, tls, slice_from(host), port, &proxy, &why));
    if (proxy.len > 0)
        CHECK_TEXT(proxy, tls ? "http://q:2" : "http://p:1");
    return proxy.len > 0;
}

TEST("each scheme has its proxy, this machine none")
{
    CHECK(by_proxy("", false, "example.com", 80));
    CHECK(by_proxy("", true, "example.com", 443));
    CHECK(!by_proxy("", false, "localhost", 80));
    CHECK(!by_proxy("", true, "127.0.0.1", 443));
    CHECK(!by_proxy("", true, "127.8.8.8", 443));
    CHECK(!by_proxy("", true, "::1", 443));
    CHECK(!by_proxy("", true, "::ffff:127.0.0.1", 443));
    CHECK(by_proxy("", true, "fe80::1%eth0", 443));
    CHECK(by_proxy("", true, "localhost.example", 443));
}

TEST("NO_PROXY holds names, addresses, ranges and ports")
{
    static const struct {
        const char *no, *host;
        uint16_t port;
        bool straight;
    } cases[] = {
        {"*", "example.com", 80, true},
        {"example.com", "example.com", 80, true},
        {"example.com", "www.example.com", 80, true},
        {"example.com", "notexample.com", 80, false},
        {".example.com", "www.example.com", 80, true},
        {".example.com", "example.com", 80, false},
        {"*.example.com", "www.example.com", 80, true},
        {"*.example.com", "example.com", 80, false},
        {" a.test , EXAMPLE.com ", "example.com", 80, true},
        {"example.com:8080", "example.com", 8080, true},
        {"example.com:8080", "example.com", 80, false},
        {"10.0.0.0/8", "10.1.2.3", 80, true},
        {"10.0.0.0/8", "11.1.2.3", 80, false},
        {"10.0.0.0/8", "ten.example", 80, false},
        {"10.0.0.1", "10.0.0.1", 80, true},
        {"10.0.0.1:81", "10.0.0.1", 80, false},
        {"10.0.0.1:81", "10.0.0.1", 81, true},
        {"2001:db8::1", "2001:db8::1", 80, true},
        {"[2001:db8::1]:81", "2001:db8::1", 81, true},
        {"[2001:db8::1]:81", "2001:db8::1", 82, false},
        {"2001:db8::/32", "2001:db8::9", 80, true},
        {",,:80, ,.,*.", "example.com", 80, false},
        {"com", "example.com", 80, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (by_proxy(cases[i].no, false, cases[i].host, cases[i].port) == cases[i].straight)
            test_fail(__FILE__, __LINE__, "%s, %s", cases[i].no, cases[i].host);
    }
}

TEST("HTTP_PROXY does not count in a CGI program, where a client may have set it")
{
    struct proxy_rules rules = {.http = SLICE("p"), .https = SLICE("q"), .no = SLICE(""),
                                .cgi = true};
    struct slice proxy;
    const char *why;
    CHECK_INT(proxy_rules_choose(&rules, false, SLICE("a"), 80, &proxy, &why), ERR_DENIED);
    CHECK_OK(proxy_rules_choose(&rules, false, SLICE("localhost"), 80, &proxy, &why));
    CHECK_OK(proxy_rules_choose(&rules, true, SLICE("a"), 443, &proxy, &why));
    CHECK_TEXT(proxy, "q");
}

TEST("what is shown of a proxy holds no password")
{
    static const char *const rows[][2] = {
        {"http://proxy.example:3128", "http://proxy.example:3128"},
        {"http://me:secret@proxy.example", "http://me:xxxxx@proxy.example"},
        {"socks5://me:se:c@ret@proxy.example", "socks5://me:xxxxx@proxy.example"},
        {"http://secret@proxy.example", "http://xxxxx@proxy.example"},
        {"me:secret@proxy.example:x", "me:xxxxx@proxy.example:x"},
        {"http://me:se/c://ret@proxy.example/@", "http://me:xxxxx@"},
        {"", ""},
    };
    struct arena arena;
    arena_init(&arena, 4096);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_TEXT(forward_proxy_shown(slice_from(rows[i][0]), &arena), rows[i][1]);
    arena_deinit(&arena);
}

TEST("a proxy is a URL, or the rest of one")
{
    struct arena arena;
    struct forward_proxy p;
    const char *why;
    arena_init(&arena, 4096);
    CHECK_OK(forward_proxy_parse(SLICE("proxy.example:3128"), &p, &arena, &why));
    CHECK_TEXT(p.url.hostport, "proxy.example:3128");
    CHECK_INT(p.credentials.len, 0);
    CHECK_OK(forward_proxy_parse(SLICE("https://us:er@proxy.example"), &p, &arena, &why));
    CHECK_TEXT(p.url.hostport, "proxy.example:443");
    CHECK_TEXT(p.credentials, "Basic dXM6ZXI=");
    CHECK(!p.socks);
    CHECK_OK(forward_proxy_parse(SLICE("socks5://us:er@[::1]"), &p, &arena, &why));
    CHECK_TEXT(p.url.hostport, "[::1]:1080");
    CHECK_INT(p.url.port, 1080);
    CHECK_TEXT(p.url.user, "us");
    CHECK(p.socks && !p.url.tls);
    CHECK_OK(forward_proxy_parse(SLICE("SOCKS5h://proxy.example:80"), &p, &arena, &why));
    CHECK_TEXT(p.url.hostport, "proxy.example:80");
    CHECK_INT(forward_proxy_parse(SLICE("socks5://h:x"), &p, &arena, &why), ERR_INVALID);
    CHECK_INT(forward_proxy_parse(SLICE("socks5:h"), &p, &arena, &why), ERR_UNSUPPORTED);
    CHECK_INT(forward_proxy_parse(SLICE("socks4://h:1"), &p, &arena, &why), ERR_UNSUPPORTED);
    CHECK_INT(forward_proxy_parse(SLICE("ftp://h:1"), &p, &arena, &why), ERR_INVALID);
    CHECK_INT(forward_proxy_parse(SLICE(""), &p, &arena, &why), ERR_INVALID);
    arena_deinit(&arena);
}
