/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of the adapter against Caddy's published tables; whole Caddyfiles are the business of
 * tests/conformance_test.py.
 */
#include "adapter/adapter.h"

#include <stdlib.h>

#include "adapter/conn_policy.h"
#include "pki/subject.h"
#include "adapter/suggest.h"
#include "adapter/upstream_address.h"
#include "base/buffer.h"
#include "base/test.h"
#include "config/table_testing.h"

static struct arena arena;
static struct diag diag;

static void begin(void)
{
    arena_deinit(&arena);
    arena_init(&arena, 65536);
    diag_clear(&diag);
}

static void check_parts(const struct site_address *a, const json_t *row)
{
    CHECK_SLICE(a->scheme, row_slice(row, "scheme"));
    CHECK_SLICE(a->host, row_slice(row, "host"));
    CHECK_SLICE(a->port, row_slice(row, "port"));
    CHECK_SLICE(a->path, row_slice(row, "path"));
}

static struct site_address parts_of(const json_t *row)
{
    return (struct site_address){.original = row_slice(row, "original"),
                                 .scheme = row_slice(row, "scheme"),
                                 .host = row_slice(row, "host"),
                                 .port = row_slice(row, "port"),
                                 .path = row_slice(row, "path")};
}

TEST("site addresses come apart as published")
{
    json_t *all = table_load("site-address");
    FOR_CASES(row, all) {
        struct site_address a;
        begin();
        enum err e = site_address_parse(row_slice(row, "input"), &a, &diag);
        if (json_is_true(json_object_get(row, "error"))) {
            CHECK(e != OK && diag.text[0] != '\0');
        } else {
            CHECK_OK(e);
            check_parts(&a, row);
        }
    }
    json_decref(all);
}

TEST("site addresses have the published normal form")
{
    json_t *all = table_load("site-address-normal");
    FOR_CASES(row, all) {
        struct site_address a;
        begin();
        CHECK_OK(site_address_parse(row_slice(row, "input"), &a, &diag));
        a = site_address_normal(&a, &arena);
        check_parts(&a, row);
    }
    json_decref(all);
}

TEST("site addresses are written as published")
{
    json_t *all = table_load("site-address-string");
    FOR_CASES(row, all) {
        begin();
        struct site_address a = parts_of(row);
        CHECK_SLICE(site_address_text(&a, &arena), row_slice(row, "expect"));
    }
    json_decref(all);
}

TEST("hosts and paths are as specific as published")
{
    json_t *all = table_load("host-specificity");
    FOR_CASES(row, all) {
        CHECK_INT(specificity(row_slice(row, "input")),
                  json_integer_value(json_object_get(row, "expect")));
    }
    json_decref(all);
}

static void check_hosts(struct adapt *a, const struct placed_site *p, bool logger,
                        const json_t *want)
{
    struct slice *hosts;
    size_t count = placed_hosts(a, p, logger, &hosts);
    CHECK_INT(count, json_array_size(want));
    for (size_t i = 0; i < count; i++) {
        size_t k = 0;
        while (k < count && !slice_is(hosts[i], json_string_value(json_array_get(want, k))))
            k++;
        CHECK(k < count);
    }
}

TEST("a site's keys give the published host names")
{
    json_t *all = table_load("site-hosts");
    FOR_CASES(row, all) {
        static struct site site;
        begin();
        struct adapt a = {.arena = &arena, .diag = &diag};
        const json_t *keys = json_object_get(row, "keys");
        struct placed_site p = {.site = &site, .count = json_array_size(keys)};
        p.addresses = ARENA_ARRAY(&arena, struct site_address, p.count + 1);
        for (size_t i = 0; i < p.count; i++)
            p.addresses[i] = parts_of(json_array_get(keys, i));
        check_hosts(&a, &p, false, json_object_get(row, "hosts"));
        check_hosts(&a, &p, true, json_object_get(row, "logger_hosts"));
    }
    json_decref(all);
}

TEST("upstream addresses are read as published")
{
    json_t *all = table_load("upstream-address");
    FOR_CASES(row, all) {
        struct upstream_address u;
        struct address_error why;
        begin();
        enum err e = upstream_address_parse(row_slice(row, "input"), &u, &arena, &why);
        if (json_is_true(json_object_get(row, "error"))) {
            CHECK(e != OK);
        } else {
            CHECK_OK(e);
            CHECK_SLICE(upstream_dial(&u, &arena), row_slice(row, "dial"));
            CHECK_SLICE(u.scheme, row_slice(row, "scheme"));
        }
    }
    json_decref(all);
}

TEST("a wildcard stands for whole labels from the front")
{
    begin();
    CHECK(wildcard_matches(SLICE("a.example.com"), SLICE("*.example.com"), &arena));
    CHECK(wildcard_matches(SLICE("a.b.com"), SLICE("*.*.com"), &arena));
    CHECK(wildcard_matches(SLICE("A.com"), SLICE("a.COM"), &arena));
    CHECK(!wildcard_matches(SLICE("a.b.example.com"), SLICE("*.example.com"), &arena));
    CHECK(!wildcard_matches(SLICE("example.com"), SLICE("*.example.com"), &arena));
    CHECK(!wildcard_matches(SLICE("a.b.com"), SLICE("a.*.com"), &arena));
}

TEST("public names, internal names and addresses are told apart")
{
    CHECK(subject_qualifies_public(SLICE("example.com")));
    CHECK(subject_qualifies_public(SLICE("*.example.com")));
    CHECK(!subject_qualifies_public(SLICE("*.com")));
    CHECK(!subject_qualifies_public(SLICE("localhost")));
    CHECK(!subject_qualifies_public(SLICE("a.internal")));
    CHECK(!subject_qualifies(SLICE("a b")));
    CHECK(!subject_qualifies(SLICE("a.*.com")));
    CHECK(subject_is_internal(SLICE("192.168.1.1")));
    CHECK(subject_is_internal(SLICE("::1")));
    CHECK(!subject_is_internal(SLICE("1.1.1.1")));
    CHECK(subject_is_ip(SLICE("1.1.1.1")));
    CHECK(subject_is_tailscale(SLICE("host.TS.net")));
    CHECK(subject_is_internal(SLICE("0.0.0.1")));
    CHECK(subject_is_internal(SLICE("::")));
    CHECK(!subject_is_internal(SLICE("2606:4700::1111")));
}

TEST("a misspelt word finds the one that was meant")
{
    struct suggestion s = {0};
    suggest(&s, SLICE("revers_proxy"), "respond");
    CHECK(s.word == NULL);
    suggest(&s, SLICE("revers_proxy"), "reverse_proxy");
    CHECK_TEXT(slice_from(s.word), "reverse_proxy");
    s = (struct suggestion){0};
    suggest(&s, SLICE("reidr"), "redir");
    CHECK_TEXT(slice_from(s.word), "redir");
    s = (struct suggestion){0};
    suggest(&s, SLICE("x"), "tls");
    CHECK(s.word == NULL);
}

/* The error of a Caddyfile: its text, line and column. */
static void check_error(const char *text, const char *part, unsigned line, unsigned column)
{
    json_t *document, *warnings;
    begin();
    CHECK(adapt_caddyfile_alone(SLICE("Caddyfile"), slice_from(text), &document, &warnings,
                                &diag) != OK);
    if (strstr(diag.text, part) == NULL)
        test_fail(__FILE__, __LINE__, "\"%s\" does not hold \"%s\"", diag.text, part);
    CHECK_INT(diag.line, line);
    CHECK_INT(diag.column, column);
}

TEST("an error has a place and what to do instead")
{
    check_error(":80 {\n\trespnd hi\n}\n", "did you mean 'respond'?", 2, 2);
    check_error(":80 {\n\thandle {\n\t\tfile_servr\n\t}\n}\n", "did you mean 'file_server'?", 3, 3);
    check_error("{\n\tadmn off\n}\n:80\n", "did you mean 'admin'?", 2, 2);
    check_error(":80 {\n\thandle {\n\t\trespond a b c\n\t}\n}\n", "wrong argument count", 3, 15);
    check_error("ws://a {\n}\n", "the scheme ws:// is only supported in browsers", 1, 1);
    check_error("a:99999 {\n}\n", "port 99999 is out of range", 1, 1);
}

TEST("blocks nested too deep are refused, not followed")
{
    struct buffer text;
    json_t *document, *warnings;
    buffer_init(&text, 1 << 20);
    BUFFER_PUT(&text, ":80 {\n");
    for (int i = 0; i < 5000; i++)
        BUFFER_PUT(&text, "handle {\n");
    for (int i = 0; i < 5001; i++)
        BUFFER_PUT(&text, "}\n");
    begin();
    CHECK(adapt_caddyfile_alone(SLICE("Caddyfile"), buffer_slice(&text), &document, &warnings,
                                &diag) != OK);
    CHECK(strstr(diag.text, "nested deeper than 200 levels") != NULL);
    CHECK_INT(diag.line, 202);
    buffer_deinit(&text);
}

TEST("thousands of sites are placed in no time that anybody waits for")
{
    struct buffer text;
    json_t *document, *warnings;
    buffer_init(&text, 16 << 20);
    for (int i = 0; i < 3000; i++)
        buffer_append_f(&text, "http://host%d.example.com:%d {\n\trespond %d\n}\n", i, 2000 + i % 50,
                        200 + i % 100);
    begin();
    CHECK_OK(adapt_caddyfile_alone(SLICE("Caddyfile"), buffer_slice(&text), &document, &warnings,
                                   &diag));
    const json_t *http = json_object_get(json_object_get(document, "apps"), "http");
    CHECK_INT(json_object_size(json_object_get(http, "servers")), 50);
    json_decref(document);
    json_decref(warnings);
    buffer_deinit(&text);
}

/* --- providers of zones --- */

static json_t *provider_of(const char *dns)
{
    char text[1000];
    json_t *document, *warnings;
    snprintf(text, sizeof text, "e.com {\n\ttls {\n\t\tdns %s\n\t}\n}\n", dns);
    begin();
    if (adapt_caddyfile_alone(SLICE("Caddyfile"), slice_from(text), &document, &warnings,
                              &diag) != OK)
        return NULL;
    const json_t *at = json_object_get(json_object_get(document, "apps"), "tls");
    at = json_array_get(json_object_get(json_object_get(at, "automation"), "policies"), 0);
    at = json_array_get(json_object_get(at, "issuers"), 0);
    at = json_object_get(json_object_get(json_object_get(at, "challenges"), "dns"), "provider");
    json_t *found = json_deep_copy(at);
    json_decref(document);
    json_decref(warnings);
    return found;
}

TEST("dns NAME … gives the JSON of the provider's plugin")
{
    static const char *const rows[][2] = {
        {"cloudflare tok", "{\"api_token\":\"tok\",\"name\":\"cloudflare\"}"},
        {"cloudflare {\n api_token a\n zone_token b\n}",
         "{\"api_token\":\"a\",\"name\":\"cloudflare\",\"zone_token\":\"b\"}"},
        {"digitalocean {\n api_token a\n}", "{\"auth_token\":\"a\",\"name\":\"digitalocean\"}"},
        {"hetzner {env.T}", "{\"api_token\":\"{env.T}\",\"name\":\"hetzner\"}"},
        {"duckdns t {\n override_domain d.duckdns.org\n}",
         "{\"api_token\":\"t\",\"name\":\"duckdns\",\"override_domain\":\"d.duckdns.org\"}"},
        {"acmedns /etc/a.json", "{\"config_file_path\":\"/etc/a.json\",\"name\":\"acmedns\"}"},
        {"acmedns {\n config {\n e.com {\n username u\n fulldomain f\n}\n}\n}",
         "{\"config\":{\"e.com\":{\"fulldomain\":\"f\",\"username\":\"u\"}},\"name\":\"acmedns\"}"},
        {"rfc2136 {\n key_name n\n key_alg hmac-sha256\n key k\n server s:53\n}",
         "{\"key\":\"k\",\"key_alg\":\"hmac-sha256\",\"key_name\":\"n\",\"name\":\"rfc2136\","
         "\"server\":\"s:53\"}"},
        {"exec /bin/hook a {\n timeout 1m\n}",
         "{\"command\":[\"/bin/hook\",\"a\"],\"name\":\"exec\",\"timeout\":60000000000}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *got = provider_of(rows[i][0]);
        char *text = got != NULL ? json_dumps(got, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
        if (text == NULL || strcmp(text, rows[i][1]) != 0)
            test_fail(__FILE__, __LINE__, "%s: %s %s", rows[i][0], text, diag.text);
        free(text);
        json_decref(got);
    }
}

TEST("dns NAME … that a plugin would refuse is refused")
{
    static const char *const rows[][2] = {
        {"cloudflare", "missing API token"},
        {"cloudflare a b", "wrong argument count"},
        {"cloudflare {\n token a\n}", "unrecognized subdirective 'token'"},
        {"duckdns t {\n api_token u\n}", "api_token already set"},
        {"acmedns {\n username u\n}", "exactly one of"},
        {"acmedns /f {\n config {\n e.com {\n username u\n}\n}\n}", "exactly one of"},
        {"rfc2136 {\n key k\n}", "rfc2136: missing key_name"},
        {"exec", "wrong argument count"},
        {"exec /x {\n timeout soon\n}", "not a duration"},
        {"route53", "module not registered: dns.providers.route53"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *got = provider_of(rows[i][0]);
        if (got != NULL || strstr(diag.text, rows[i][1]) == NULL)
            test_fail(__FILE__, __LINE__, "%s: %s", rows[i][0], diag.text);
    }
}
