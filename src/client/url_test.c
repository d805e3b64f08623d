/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs and references, by tables; the examples of RFC 3986 §5.4 among them.
 */
#include "base/test.h"
#include "client/url.h"

static struct arena arena;
static struct url u;
static const char *why;

static enum err parse(const char *text)
{
    arena_init(&arena, 4096);
    return url_parse(slice_from(text), &u, &arena, &why);
}

static void forget(void)
{
    arena_deinit(&arena);
}

TEST("a URL is taken apart")
{
    static const struct {
        const char *text, *host, *hostport, *authority, *target;
        bool tls;
    } cases[] = {
        {"http://example.com", "example.com", "example.com:80", "example.com", "/", false},
        {"HTTPS://Example.COM:443/a?b#c", "example.com", "example.com:443", "example.com", "/a?b",
         true},
        {"https://example.com:8443?q", "example.com", "example.com:8443", "example.com:8443",
         "/?q", true},
        {"http://example.com:/x", "example.com", "example.com:80", "example.com", "/x", false},
        {"http://[::1]:8080/x", "::1", "[::1]:8080", "[::1]:8080", "/x", false},
        {"http://[FE80::1%25eth0]/", "fe80::1%eth0", "[fe80::1%eth0]:80", "[fe80::1]", "/", false},
        {"http://a_b/c d\"\xc3\xa4", "a_b", "a_b:80", "a_b", "/c%20d%22%C3%A4", false},
        {"http://user:p%40ss@h/", "h", "h:80", "h", "/", false},
        {"http://h/a@b:c", "h", "h:80", "h", "/a@b:c", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_OK(parse(cases[i].text));
        CHECK_TEXT(u.host, cases[i].host);
        CHECK_TEXT(u.hostport, cases[i].hostport);
        CHECK_TEXT(u.authority, cases[i].authority);
        CHECK_TEXT(u.target, cases[i].target);
        CHECK_INT(u.tls, cases[i].tls);
        forget();
    }
}

TEST("user and password are decoded")
{
    CHECK_OK(parse("http://us%65r:p%40s:s@h/"));
    CHECK(u.has_user);
    CHECK_TEXT(u.user, "user");
    CHECK_TEXT(u.password, "p@s:s");
    CHECK_TEXT(url_text(&u, &arena), "http://h/");
    forget();
}

TEST("what is no URL of a web server is refused")
{
    static const char *const texts[] = {
        "", "example.com", "ftp://h/", "http:/h", "http://", "http:///x", "http://:80/",
        "http://h:0/", "http://h:65536/", "http://h:8o/", "http://h:-1/", "http://a b/",
        "http://a/\r\nX: y", "http://a\x7f/", "http://[::1/", "http://[::1]x/", "http://[]/",
        "http://[1.2.3.4]/", "http://[::g]/", "http://[fe80::1%]/", "http://a%41/",
        "http://\xc3\xa4/", "http://u%0d@h/", "http://u%4@h/", "http://u%@h/", "http://a,b/",
        "http://./", "http://.a/"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        why = NULL;
        if (parse(texts[i]) != ERR_INVALID || why == NULL)
            test_fail(__FILE__, __LINE__, "accepted: %s", texts[i]);
        forget();
    }
}

TEST("a reference means what RFC 3986 says it means")
{
    static const struct {
        const char *reference, *means;
    } cases[] = {
        {"http://g/x", "http://g/x"}, {"g", "http://a/b/c/g"}, {"./g", "http://a/b/c/g"},
        {"g/", "http://a/b/c/g/"}, {"/g", "http://a/g"}, {"//g", "http://g/"},
        {"?y", "http://a/b/c/d;p?y"}, {"g?y", "http://a/b/c/g?y"}, {"#s", "http://a/b/c/d;p?q"},
        {"g#s", "http://a/b/c/g"}, {"", "http://a/b/c/d;p?q"}, {".", "http://a/b/c/"},
        {"./", "http://a/b/c/"}, {"..", "http://a/b/"}, {"../g", "http://a/b/g"},
        {"../..", "http://a/"}, {"../../../../g", "http://a/g"}, {"/./g", "http://a/g"},
        {"/../g", "http://a/g"}, {"g.", "http://a/b/c/g."}, {"..g", "http://a/b/c/..g"},
        {"./g/.", "http://a/b/c/g/"}, {"g/./h", "http://a/b/c/g/h"}, {"g/../h", "http://a/b/c/h"},
        {"g?y/../x", "http://a/b/c/g?y/../x"}, {"https://h:1", "https://h:1/"},
    };
    struct url next;
    CHECK_OK(parse("http://a/b/c/d;p?q"));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_OK(url_resolve(&u, slice_from(cases[i].reference), &next, &arena, &why));
        CHECK_TEXT(url_text(&next, &arena), cases[i].means);
    }
    CHECK_INT(url_resolve(&u, SLICE("mailto:x"), &next, &arena, &why), ERR_INVALID);
    CHECK_INT(url_resolve(&u, SLICE("/a\nb"), &next, &arena, &why), ERR_INVALID);
    CHECK_INT(url_resolve(&u, SLICE("//"), &next, &arena, &why), ERR_INVALID);
    forget();
}
