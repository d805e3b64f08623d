/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What authorities tell, read: good answers of real ones, and bad ones.
 */
#include "base/test.h"
#include "certs/acme_objects.h"

static struct arena arena;
static struct acme_why why;

static struct arena *fresh(void)
{
    arena_deinit(&arena);
    arena_init(&arena, 4096);
    return &arena;
}

TEST("a directory is read with what it lacks and what nobody knows")
{
    struct acme_directory d;
    CHECK_OK(acme_directory_read(SLICE(
        "{\"newNonce\":\"https://a/n\",\"newAccount\":\"https://a/a\",\"newOrder\":\"https://a/o\","
        "\"renewalInfo\":\"https://a/r\",\"x7\":\"https://community\",\"meta\":{"
        "\"externalAccountRequired\":true,\"termsOfService\":\"https://a/t\","
        "\"profiles\":{\"classic\":\"as ever\",\"shortlived\":\"six days\"}}}"), fresh(), &d, &why));
    CHECK_TEXT(d.new_order, "https://a/o");
    CHECK_TEXT(d.renewal_info, "https://a/r");
    CHECK_INT(d.revoke_cert.len, 0);
    CHECK(d.binding_required);
    CHECK_INT(d.profiles_count, 2);
    CHECK_TEXT(d.profiles[1].name, "shortlived");
    arena_deinit(&arena);
}

TEST("a directory without its URLs, or with other things than URLs, is refused with a sentence")
{
    struct acme_directory d;
    CHECK_INT(acme_directory_read(SLICE("{}"), fresh(), &d, &why), ERR_INVALID);
    CHECK_TEXT(slice_from(why.text), "the answer lacks \"newNonce\"");
    CHECK_INT(acme_directory_read(SLICE("{\"newNonce\":\"file:///etc/passwd\"}"), fresh(), &d, &why),
              ERR_INVALID);
    CHECK_INT(acme_directory_read(SLICE("{\"newNonce\":7}"), fresh(), &d, &why), ERR_INVALID);
    CHECK_INT(acme_directory_read(SLICE("[]"), fresh(), &d, &why), ERR_INVALID);
    CHECK_INT(acme_directory_read(SLICE("<html>"), fresh(), &d, &why), ERR_INVALID);
    CHECK_INT(acme_directory_read(SLICE(""), fresh(), &d, &why), ERR_INVALID);
    arena_deinit(&arena);
}

TEST("depth and size of an answer are limited")
{
    struct acme_directory d;
    struct buffer b;
    buffer_init(&b, 4 << 20);
    for (int i = 0; i < 100; i++)
        CHECK_OK(BUFFER_PUT(&b, "{\"a\":"));
    CHECK_INT(acme_directory_read(buffer_slice(&b), fresh(), &d, &why), ERR_INVALID);
    CHECK(strstr(why.text, "deeper") != NULL);
    buffer_clear(&b);
    CHECK_OK(BUFFER_PUT(&b, "{\"a\":\""));
    while (b.len <= ACME_JSON_MAX)
        CHECK_OK(BUFFER_PUT(&b, "aaaaaaaaaaaaaaaa"));
    CHECK_INT(acme_directory_read(buffer_slice(&b), fresh(), &d, &why), ERR_INVALID);
    CHECK(strstr(why.text, "larger") != NULL);
    buffer_deinit(&b);
    arena_deinit(&arena);
}

TEST("URLs of other schemes, with odd bytes or without a host are none")
{
    CHECK(acme_url_ok(SLICE("https://ca.example/x?y=1")));
    CHECK(acme_url_ok(SLICE("HTTP://ca.example")));
    CHECK(!acme_url_ok(SLICE("ftp://ca.example")));
    CHECK(!acme_url_ok(SLICE("https://")));
    CHECK(!acme_url_ok(SLICE("https:///x")));
    CHECK(!acme_url_ok(SLICE("https://ca.example/a b")));
    CHECK(!acme_url_ok(SLICE("https://ca.example/\r\nHost: x")));
    CHECK(!acme_url_ok(SLICE("")));
}

TEST("an order is read with its error")
{
    struct acme_order o;
    CHECK_OK(acme_order_read(SLICE(
        "{\"status\":\"invalid\",\"identifiers\":[{\"type\":\"dns\",\"value\":\"a.example\"}],"
        "\"authorizations\":[\"https://a/z/1\",\"https://a/z/2\"],\"finalize\":\"https://a/f\","
        "\"error\":{\"type\":\"urn:ietf:params:acme:error:caa\",\"detail\":\"no\",\"status\":403}}"),
        fresh(), &o, &why));
    CHECK_TEXT(o.status, "invalid");
    CHECK_INT(o.authorizations_count, 2);
    CHECK_TEXT(o.identifiers[0].value, "a.example");
    CHECK(o.error != NULL && acme_problem_is(o.error, "caa"));
    CHECK_INT(acme_order_read(SLICE("{\"authorizations\":[\"javascript:1\"]}"), fresh(), &o, &why),
              ERR_INVALID);
    arena_deinit(&arena);
}

TEST("a challenge's token must be one, since it becomes a path")
{
    struct acme_authorization z;
    CHECK_OK(acme_authorization_read(SLICE(
        "{\"status\":\"pending\",\"wildcard\":true,\"identifier\":{\"type\":\"dns\",\"value\":\"a.b\"},"
        "\"challenges\":[{\"type\":\"dns-01\",\"url\":\"https://a/c\",\"token\":\"aB-_9\"}]}"),
        fresh(), &z, &why));
    CHECK(z.wildcard);
    CHECK_TEXT(z.challenges[0].token, "aB-_9");
    CHECK_INT(acme_authorization_read(SLICE(
        "{\"challenges\":[{\"type\":\"http-01\",\"url\":\"https://a/c\",\"token\":\"../../x\"}]}"),
        fresh(), &z, &why), ERR_INVALID);
    arena_deinit(&arena);
}

static void say(const char *json, struct buffer *b)
{
    struct acme_problem p;
    buffer_clear(b);
    CHECK_OK(acme_problem_read(slice_from(json), fresh(), &p, &why));
    acme_problem_say(&p, b);
}

TEST("a problem is one line with status, type, detail and subproblems")
{
    struct buffer b;
    buffer_init(&b, 1000);
    say("{\"type\":\"urn:ietf:params:acme:error:compound\",\"detail\":\"two\\nlines\",\"status\":400,"
        "\"subproblems\":[{\"type\":\"urn:ietf:params:acme:error:dns\",\"detail\":\"NXDOMAIN\","
        "\"identifier\":{\"type\":\"dns\",\"value\":\"a.example\"}}],\"instance\":\"https://a/i\"}", &b);
    CHECK_TEXT(buffer_slice(&b), "HTTP 400 urn:ietf:params:acme:error:compound - two lines, problem "
               "\"urn:ietf:params:acme:error:dns\": NXDOMAIN (dns_identifier=a.example), url: "
               "https://a/i");
    say("{\"title\":\"Bad\"}", &b);
    CHECK_TEXT(buffer_slice(&b), "HTTP 0 about:blank - Bad");
    buffer_deinit(&b);
    arena_deinit(&arena);
}

TEST("times are read and written")
{
    int64_t s;
    CHECK(acme_time_read(SLICE("2026-11-25T23:59:59Z"), &s));
    CHECK_TEXT(acme_time_text(s, fresh()), "2026-11-25T23:59:59Z");
    CHECK(acme_time_read(SLICE("2024-02-29T01:02:03.123456789+02:00"), &s));
    CHECK_TEXT(acme_time_text(s, &arena), "2024-02-28T23:02:03Z");
    CHECK(acme_time_read(SLICE("1970-01-01T00:00:00Z"), &s) && s == 0);
    CHECK(!acme_time_read(SLICE("2024-13-01T00:00:00Z"), &s));
    CHECK(!acme_time_read(SLICE("2024-01-01"), &s));
    CHECK(!acme_time_read(SLICE("2024-01-01T00:00:00"), &s));
    arena_deinit(&arena);
}

TEST("a renewal window that ends before it begins is none")
{
    struct acme_renewal r;
    CHECK_OK(acme_renewal_read(SLICE("{\"suggestedWindow\":{\"start\":\"2026-01-02T00:00:00Z\","
        "\"end\":\"2026-01-03T00:00:00Z\"},\"explanationURL\":\"https://a/why\"}"), fresh(), &r, &why));
    CHECK_INT(r.end_s - r.start_s, 86400);
    CHECK_TEXT(r.explanation_url, "https://a/why");
    CHECK_INT(acme_renewal_read(SLICE("{\"suggestedWindow\":{\"start\":\"2026-01-02T00:00:00Z\","
        "\"end\":\"2026-01-01T00:00:00Z\"}}"), fresh(), &r, &why), ERR_INVALID);
    CHECK_INT(acme_renewal_read(SLICE("{}"), fresh(), &r, &why), ERR_INVALID);
    arena_deinit(&arena);
}
