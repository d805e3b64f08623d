/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placeholders against Caddy's published tables and, where those say nothing, as sentences.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pem.h"
#include "base/test.h"
#include "base/text.h"
#include "config/table_testing.h"
#include "http/template.h"
#include "http/tls_placeholder.h"
#include "http/uri.h"

static struct arena arena;
static struct exchange x;

static void begin(void)
{
    struct slice ignored;
    arena_deinit(&arena);
    arena_init(&arena, 16384);
    x = (struct exchange){.arena = &arena};
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    x.req.method = x.req.original_method = SLICE("GET");
    x.req.host = SLICE("example.com:80");
    x.req.scheme = SLICE("http");
    x.req.major = x.req.minor = 1;
    CHECK_OK(uri_parse(SLICE("/foo/bar.tar.gz?a=1&b=2"), &x.req.uri, &ignored, &arena));
    x.req.original_uri = x.req.uri;
    x.remote_host = SLICE("192.168.159.32");
    x.remote_port = SLICE("1234");
    x.local_host = SLICE("192.168.159.1");
    x.local_port = SLICE("80");
}

/* A member that is text, or {"bytes": hex} for what is not UTF-8. */
static struct slice member(const json_t *row, const char *key)
{
    const json_t *v = json_object_get(row, key);
    if (json_is_string(v))
        return slice_of(json_string_value(v), json_string_length(v));
    struct slice hex = slice_from(json_string_value(json_object_get(v, "bytes")));
    char *bytes = arena_alloc(&arena, hex.len / 2);
    for (size_t i = 0; i < hex.len / 2; i++)
        bytes[i] = (char)(hex_value(hex.ptr[2 * i]) << 4 | hex_value(hex.ptr[2 * i + 1]));
    return slice_of(bytes, hex.len / 2);
}

static struct slice expand(struct slice text)
{
    struct template t;
    template_compile(&t, text, &arena);
    return template_expand(&t, &x);
}

TEST("every placeholder of an unknown name becomes the empty value, as the table says")
{
    json_t *t = table_load("replacer"), *row;
    size_t i;
    begin();
    json_array_foreach(json_object_get(t, "cases"), i, row)
    {
        struct template compiled;
        template_compile(&compiled, member(row, "input"), &arena);
        CHECK_SLICE(template_expand_or(&compiled, &x, member(row, "empty")), member(row, "expect"));
    }
    CHECK_INT(i, 34);
    json_decref(t);
    arena_deinit(&arena);
}

TEST("the placeholders of a request have the values that the table says")
{
    json_t *t = table_load("http-placeholders"), *row;
    size_t i, checked = 0;
    begin();
    json_array_foreach(json_object_get(t, "cases"), i, row)
    {
        struct slice name = member(row, "get"), value, want = member(row, "expect");
        if (slice_starts(name, SLICE("http.request.tls.")))
            continue; /* below */
        if (slice_is(name, "http.request.scheme"))
            want = SLICE("http"); /* the table's request came by TLS */
        if (!placeholder_get(&x, name, &value))
            test_fail(__FILE__, __LINE__, "unknown: %.*s", SLICE_ARG(name));
        if (!slice_eq(value, want))
            test_fail(__FILE__, __LINE__, "%.*s is \"%.*s\"", SLICE_ARG(name), SLICE_ARG(value));
        checked++;
    }
    CHECK_INT(checked, 28);
    json_decref(t);
    arena_deinit(&arena);
}

static struct slice client_der(const json_t *rows)
{
    size_t i;
    json_t *row;
    struct slice pem = SLICE(""), der = SLICE("");
    struct pem_block block;
    json_array_foreach(rows, i, row)
    {
        if (slice_is(member(row, "get"), "http.request.tls.client.certificate_pem"))
            pem = member(row, "expect");
    }
    CHECK(pem_next(&pem, &block));
    CHECK_OK(pem_decode(&block, &arena, &der));
    return der;
}

TEST("those of TLS have the values that the table says")
{
    json_t *t = table_load("http-placeholders"), *row, *rows = json_object_get(t, "cases");
    struct tls_facts facts = {.version = 0x0304, .cipher_name = "TLS_AES_256_GCM_SHA384",
                              .alpn = SLICE("h2"), .server_name = SLICE("example.com")};
    struct peer_certificate peer;
    struct slice value;
    size_t i, checked = 0;
    begin();
    CHECK_OK(peer_certificate_read(client_der(rows), &arena, &peer));
    json_array_foreach(rows, i, row)
    {
        struct slice name = member(row, "get");
        if (!slice_starts(name, SLICE("http.request.tls.")))
            continue;
        CHECK(tls_placeholder_of(&facts, &peer, slice_skip(name, 17), &arena, &value));
        if (!slice_eq(value, member(row, "expect")))
            test_fail(__FILE__, __LINE__, "%.*s is \"%.*s\"", SLICE_ARG(name), SLICE_ARG(value));
        checked++;
    }
    CHECK_INT(checked, 16);
    CHECK(!tls_placeholder_of(&facts, &peer, SLICE("client.san.x"), &arena, &value));
    CHECK(!tls_placeholder_of(&facts, &peer, SLICE("client.san.ips.x"), &arena, &value));
    CHECK(!tls_placeholder_of(&facts, &peer, SLICE("nothing"), &arena, &value));
    CHECK(tls_placeholder_of(&facts, NULL, SLICE("client.subject"), &arena, &value));
    CHECK_INT(value.len, 0);
    CHECK(!placeholder_get(&x, SLICE("http.request.tls.version"), &value)); /* clear text */
    json_decref(t);
    arena_deinit(&arena);
}

TEST("headers, cookies, variables and path parts are found")
{
    begin();
    fields_add(&x.req.fields, SLICE("X-A"), SLICE("1"));
    fields_add(&x.req.fields, SLICE("x-a"), SLICE("2"));
    fields_add(&x.req.fields, SLICE("Cookie"), SLICE("a=b; sid=\"x y\""));
    fields_add(&x.req.fields, SLICE("cookie"), SLICE("a=c; d=e"));
    exchange_set_var(&x, SLICE("http.vars.root"), SLICE("/srv"));
    CHECK_TEXT(expand(SLICE("{http.request.header.x-a}")), "1,2");
    CHECK_TEXT(expand(SLICE("<{http.request.cookie.sid}>")), "<x y>");
    CHECK_TEXT(expand(SLICE("{http.request.cookie.a} {http.request.cookie.D}")), "b e");
    CHECK_TEXT(expand(SLICE("{http.vars.root}/{http.request.uri.path.1}")), "/srv/bar.tar.gz");
    CHECK_TEXT(expand(SLICE("[{http.vars.none}{http.request.uri.path.9}]")), "[]");
    setenv("PORTICO_TEMPLATE_TEST", "here", 1);
    CHECK_TEXT(expand(SLICE("{env.PORTICO_TEMPLATE_TEST}")), "here");
    arena_deinit(&arena);
}

TEST("known placeholders are replaced and unknown ones kept")
{
    struct template t;
    begin();
    template_compile(&t, SLICE("{http.request.method} {no.such} \\{x\\}"), &arena);
    CHECK_TEXT(template_expand_known(&t, &x), "GET {no.such} {x}");
    CHECK(!t.constant);
    template_compile(&t, SLICE("{te{http.request.method}{as{{df{http.request.port}"), &arena);
    CHECK_TEXT(template_expand_known(&t, &x), "{teGET{as{{df80");
    arena_deinit(&arena);
}

TEST("a value is never expanded again")
{
    begin();
    fields_add(&x.req.fields, SLICE("Evil"), SLICE("{env.HOME}"));
    CHECK_TEXT(expand(SLICE("a{http.request.header.Evil}b")), "a{env.HOME}b");
    arena_deinit(&arena);
}

TEST("a status is three digits or nothing")
{
    struct template t;
    int status;
    begin();
    template_compile(&t, SLICE("{http.vars.s}"), &arena);
    exchange_set_var(&x, SLICE("http.vars.s"), SLICE("404"));
    CHECK(template_status(&t, &x, &status) && status == 404);
    exchange_set_var(&x, SLICE("http.vars.s"), SLICE("99"));
    CHECK(!template_status(&t, &x, &status));
    exchange_set_var(&x, SLICE("http.vars.s"), SLICE("abc"));
    CHECK(!template_status(&t, &x, &status));
    arena_deinit(&arena);
}

TEST("a file's content is read each time, and what is no file gives nothing")
{
    char path[] = "/tmp/portico-placeholder-XXXXXX", name[96], fifo[64];
    int fd = mkstemp(path);
    begin();
    CHECK(fd >= 0 && write(fd, "se\ncret\r\n", 9) == 9);
    snprintf(name, sizeof name, "<{file.%s}>", path);
    CHECK_TEXT(expand(slice_from(name)), "<se\ncret>");
    CHECK(ftruncate(fd, 0) == 0);
    CHECK_TEXT(expand(slice_from(name)), "<>");
    CHECK(ftruncate(fd, (1 << 20) + 1) == 0);
    log_set_threshold(LOG_FATAL);
    CHECK_TEXT(expand(slice_from(name)), "<>");
    CHECK_TEXT(expand(SLICE("<{file./tmp}{file./nowhere/x}>")), "<>");
    snprintf(fifo, sizeof fifo, "%s.fifo", path);
    CHECK_INT(mkfifo(fifo, 0600), 0); /* must not block */
    snprintf(name, sizeof name, "<{file.%s}>", fifo);
    CHECK_TEXT(expand(slice_from(name)), "<>");
    log_set_threshold(LOG_INFO);
    unlink(fifo);
    unlink(path);
    close(fd);
}

TEST("a request has one UUID")
{
    begin();
    struct slice first = arena_copy(&arena, expand(SLICE("{http.request.uuid}")));
    CHECK_INT(first.len, 36);
    CHECK_INT(first.ptr[14], '4');
    CHECK_SLICE(expand(SLICE("{http.request.uuid}")), first);
    arena_deinit(&arena);
}

TEST("the time is told in all of Caddy's forms")
{
    static const struct {
        const char *name;
        size_t len;
    } cases[] = {{"{time.now.year}", 4}, {"{time.now.unix}", 10}, {"{time.now.unix_ms}", 13},
                 {"{time.now.common_log}", 26}, {"{time.now.http}", 29}};
    begin();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_INT(expand(slice_from(cases[i].name)).len, cases[i].len);
    CHECK(expand(SLICE("{time.now}")).len >= 26);
    CHECK(expand(SLICE("{system.wd}")).ptr[0] == '/');
    CHECK(expand(SLICE("{system.arch}")).ptr[0] != '{');
    arena_deinit(&arena);
}

TEST("without a request only what is known of the process is replaced")
{
    begin();
    setenv("TEMPLATE_TEST", "v", 1);
    struct slice text = SLICE("a{env.TEMPLATE_TEST}b{http.request.host}{no.such}");
    CHECK_TEXT(template_expand_known_now(text, &arena), "avb{http.request.host}{no.such}");
    CHECK_TEXT(template_expand_now(text, &arena), "avb");
    arena_deinit(&arena);
}
