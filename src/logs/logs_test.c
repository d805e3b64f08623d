/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoders and filters from their JSON, and what happens to rolled files.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/clock.h"
#include "base/log_queue.h"
#include "base/test.h"
#include "logs/encoders.h"
#include "logs/filters.h"
#include "logs/log_mill.h"
#include "logs/logging.h"
#include "logs/writers.h"

static const struct module *const modules[] = {
    &log_encoder_append, &log_encoder_console, &log_encoder_filter, &log_encoder_journald,
    &log_encoder_json, &log_filter_cookie, &log_filter_delete, &log_filter_hash,
    &log_filter_ip_mask, &log_filter_multi_regexp, &log_filter_query, &log_filter_regexp,
    &log_filter_rename, &log_filter_replace, &log_filter_set_cookie, &log_writer_discard,
    &log_writer_file, &log_writer_net, &log_writer_stderr, &log_writer_stdout, NULL};

static struct arena arena;
static struct provision p;
static struct buffer out;

static void begin(void)
{
    arena_init(&arena, 8192);
    p = (struct provision){.arena = &arena, .modules = modules};
    buffer_init(&out, 1 << 20);
    CHECK_OK(log_queue_start());
}

static void end(void)
{
    log_queue_stop(NS_PER_S);
    for (struct provision_release *r = p.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    buffer_deinit(&out);
    arena_deinit(&arena);
}

static void encode(const char *format, const char *json, const struct log_event *e)
{
    const struct module *m;
    void *cfg;
    json_t *v = json_loads(json, 0, NULL);
    CHECK(v != NULL);
    enum err r = provision_module(&p, "caddy.logging.encoders", format, v, &m, &cfg);
    json_decref(v);
    if (r != OK)
        test_fail(__FILE__, __LINE__, "%s", p.error);
    buffer_clear(&out);
    CHECK_OK(((const struct log_encoder_face *)m->face)->encode(cfg, &out, e, SIZE_MAX));
}

static struct slice a_line(const char *fields)
{
    static struct slice cookies[] = {{"a=1; session=secret", 19}, {"b=2", 3}};
    static struct slice set[] = {{"s=\"x\"; Path=/; HttpOnly", 23}, {"t=1", 3}};
    static struct slice agent[] = {{"curl", 4}};
    struct log_field headers[] = {
        {.key = SLICE("cookie"), .kind = LOG_STRINGS, .header_key = true, .strings = {cookies, 2}},
        {.key = SLICE("User-Agent"), .kind = LOG_STRINGS, .header_key = true,
         .strings = {agent, 1}}};
    struct log_field answer[] = {{.key = SLICE("Set-Cookie"), .kind = LOG_STRINGS,
                                  .header_key = true, .strings = {set, 2}}};
    struct log_field request[] = {
        LOG_CSTR("remote_ip", "192.168.77.3"), LOG_CSTR("peers", "2001:db8:ffff::1, 10.1.2.3:80"),
        LOG_CSTR("uri", "/x?token=a%20b&user=me&z=1&token=c#f"), LOG_GROUP("headers", headers, 2)};
    struct log_field all[] = {LOG_GROUP("request", request, 4),
                              LOG_GROUP("resp_headers", answer, 1), LOG_NUM("status", 200)};
    struct log_event e = {.level = LOG_ERROR, .logger = "", .message = SLICE("m"), .fields = all,
                          .count = 3};
    char json[2000];
    snprintf(json, sizeof json,
             "{\"wrap\": {\"format\": \"json\", \"time_key\": \"\", \"level_key\": \"\", "
             "\"message_key\": \"\"}, \"fields\": {%s}}", fields);
    encode("filter", json, &e);
    return buffer_slice(&out);
}

#define REQUEST(ip, peers, uri, headers)                                                           \
    "{\"request\":{\"remote_ip\":" ip ",\"peers\":" peers ",\"uri\":" uri                          \
    ",\"headers\":{" headers "}}"
#define PEERS "\"2001:db8:ffff::1, 10.1.2.3:80\""
#define URI "\"/x?token=a%20b&user=me&z=1&token=c#f\""
#define COOKIE "\"Cookie\":[\"a=1; session=secret\",\"b=2\"]"
#define AGENT "\"User-Agent\":[\"curl\"]"
#define REST ",\"resp_headers\":{\"Set-Cookie\":[\"s=\\\"x\\\"; Path=/; HttpOnly\",\"t=1\"]},"     \
    "\"status\":200}\n"

TEST("filters delete, replace, hash and rename fields at any depth")
{
    begin();
    CHECK_TEXT(a_line("\"request>headers>Cookie\": {\"filter\": \"delete\"},"
                      "\"request>remote_ip\": {\"filter\": \"hash\"},"
                      "\"status\": {\"filter\": \"replace\", \"value\": \"x\"}"),
               REQUEST("\"37174cca\"", PEERS, URI, AGENT)
               ",\"resp_headers\":{\"Set-Cookie\":[\"s=\\\"x\\\"; Path=/; HttpOnly\",\"t=1\"]},"
               "\"status\":\"x\"}\n");
    CHECK_TEXT(a_line("\"request>headers\": {\"filter\": \"delete\"},"
                      "\"status\": {\"filter\": \"rename\", \"name\": \"code\"},"
                      "\"resp_headers\": {\"filter\": \"delete\"}"),
               "{\"request\":{\"remote_ip\":\"192.168.77.3\",\"peers\":" PEERS ",\"uri\":" URI
               "},\"code\":200}\n");
    end();
}

TEST("addresses are masked, alone and in lists, with their ports")
{
    begin();
    CHECK_TEXT(a_line("\"request>remote_ip\": {\"filter\": \"ip_mask\", \"ipv4_cidr\": 16},"
                      "\"request>peers\": {\"filter\": \"ip_mask\", \"ipv4_cidr\": 24, "
                      "\"ipv6_cidr\": 32}"),
               REQUEST("\"192.168.0.0\"", "\"2001:db8::, 10.1.2.0:80\"", URI, COOKIE "," AGENT)
               REST);
    end();
}

TEST("query parameters are replaced, hashed and deleted; the query is sorted")
{
    begin();
    CHECK_TEXT(a_line("\"request>uri\": {\"filter\": \"query\", \"actions\": ["
                      "{\"type\": \"replace\", \"parameter\": \"token\", \"value\": \"R D\"},"
                      "{\"type\": \"delete\", \"parameter\": \"z\"},"
                      "{\"type\": \"hash\", \"parameter\": \"user\"}]}"),
               REQUEST("\"192.168.77.3\"", PEERS,
                       "\"/x?token=R+D&token=R+D&user=2744ccd1#f\"", COOKIE "," AGENT) REST);
    end();
}

TEST("cookies of requests and responses are filtered by name")
{
    begin();
    CHECK_TEXT(a_line("\"request>headers>Cookie\": {\"filter\": \"cookie\", \"actions\": ["
                      "{\"type\": \"replace\", \"name\": \"session\", \"value\": \"X\"},"
                      "{\"type\": \"delete\", \"name\": \"a\"}]},"
                      "\"resp_headers>Set-Cookie\": {\"filter\": \"set_cookie\", \"actions\": ["
                      "{\"type\": \"replace\", \"name\": \"s\", \"value\": \"Y\"},"
                      "{\"type\": \"delete\", \"name\": \"t\"}]}"),
               REQUEST("\"192.168.77.3\"", PEERS, URI,
                       "\"Cookie\":[\"session=X; b=2\"]," AGENT)
               ",\"resp_headers\":{\"Set-Cookie\":[\"s=\\\"Y\\\"; Path=/; HttpOnly\"]},"
               "\"status\":200}\n");
    end();
}

TEST("regular expressions replace in strings and arrays, several in turn")
{
    begin();
    CHECK_TEXT(a_line("\"request>headers>Cookie\": {\"filter\": \"regexp\", "
                      "\"regexp\": \"=[a-z0-9]+\", \"value\": \"=_\"},"
                      "\"request>remote_ip\": {\"filter\": \"multi_regexp\", \"operations\": ["
                      "{\"regexp\": \"^(\\\\d+)\", \"value\": \"[$1]\"},"
                      "{\"regexp\": \"\\\\.\", \"value\": \"-\"}]}"),
               REQUEST("\"[192]-168-77-3\"", PEERS, URI,
                       "\"Cookie\":[\"a=_; session=_\",\"b=_\"]," AGENT) REST);
    end();
}

TEST("append adds fields, journald a priority")
{
    begin();
    struct log_event e = {.level = LOG_ERROR, .wall_ns = 1500000000, .logger = "",
                          .message = SLICE("m")};
    setenv("LOGS_TEST", "value", 1);
    encode("append", "{\"wrap\": {\"format\": \"json\", \"time_format\": \"unix_nano\"}, "
           "\"fields\": {\"a\": \"{env.LOGS_TEST}\", \"b\": 3, \"c\": \"x\", "
           "\"d\": \"{http.request.host}\"}}", &e);
    CHECK_TEXT(buffer_slice(&out), "{\"level\":\"error\",\"ts\":1500000000,\"msg\":\"m\","
               "\"a\":\"value\",\"b\":3,\"c\":\"x\",\"d\":null}\n");
    encode("journald", "{\"wrap\": {\"format\": \"console\", \"level_format\": \"upper\"}}", &e);
    CHECK_TEXT(buffer_slice(&out), "<3>ERROR\tm\n");
    encode("console", "{\"level_format\": \"lower\", \"time_format\": \"common_log\"}", &e);
    CHECK_TEXT(buffer_slice(&out), "01/Jan/1970:00:00:01 +0000\terror\tm\n");
    end();
}

static const char *refusal(const char *text)
{
    struct logging g = {0};
    json_t *v = json_loads(text, 0, NULL);
    CHECK(v != NULL);
    p.error[0] = '\0';
    enum err e = logging_provision(&g, v, &p);
    json_decref(v);
    return e == OK ? "" : p.error;
}

#define CHECK_REFUSAL(json, words)                                                                 \
    do {                                                                                           \
        const char *why_ = refusal(json);                                                          \
        if (strstr(why_, words) == NULL)                                                           \
            test_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", why_, words);              \
    } while (0)

TEST("what a log cannot be is refused with a reason")
{
    begin();
    CHECK(refusal("{\"logs\": {\"a\": {\"level\": \"debug\"}}}")[0] == '\0');
    CHECK_REFUSAL("{\"log\": 1}", "unknown member \"log\"");
    CHECK_REFUSAL("{\"logs\": {\"a\": {\"levle\": \"x\"}}}",
                  "logging.logs.a: unknown member \"levle\"");
    CHECK_REFUSAL("{\"logs\": {\"a\": {\"level\": \"loud\"}}}", "unrecognized log level: loud");
    CHECK_REFUSAL("{\"logs\": {\"a\": {\"writer\": {\"output\": \"pigeon\"}}}}",
                  "unknown module: caddy.logging.writers.pigeon");
    CHECK_REFUSAL("{\"logs\": {\"a\": {\"writer\": {\"output\": \"file\"}}}}", "\"filename\"");
    CHECK_REFUSAL("{\"logs\": {\"a\": {\"writer\": {\"output\": \"file\", \"filename\": "
                  "\"{env.NO_SUCH_THING}\"}}}}", "{env.NO_SUCH_THING}");
    CHECK_REFUSAL("{\"logs\": {\"a\": {\"include\": [\"x\"], \"exclude\": [\"x\"]}}}",
                  "must not intersect");
    CHECK_REFUSAL("{\"logs\": {\"a\": {\"include\": [\"x\"], \"exclude\": [\"y\"]}}}",
                  "superspace or subspace");
    CHECK_REFUSAL("{\"logs\": {\"a\": {\"encoder\": {\"format\": \"filter\", \"fields\": {\"x\": "
                  "{\"filter\": \"regexp\", \"regexp\": \"(\"}}}}}}", "logging.logs.a");
    CHECK_REFUSAL("{\"logs\": {\"a\": {\"when_full\": \"maybe\"}}}", "\"wait\"");
    CHECK_REFUSAL("{\"logs\": {\"a\": {\"writer\": {\"output\": \"file\", \"filename\": \"x\", "
                  "\"roll_compression\": \"lzma\"}}}}", "invalid roll_compression: lzma");
    end();
}

/* --- rolled files --- */

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL);
    fputs(text, f);
    fclose(f);
}

static bool exists(const char *folder, const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static void remove_file(const char *folder, const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

TEST("of the rolled files the newest are kept and compressed, others are let alone")
{
    char folder[] = "/tmp/portico-mill-XXXXXX", path[100], text[20] = "";
    static const char *const names[] = {
        "a-2026-11-25T20-40-00.000-size.log", "a-2026-11-25T20-41-00.000-time.log",
        "a-2026-11-25T20-42-00.000-size.log.gz", "a-2026-11-25T20-43-00.000-size.log",
        "a-2001-11-25T20-43-00.000-size.log", "a-x-size.log", "ab-2026-11-25T20-40-00.000-size.log",
        "a.log", "a-2026-11-25T20-43-00.000-size.txt"};
    static const bool stays[] = {false, false, true, false, false, true, true, true, true};
    struct log_rolled r = {.compression = LOG_COMPRESS_GZIP, .keep = 2, .keep_days = 0};
    CHECK(mkdtemp(folder) != NULL);
    CHECK_OK(time_layout_compile(&r.layout, SLICE("2006-01-02T15-04-05.000")));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        write_file(folder, names[i], names[i]);
    snprintf(path, sizeof path, "%s/a.log", folder);
    log_mill_run(path, &r);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_INT(exists(folder, names[i]), stays[i]);
        remove_file(folder, names[i]);
    }
    snprintf(path, sizeof path, "%s/a-2026-11-25T20-43-00.000-size.log.gz", folder);
    gzFile z = gzopen(path, "rb");
    CHECK(z != NULL && gzread(z, text, 5) == 5 && strncmp(text, "a-202", 5) == 0);
    gzclose(z);
    remove_file(folder, "a-2026-11-25T20-43-00.000-size.log.gz");
    CHECK(rmdir(folder) == 0);
}

TEST("a rolled file's name holds time and reason before the ending")
{
    struct buffer b;
    struct log_rolled r = {0};
    buffer_init(&b, 1000);
    CHECK_OK(time_layout_compile(&r.layout, SLICE("2006-01-02T15-04-05.000")));
    CHECK_OK(log_rolled_name(&b, "/d.x/access.log", &r, INT64_C(1795639722007000000), "size"));
    CHECK_TEXT(buffer_slice(&b), "/d.x/access-2026-11-25T20-48-42.007-size.log");
    buffer_clear(&b);
    CHECK_OK(log_rolled_name(&b, "access", &r, INT64_C(1795639722007000000), "time"));
    CHECK_TEXT(buffer_slice(&b), "access-2026-11-25T20-48-42.007-time");
    buffer_deinit(&b);
}
