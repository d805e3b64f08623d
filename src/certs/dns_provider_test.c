/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each provider against a stand-in that was written from its API's documentation: what it must be
 * asked, line by line, and what it answers then. Messages of RFC 2136 against a server side of the
 * test's own.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/test.h"
#include "certs/dns_api.h"
#include "certs/dns_update.h"
#include "client/fetch.h"
#include "loop/await.h"
#include "net/resolver.h"

/* --- the stand-in --- */

struct turn {
    const char *line;       /* the request line up to its version */
    const char *has[2];     /* parts of the rest, or NULL */
    const char *status, *answer;
};

static int listener = -1;
static uint16_t port;
static const struct turn *turns;
static char fault[2000]; /* the first thing that was not asked as it should */
static atomic_int asked;

static size_t read_request(int fd, char *buf, size_t size)
{
    size_t len = 0;
    for (ssize_t n; len < size - 1 && (n = recv(fd, buf + len, size - 1 - len, 0)) > 0;) {
        buf[len += (size_t)n] = '\0';
        const char *end = strstr(buf, "\r\n\r\n");
        const char *length = end != NULL ? strstr(buf, "Content-Length: ") : NULL;
        size_t body = length != NULL ? strtoul(length + 16, NULL, 10) : 0;
        if (end != NULL && len >= (size_t)(end + 4 - buf) + body)
            return len;
    }
    return 0;
}

static void check_turn(const struct turn *t, const char *request)
{
    size_t len = t->line != NULL ? strlen(t->line) : 0;
    bool right = len > 0 && strncmp(request, t->line, len) == 0 &&
                 strncmp(request + len, " HTTP/1.1\r\n", 11) == 0;
    for (int i = 0; i < 2; i++)
        right = right && (t->has[i] == NULL || strstr(request, t->has[i]) != NULL);
    if (!right && fault[0] == '\0')
        snprintf(fault, sizeof fault, "expected %s, got %.1500s", t->line != NULL ? t->line : "nothing",
                 request);
}

static void *serve(void *unused)
{
    static char request[20000], answer[4000];
    (void)unused;
    for (int fd; (fd = accept(listener, NULL, NULL)) >= 0; close(fd)) {
        while (read_request(fd, request, sizeof request) > 0) {
            const struct turn *t = &turns[atomic_fetch_add(&asked, 1)];
            check_turn(t, request);
            int n = snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n"
                             "Content-Type: application/json\r\n\r\n%s",
                             t->line != NULL ? t->status : "500 No", t->line != NULL ? strlen(t->answer) : 0,
                             t->line != NULL ? t->answer : "");
            if (send(fd, answer, (size_t)n, MSG_NOSIGNAL) != n)
                break;
        }
    }
    return NULL;
}

static void start_server(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    pthread_t thread;
    if (port != 0)
        return;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    CHECK_INT(listen(listener, 64), 0);
    CHECK_INT(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    port = ntohs(a.sin_port);
    CHECK_INT(pthread_create(&thread, NULL, serve, NULL), 0);
    pthread_detach(thread);
}

/* --- a provider at work --- */

static struct loop *loop;
static struct arena arena;
static struct dns_why why;
static const struct dns_provider_type *type;
static void *cfg;
static enum err appended, removed;
static struct dns_record record = {.zone = SLICE("example.com"),
                                   .name = SLICE("_acme-challenge.www"),
                                   .text = SLICE("To_ken-1"), .ttl_s = 0};

static void on_fiber(void *arg)
{
    (void)arg;
    appended = type->append(cfg, &record, &arena, &why);
    removed = appended == OK ? type->remove(cfg, &record, &arena, &why) : ERR_FAILED;
    loop_stop(loop);
}

static void start_fiber(struct task *t)
{
    (void)t;
    if (fiber_start(loop, on_fiber, NULL) != OK)
        loop_stop(loop);
}

/* ENDPOINT in the JSON stands for the stand-in. */
static enum err provision(const struct module *m, const char *json, struct provision *p)
{
    static const struct module *const none[] = {NULL};
    char text[2000], base[64];
    const char *at = strstr(json, "ENDPOINT");
    snprintf(base, sizeof base, "http://127.0.0.1:%u", port);
    snprintf(text, sizeof text, "%.*s%s%s", at != NULL ? (int)(at - json) : (int)strlen(json), json,
             at != NULL ? base : "", at != NULL ? at + 8 : "");
    json_t *parsed = json_loads(text, 0, NULL);
    CHECK(parsed != NULL);
    *p = (struct provision){.arena = &arena, .modules = none};
    cfg = arena_zalloc(&arena, m->cfg_size);
    type = m->face;
    enum err e = m->provision(cfg, parsed, p);
    json_decref(parsed);
    return e;
}

static void run(const struct module *m, const char *json, const struct turn *script, int count)
{
    struct provision p;
    struct task start = {.run = start_fiber};
    start_server();
    fault[0] = why.text[0] = '\0';
    turns = script;
    atomic_store(&asked, 0);
    arena_init(&arena, 4096);
    if (provision(m, json, &p) != OK)
        test_fail(__FILE__, __LINE__, "%s", p.error);
    CHECK_OK(loop_create(LOOP_AUTO, &loop));
    loop_defer(loop, &start);
    loop_run(loop);
    fetch_thread_deinit();
    resolver_thread_deinit();
    loop_settle(loop);
    loop_destroy(loop);
    if (fault[0] != '\0')
        test_fail(__FILE__, __LINE__, "%s", fault);
    if (count >= 0 && (appended != OK || removed != OK))
        test_fail(__FILE__, __LINE__, "%s", why.text);
    if (count >= 0)
        CHECK_INT(atomic_load(&asked), count);
    arena_deinit(&arena);
}

static void refused(const struct module *m, const char *json, const char *part)
{
    struct provision p;
    arena_init(&arena, 4096);
    CHECK(provision(m, json, &p) == ERR_INVALID);
    if (strstr(p.error, part) == NULL)
        test_fail(__FILE__, __LINE__, "%s", p.error);
    arena_deinit(&arena);
}

#define TOKEN_40 "abcdefghijklmnopqrstuvwxyz_0123456789-AB"

TEST("cloudflare: a zone by the one token, records by the other")
{
    static const struct turn script[] = {
        {"GET /zones?name=example.com", {"Authorization: Bearer zone-reader"}, "200 OK",
         "{\"success\":true,\"errors\":[],\"result\":[{\"id\":\"0a1b\",\"name\":\"example.com\"}]}"},
        {"POST /zones/0a1b/dns_records",
         {"Authorization: Bearer " TOKEN_40,
          "{\"type\":\"TXT\",\"name\":\"_acme-challenge.www.example.com\","
          "\"content\":\"\\\"To_ken-1\\\"\",\"ttl\":120}"},
         "200 OK", "{\"success\":true,\"errors\":[],\"result\":{\"id\":\"9\"}}"},
        {"GET /zones?name=example.com", {"Authorization: Bearer zone-reader"}, "200 OK",
         "{\"success\":true,\"result\":[{\"id\":\"0a1b\"}]}"},
        {"GET /zones/0a1b/dns_records?type=TXT&name=_acme-challenge.www.example.com",
         {"Authorization: Bearer " TOKEN_40}, "200 OK",
         "{\"result\":[{\"id\":\"8\",\"content\":\"\\\"another\\\"\"},"
         "{\"id\":\"9\",\"content\":\"\\\"To_ken-1\\\"\"}]}"},
        {"DELETE /zones/0a1b/dns_records/9", {NULL}, "200 OK", "{\"result\":{\"id\":\"9\"}}"},
        {NULL}};
    run(&dns_provider_cloudflare, "{\"name\":\"cloudflare\",\"api_token\":\"" TOKEN_40 "\","
        "\"zone_token\":\"zone-reader\",\"endpoint\":\"ENDPOINT/\"}", script, 5);
}

TEST("cloudflare: a refusal is told with what was said, a record that is there already is none")
{
    static const struct turn no_zone[] = {
        {"GET /zones?name=example.com", {NULL}, "200 OK", "{\"result\":[]}"}, {NULL}};
    static const struct turn denied[] = {
        {"GET /zones?name=example.com", {NULL}, "403 Forbidden",
         "{\"errors\":[{\"code\":9109,\"message\":\"Invalid access token\"}]}"}, {NULL}};
    static const struct turn there[] = {
        {"GET /zones?name=example.com", {NULL}, "200 OK", "{\"result\":[{\"id\":\"z\"}]}"},
        {"POST /zones/z/dns_records", {NULL}, "400 Bad Request",
         "{\"errors\":[{\"code\":81058,\"message\":\"An identical record already exists.\"}]}"},
        {"GET /zones?name=example.com", {NULL}, "200 OK", "{\"result\":[{\"id\":\"z\"}]}"},
        {"GET /zones/z/dns_records?type=TXT&name=_acme-challenge.www.example.com", {NULL}, "200 OK",
         "{\"result\":[{\"id\":\"9\",\"content\":\"To_ken-1\"}]}"},
        {"DELETE /zones/z/dns_records/9", {NULL}, "404 Not Found", "{}"},
        {NULL}};
    static const char json[] = "{\"api_token\":\"" TOKEN_40 "\",\"endpoint\":\"ENDPOINT\"}";
    run(&dns_provider_cloudflare, json, no_zone, -1);
    CHECK(appended == ERR_FAILED && strstr(why.text, "sees no zone example.com") != NULL);
    run(&dns_provider_cloudflare, json, denied, -1);
    CHECK(appended == ERR_FAILED && strstr(why.text, "status 403") != NULL);
    CHECK(strstr(why.text, "Invalid access token") != NULL && strstr(why.text, TOKEN_40) == NULL);
    run(&dns_provider_cloudflare, json, there, 5);
}

TEST("digitalocean: records of a domain")
{
    static const struct turn script[] = {
        {"POST /domains/example.com/records",
         {"Authorization: Bearer secret", "{\"type\":\"TXT\",\"name\":\"_acme-challenge.www\","
                                          "\"data\":\"To_ken-1\",\"ttl\":30}"},
         "201 Created", "{\"domain_record\":{\"id\":28448433}}"},
        {"GET /domains/example.com/records?type=TXT&per_page=200&name=_acme-challenge.www.example.com",
         {"Authorization: Bearer secret"}, "200 OK",
         "{\"domain_records\":[{\"id\":1,\"type\":\"TXT\",\"name\":\"_acme-challenge.www\","
         "\"data\":\"x\"},{\"id\":28448433,\"name\":\"_acme-challenge.www\","
         "\"data\":\"To_ken-1\"}]}"},
        {"DELETE /domains/example.com/records/28448433", {NULL}, "204 No Content", ""},
        {NULL}};
    run(&dns_provider_digitalocean, "{\"auth_token\":\"secret\",\"endpoint\":\"ENDPOINT\"}", script,
        3);
}

TEST("hetzner: sets of records by the Cloud API, single ones by the old console's")
{
    static const struct turn cloud[] = {
        {"POST /zones/example.com/rrsets/_acme-challenge.www/TXT/actions/add_records",
         {"Authorization: Bearer t", "{\"records\":[{\"value\":\"\\\"To_ken-1\\\"\"}],\"ttl\":60}"},
         "201 Created", "{\"action\":{\"id\":1}}"},
        {"POST /zones/example.com/rrsets/_acme-challenge.www/TXT/actions/remove_records",
         {"{\"records\":[{\"value\":\"\\\"To_ken-1\\\"\"}]}"}, "404 Not Found", "{}"},
        {NULL}};
    static const struct turn console[] = {
        {"GET /zones?name=example.com", {"Auth-API-Token: t"}, "200 OK",
         "{\"zones\":[{\"id\":\"q1\"}]}"},
        {"POST /records", {"{\"zone_id\":\"q1\",\"type\":\"TXT\",\"name\":\"_acme-challenge.www\","
                           "\"value\":\"To_ken-1\",\"ttl\":60}"}, "200 OK", "{}"},
        {"GET /zones?name=example.com", {NULL}, "200 OK", "{\"zones\":[{\"id\":\"q1\"}]}"},
        {"GET /records?zone_id=q1", {NULL}, "200 OK",
         "{\"records\":[{\"id\":\"a\",\"type\":\"A\",\"name\":\"_acme-challenge.www\","
         "\"value\":\"To_ken-1\"},{\"id\":\"b\",\"type\":\"TXT\","
         "\"name\":\"_acme-challenge.www\",\"value\":\"To_ken-1\"}]}"},
        {"DELETE /records/b", {NULL}, "200 OK", "{}"},
        {NULL}};
    run(&dns_provider_hetzner, "{\"api_token\":\"t\",\"endpoint\":\"ENDPOINT\"}", cloud, 2);
    run(&dns_provider_hetzner, "{\"auth_api_token\":\"t\",\"endpoint\":\"ENDPOINT\"}", console, 5);
}

#define UUID "01234567-89ab-cdef-0123-456789abcdef"

TEST("duckdns: one URL, the domain is that of the account")
{
    static const struct turn own[] = {
        {"GET /?domains=mine.duckdns.org&token=" UUID "&txt=To_ken-1&verbose=true", {NULL},
         "200 OK", "OK\nTo_ken-1\nUPDATED"},
        {"GET /?domains=mine.duckdns.org&token=" UUID "&txt=To_ken-1&verbose=true&clear=true",
         {NULL}, "200 OK", "OK"},
        {NULL}};
    static const struct turn refuses[] = {
        {"GET /?domains=mine.duckdns.org&token=" UUID "&txt=To_ken-1&verbose=true", {NULL},
         "200 OK", "KO"}, {NULL}};
    run(&dns_provider_duckdns, "{\"api_token\":\"" UUID "\",\"override_domain\":\"mine.duckdns.org\","
        "\"endpoint\":\"ENDPOINT\"}", own, 2);
    struct dns_record before = record;
    record.zone = SLICE("duckdns.org");
    record.name = SLICE("_acme-challenge.deep.mine");
    run(&dns_provider_duckdns, "{\"api_token\":\"" UUID "\",\"endpoint\":\"ENDPOINT\"}", own, 2);
    run(&dns_provider_duckdns, "{\"api_token\":\"" UUID "\",\"endpoint\":\"ENDPOINT\"}", refuses, -1);
    CHECK(appended == ERR_FAILED && strstr(why.text, "refused to set") != NULL);
    CHECK(strstr(why.text, UUID) == NULL);
    record = before;
}

TEST("acmedns: the account of the name, and nothing to remove")
{
    static const struct turn script[] = {
        {"POST /update", {"X-Api-User: u", "{\"subdomain\":\"s\",\"txt\":\"To_ken-1\"}"}, "200 OK",
         "{\"txt\":\"To_ken-1\"}"},
        {NULL}};
    run(&dns_provider_acmedns, "{\"username\":\"u\",\"password\":\"p\",\"subdomain\":\"s\","
        "\"server_url\":\"ENDPOINT/\"}", script, 1);
    run(&dns_provider_acmedns, "{\"config\":{\"other.example.com\":{\"username\":\"x\",\"password\":\"p\","
        "\"subdomain\":\"s\",\"server_url\":\"http://127.0.0.1:1\"},\"www.example.com\":{\"username\":"
        "\"u\",\"password\":\"p\",\"subdomain\":\"s\",\"server_url\":\"ENDPOINT\"}}}", script, 1);
    run(&dns_provider_acmedns, "{\"config\":{\"other.example.com\":{\"username\":\"x\",\"password\":\"p\","
        "\"subdomain\":\"s\",\"server_url\":\"http://127.0.0.1:1\"}}}", script, -1);
    CHECK(appended == ERR_FAILED && strstr(why.text, "for www.example.com") != NULL);
}

TEST("exec: a program gets the record as arguments, and its words are told when it fails")
{
    static const struct turn none[] = {{NULL}};
    run(&dns_provider_exec, "{\"command\":[\"/bin/sh\",\"-c\",\"test $# = 4 && test \\\"$1\\\" = x && "
        "test \\\"$3\\\" = _acme-challenge.www.example.com. && test \\\"$4\\\" = To_ken-1 && "
        "test $ACME_ZONE = example.com && case $2 in present|cleanup) ;; *) exit 1; esac\","
        "\"sh\",\"x\"]}", none, 0);
    run(&dns_provider_exec, "{\"command\":[\"/bin/sh\",\"-c\",\"echo no such zone >&2; exit 3\"]}",
        none, -1);
    CHECK(appended == ERR_FAILED && strstr(why.text, "status 3: no such zone") != NULL);
    run(&dns_provider_exec, "{\"command\":[\"/nowhere/hook\"]}", none, -1);
    CHECK(appended == ERR_FAILED && (strstr(why.text, "No such file") != NULL ||
                                     strstr(why.text, "status 127") != NULL)); /* under qemu-user */
    run(&dns_provider_exec, "{\"command\":[\"/bin/sh\",\"-c\",\"sleep 60 & sleep 60\"],"
        "\"timeout\":\"200ms\"}", none, -1);
    CHECK(appended == ERR_FAILED && strstr(why.text, "killed") != NULL);
}

TEST("what cannot work is refused when it is loaded")
{
    refused(&dns_provider_cloudflare, "{\"api_token\":\"{env.NOT_SET}\"}", "appears invalid");
    refused(&dns_provider_cloudflare, "{\"api_token\":\"" TOKEN_40 "\",\"zone\":\"x\"}", "zone");
    refused(&dns_provider_digitalocean, "{}", "auth_token is empty");
    refused(&dns_provider_hetzner, "{}", "api_token is empty");
    refused(&dns_provider_duckdns, "{\"api_token\":\"short\"}", "UUID");
    refused(&dns_provider_acmedns, "{\"username\":\"u\"}", "must be given");
    refused(&dns_provider_acmedns, "{\"config\":{}}", "at least one domain");
    refused(&dns_provider_exec, "{}", "command");
    refused(&dns_provider_rfc2136, "{\"key_name\":\"k\",\"key\":\"a2V5\",\"key_alg\":\"hmac-sha3\","
            "\"server\":\"ns\"}", "none of hmac-sha256");
    refused(&dns_provider_rfc2136, "{\"key_name\":\"k\",\"key\":\"!\",\"key_alg\":\"hmac-sha256\","
            "\"server\":\"ns\"}", "not base64");
    refused(&dns_provider_rfc2136, "{\"key_name\":\"k\",\"key\":\"a2V5\",\"key_alg\":\"hmac-sha256\","
            "\"server\":\"ns:x\"}", "not a port");
}

/* --- RFC 2136 --- */

static const struct tsig_key key = {SLICE("portico."), "sha256", SLICE("hmac-sha256"),
                                    SLICE("0123456789abcdef")};

/* An answer to a question as a server signs it: the question's signature, the head, its own. */
static void make_answer(struct buffer *out, const struct tsig_mac *question, unsigned code,
                        int64_t time_s)
{
    static const char name[] = "\7portico";
    static const char algorithm[] = "\13hmac-sha256";
    char head[] = {0x12, 0x34, (char)0xa8, (char)code, 0, 0, 0, 0, 0, 0, 0, 0};
    char stamp[] = {0, 0, (char)(time_s >> 24), (char)(time_s >> 16), (char)(time_s >> 8),
                    (char)time_s, 1, 44};
    uint8_t mac[HMAC_MAX];
    struct buffer b;
    buffer_init(&b, 1000);
    char length[2] = {0, (char)question->len};
    (void)!buffer_append(&b, slice_of(length, 2));
    (void)!buffer_append(&b, slice_of((const char *)question->bytes, question->len));
    (void)!buffer_append(&b, slice_of(head, 12));
    (void)!buffer_append(&b, slice_of(name, sizeof name));
    (void)!buffer_append(&b, slice_of("\0\377\0\0\0\0", 6));
    (void)!buffer_append(&b, slice_of(algorithm, sizeof algorithm));
    (void)!buffer_append(&b, slice_of(stamp, 8));
    (void)!buffer_append(&b, slice_of("\0\0\0\0", 4));
    CHECK_INT(hmac_compute("sha256", key.secret, buffer_slice(&b), mac), 32);
    buffer_deinit(&b);
    head[11] = 1;
    buffer_clear(out);
    (void)!buffer_append(out, slice_of(head, 12));
    (void)!buffer_append(out, slice_of(name, sizeof name));
    (void)!buffer_append(out, slice_of("\0\372\0\377\0\0\0\0\0\75", 10));
    (void)!buffer_append(out, slice_of(algorithm, sizeof algorithm));
    (void)!buffer_append(out, slice_of(stamp, 8));
    (void)!buffer_append(out, slice_of("\0\40", 2));
    (void)!buffer_append(out, slice_of((const char *)mac, 32));
    (void)!buffer_append(out, slice_of("\22\64\0\0\0\0", 6));
}

TEST("rfc2136: a question holds the zone, the record and a signature")
{
    static const char expected[] =
        "\x12\x34\x28\0\0\1\0\0\0\1\0\1" "\7example\3com\0\0\6\0\1"
        "\17_acme-challenge\3www\7example\3com\0\0\20\0\1\0\0\0\74\0\11\10To_ken-1"
        "\7portico\0\0\372\0\377\0\0\0\0\0\75\13hmac-sha256\0\0\0\x65\x00\x00\x00\1\54\0\40";
    struct buffer b;
    struct tsig_mac mac;
    struct dns_record r = record;
    buffer_init(&b, DNS_UPDATE_MAX);
    r.ttl_s = 60;
    CHECK_OK(dns_update_build(&b, &r, false, 0x1234, 0x65000000, &key, &mac));
    CHECK_INT(b.len, sizeof expected - 1 + 32 + 6);
    CHECK(memcmp(b.ptr, expected, sizeof expected - 1) == 0);
    r.name = SLICE("a..b");
    CHECK(dns_update_build(&b, &r, false, 1, 0, &key, &mac) == ERR_INVALID);
    buffer_deinit(&b);
}

TEST("rfc2136: only a right answer is believed")
{
    unsigned code = 99;
    const char *phrase = "";
    struct buffer question, answer;
    struct tsig_mac mac;
    const int64_t now = 0x65000000;
    buffer_init(&question, DNS_UPDATE_MAX);
    buffer_init(&answer, 1000);
    CHECK_OK(dns_update_build(&question, &record, false, 0x1234, now, &key, &mac));
    make_answer(&answer, &mac, 0, now + 2);
    CHECK_OK(dns_update_answer(buffer_slice(&answer), 0x1234, now, &key, &mac, &code, &phrase));
    CHECK_INT(code, 0);
    CHECK(dns_update_answer(buffer_slice(&answer), 0x1235, now, &key, &mac, &code, &phrase) != OK);
    CHECK(dns_update_answer(buffer_slice(&answer), 0x1234, now + 400, &key, &mac, &code, &phrase) != OK);
    for (size_t i = 0; i < answer.len; i++) { /* cut anywhere, it is refused and not read beyond */
        char *copy = slice_dup(slice_take(buffer_slice(&answer), i));
        enum err e = dns_update_answer(slice_of(copy, i), 0x1234, now, &key, &mac, &code, &phrase);
        free(copy);
        CHECK(e == ERR_INVALID);
    }
    answer.ptr[3] = 5; /* REFUSED, but not signed so */
    CHECK(dns_update_answer(buffer_slice(&answer), 0x1234, now, &key, &mac, &code, &phrase) != OK);
    make_answer(&answer, &mac, 5, now);
    CHECK_OK(dns_update_answer(buffer_slice(&answer), 0x1234, now, &key, &mac, &code, &phrase));
    CHECK_TEXT(slice_from(dns_code_name(code)), "REFUSED");
    buffer_deinit(&question);
    buffer_deinit(&answer);
}
