/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time layouts, encoders, rings, and the log thread with several threads that log.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/log_stream.h"
#include "base/mem.h"
#include "base/test.h"

/* --- layouts --- */

static struct slice formatted(const char *layout, int64_t ns)
{
    static char text[TIME_TEXT_MAX];
    struct time_layout l;
    CHECK_OK(time_layout_compile(&l, slice_from(layout)));
    return slice_of(text, time_layout_put(&l, ns, false, text));
}

TEST("times are written as Go's layouts show them")
{
    const int64_t t = INT64_C(1747957319987654321); /* 2025-05-22T23:41:59.987654321Z, Thursday */
    static const char *const cases[][2] = {
        {"2006-01-02T15:04:05Z07:00", "2025-05-22T23:41:59Z"},
        {"2006-01-02T15:04:05.000Z0700", "2025-05-22T23:41:59.987Z"},
        {"02/Jan/2006:15:04:05 -0700", "22/May/2025:23:41:59 +0000"},
        {"Mon, 02 Jan 2006 15:04:05 MST", "Thu, 22 May 2025 23:41:59 UTC"},
        {"Monday January _2 3:4:5PM 06", "Thursday May 22 11:41:59PM 25"},
        {"Jan _2 15:04:05.000000000", "May 22 23:41:59.987654321"},
        {"03:04:05pm 1/2", "11:41:59pm 5/22"},
        {"2006-002 __2", "2025-142 142"},
        {"15h04,999", "23h41,987"},
        {"Janet Monday's 15.04", "Janet Thursday's 23.41"},
        {"-07:00:00 -070000 -07 Z07", "+00:00:00 +000000 +00 Z"},
        {"_2006 x.0004y", "_2025 x.0041y"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_TEXT(formatted(cases[i][0], t), cases[i][1]);
    CHECK_TEXT(formatted("05.999", INT64_C(1000000000)), "01");
    CHECK_TEXT(formatted("05.999", INT64_C(1500000000)), "01.5");
    CHECK_TEXT(formatted("2006-01-02 15:04:05", -INT64_C(500000000)), "1969-12-31 23:59:59");
}

TEST("the minute 04 behind a fraction's zeros is text, as a digit follows")
{
    CHECK_TEXT(formatted("x.0004y", 0), "x.0000y");
}

TEST("a time is read back from what its layout wrote")
{
    struct time_layout l;
    int64_t t;
    CHECK_OK(time_layout_compile(&l, SLICE("2006-01-02T15-04-05.000")));
    CHECK_OK(time_layout_read(&l, SLICE("2026-11-25T20-40-00.123"), false, &t));
    CHECK_TEXT(formatted("2006-01-02 15:04:05.000", t), "2026-11-25 20:40:00.123");
    CHECK_INT(time_layout_read(&l, SLICE("2026-11-25T20-40-00"), false, &t), ERR_INVALID);
    CHECK_INT(time_layout_read(&l, SLICE("2026-13-25T20-40-00.000"), false, &t), ERR_INVALID);
    CHECK_INT(time_layout_read(&l, SLICE("2026-11-25T20-40-00.0000"), false, &t), ERR_INVALID);
    CHECK_INT(time_layout_read(&l, SLICE(""), false, &t), ERR_INVALID);
    CHECK_OK(time_layout_compile(&l, SLICE("Monday")));
    CHECK_INT(time_layout_read(&l, SLICE("Monday"), false, &t), ERR_INVALID);
}

/* --- encoders --- */

static struct buffer out;

static struct slice encoded(const struct log_event *e, const struct log_format *f)
{
    buffer_deinit(&out);
    buffer_init(&out, 1 << 16);
    CHECK_OK(log_encode_json(&out, e, f));
    return buffer_slice(&out);
}

TEST("a time in seconds is the shortest form of its double")
{
    struct log_format f;
    log_format_init(&f);
    char want[64];
    srand48(1);
    for (int i = 0; i < 2000; i++) {
        int64_t ns = INT64_C(1795639722000000000) + (int64_t)(drand48() * 1e18) / 10;
        if (i % 4 == 0)
            ns = ns / 1000000 * 1000000;
        struct log_event e = {.wall_ns = ns, .logger = "", .message = SLICE("m")};
        int digits = 1;
        double v = (double)ns / 1e9;
        do
            snprintf(want, sizeof want, "%.*f", digits, v);
        while (strtod(want, NULL) != v && ++digits < 12);
        size_t len = strlen(want);
        while (len > 0 && (want[len - 1] == '0' || want[len - 1] == '.'))
            if (want[--len] == '.')
                break;
        want[len] = '\0';
        struct slice line = encoded(&e, &f);
        size_t at = slice_find_slice(line, SLICE("\"ts\":"));
        struct slice ts, rest;
        slice_cut(slice_skip(line, at + 5), ',', &ts, &rest);
        CHECK_TEXT(ts, want);
    }
    buffer_deinit(&out);
}

TEST("numbers, arrays, durations and names of header fields have Caddy's forms")
{
    struct log_format f;
    log_format_init(&f);
    f.time_key = f.level_key = SLICE("");
    struct slice values[] = {{"a", 1}, {"b\x1b[31m\xc2\x9b", 8}};
    struct log_field header = {.key = SLICE("x-reQUEST-id"), .kind = LOG_STRINGS,
                               .header_key = true, .strings = {values, 2}};
    struct log_field fields[] = {
        LOG_GROUP("headers", &header, 1), LOG_DUR("duration", 46425), LOG_DUR("d0", 0),
        LOG_DUR("dn", -1500000000), LOG_NUM("n", INT64_MIN),
        {.key = SLICE("gone"), .kind = LOG_SKIP},
        {.key = SLICE("f"), .kind = LOG_FLOAT, .real = 1e-7},
        {.key = SLICE("g"), .kind = LOG_FLOAT, .real = 1e21},
        {.key = SLICE("j"), .kind = LOG_JSON, .text = SLICE("null")}};
    struct log_event e = {.logger = "", .message = SLICE(""), .fields = fields,
                          .count = sizeof fields / sizeof fields[0]};
    CHECK_TEXT(encoded(&e, &f),
               "{\"msg\":\"\",\"headers\":{\"X-Request-Id\":[\"a\",\"b\\u001b[31m\\u009b\"]},"
               "\"duration\":0.000046425,\"d0\":0,\"dn\":-1.5,\"n\":-9223372036854775808,"
               "\"f\":0.0000001,\"g\":1000000000000000000000,\"j\":null}\n");
    f.duration = LOG_DURATION_MILLIS;
    f.message_key = SLICE("");
    f.line_end = SLICE("\r\n");
    e.fields = &fields[3];
    e.count = 1;
    CHECK_TEXT(encoded(&e, &f), "{\"dn\":-1500}\r\n");
    f.duration = LOG_DURATION_STRING;
    CHECK_TEXT(encoded(&e, &f), "{\"dn\":\"-1.5s\"}\r\n");
    buffer_deinit(&out);
}

TEST("levels, callers and stacks are written when asked for")
{
    struct log_format f;
    log_format_init(&f);
    f.time_key = SLICE("");
    f.caller = f.stack = true;
    f.level = LOG_LEVEL_COLOR;
    struct log_event e = {.level = LOG_WARN, .logger = "a", .message = SLICE("m"),
                          .file = "../src/app/control.c", .function = "reload", .line = 7};
    CHECK_TEXT(encoded(&e, &f),
               "{\"level\":\"\\u001b[33mWARN\\u001b[0m\",\"logger\":\"a\","
               "\"caller\":\"app/control.c:7\",\"msg\":\"m\","
               "\"stacktrace\":\"reload\\n\\tapp/control.c:7\"}\n");
    buffer_deinit(&out);
}

/* --- names --- */

TEST("include and exclude let loggers through as in Caddy's table")
{
    struct slice foo[] = {{"foo", 3}}, foo_bar[] = {{"foo.bar", 7}};
    struct slice load[] = {{"admin.api.load", 14}}, api[] = {{"admin.api", 9}}, all[] = {{"*", 1}};
    CHECK(log_allowed(foo, 1, NULL, 0, SLICE("foo"), true));
    CHECK(!log_allowed(NULL, 0, foo, 1, SLICE("foo"), true));
    CHECK(!log_allowed(foo, 1, foo, 1, SLICE("foo"), true));
    CHECK(log_allowed(foo_bar, 1, foo, 1, SLICE("foo.bar"), true));
    CHECK(!log_allowed(load, 1, api, 1, SLICE("admin.api"), false));
    CHECK(log_allowed(load, 1, api, 1, SLICE("admin.api.load.x"), false));
    CHECK(!log_allowed(foo, 1, NULL, 0, SLICE("foobar"), false));
    CHECK(log_allowed(NULL, 0, foo, 1, SLICE("foobar"), false));
    CHECK(!log_allowed(NULL, 0, all, 1, SLICE("anything"), false));
    CHECK(log_allowed(NULL, 0, NULL, 0, SLICE(""), false));
}

/* --- pipes --- */

enum { PIPE = 1 << 19 };

TEST("a pipe gives back what was put in, over the ends of its chunks")
{
    struct log_pipe p;
    static char line[100000];
    int a, b;
    void *to;
    struct slice got;
    log_pipe_init(&p, PIPE);
    CHECK(!log_pipe_peek(&p, &to, &got));
    for (unsigned i = 0; i < 500; i++) {
        unsigned kept = 1 + i % 7;
        for (unsigned k = 0; k < kept; k++) {
            memset(line, (int)('a' + k), sizeof line);
            size_t len = k == 3 ? sizeof line : 1 + (i * 37 + k) % 2999;
            CHECK(log_pipe_put(&p, k % 2 ? &a : &b, slice_of(line, len)));
        }
        for (unsigned k = 0; k < kept; k++) {
            CHECK(log_pipe_peek(&p, &to, &got));
            CHECK(to == (k % 2 ? &a : &b));
            CHECK_INT(got.len, k == 3 ? sizeof line : 1 + (i * 37 + k) % 2999);
            CHECK_INT(got.ptr[got.len - 1], 'a' + k);
            log_pipe_drop(&p, got);
        }
        CHECK(log_pipe_empty(&p));
    }
    CHECK(log_pipe_held(&p) < PIPE / 2);
    log_pipe_deinit(&p);
}

TEST("a full pipe refuses, and takes again when a chunk has gone")
{
    struct log_pipe p;
    char line[1000] = {0};
    int a;
    void *to;
    struct slice got;
    unsigned n = 0, m = 0;
    log_pipe_init(&p, PIPE);
    while (log_pipe_put(&p, &a, slice_of(line, sizeof line)))
        n++;
    CHECK(n > PIPE / 1024 * 9 / 10);
    CHECK(log_pipe_held(&p) <= PIPE);
    for (unsigned i = 0; i < 70; i++) {
        CHECK(log_pipe_peek(&p, &to, &got));
        log_pipe_drop(&p, got);
    }
    while (log_pipe_put(&p, &a, slice_of(line, sizeof line)))
        m++;
    CHECK(m > 50 && m < 80);
    CHECK(!log_pipe_put(&p, &a, slice_of(line, PIPE)));
    log_pipe_deinit(&p);
}

/* --- the log thread --- */

struct test_writer {
    struct log_writer writer;
    atomic_size_t lines, bytes;
    atomic_bool blocked, closed;
    unsigned last[8]; /* by thread: the number of its last line */
    bool ordered;
};

static enum err on_write(struct log_writer *w, struct slice bytes, size_t *taken)
{
    struct test_writer *t = CONTAINER_OF(w, struct test_writer, writer);
    if (atomic_load(&t->blocked))
        return ERR_TIMEOUT;
    struct slice line, rest = bytes;
    while (slice_cut(rest, '\n', &line, &rest)) {
        struct slice first, second;
        uint64_t thread, number;
        slice_cut(line, ' ', &first, &line);
        slice_cut(line, ' ', &second, &line);
        if (slice_to_u64(first, 7, &thread) && slice_to_u64(second, UINT32_MAX, &number)) {
            t->ordered = t->ordered && number > t->last[thread];
            t->last[thread] = (unsigned)number;
        }
        atomic_fetch_add(&t->lines, 1);
    }
    atomic_fetch_add(&t->bytes, bytes.len);
    *taken = bytes.len;
    return OK;
}

static int on_poll_fd(struct log_writer *w)
{
    return -1;
}

static void on_close(struct log_writer *w)
{
    atomic_store(&CONTAINER_OF(w, struct test_writer, writer)->closed, true);
}

static const struct log_writer_type test_type = {on_write, on_poll_fd, NULL, on_close, NULL};

static void start(struct test_writer *t)
{
    *t = (struct test_writer){.writer = {.type = &test_type, .name = "test"}, .ordered = true};
    CHECK_OK(log_queue_start());
    log_queue_add(&t->writer);
}

struct logger {
    struct test_writer *to;
    unsigned number, lines;
    pthread_t thread;
};

static void *log_lines(void *arg)
{
    struct logger *l = arg;
    char line[200];
    for (unsigned i = 1; i <= l->lines; i++) {
        int n = snprintf(line, sizeof line, "%u %u %.*s\n", l->number, i, (int)(i % 100),
                         "................................................................"
                         "....................................");
        while (!log_queue_put(&l->to->writer, slice_of(line, (size_t)n), false)) {
        }
    }
    return NULL;
}

TEST("lines of several threads all arrive, each thread's in order")
{
    struct test_writer t;
    struct logger loggers[4];
    start(&t);
    for (unsigned i = 0; i < 4; i++) {
        loggers[i] = (struct logger){.to = &t, .number = i, .lines = 20000};
        pthread_create(&loggers[i].thread, NULL, log_lines, &loggers[i]);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(loggers[i].thread, NULL);
    CHECK(log_queue_stop(60 * NS_PER_S));
    CHECK_INT(t.lines, 80000);
    CHECK(t.ordered);
    CHECK(t.closed);
}

TEST("a writer that takes nothing costs its own lines only, and they are counted")
{
    struct test_writer stuck, well;
    char line[1024];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    start(&stuck);
    stuck.blocked = true;
    well = (struct test_writer){.writer = {.type = &test_type, .name = "well"}};
    log_queue_add(&well.writer);
    uint64_t before = log_queue_dropped(), refused = 0;
    for (unsigned i = 0; i < 20000; i++) {
        (void)log_queue_put(&stuck.writer, slice_of(line, sizeof line), false);
        while (i % 100 == 0 && !log_queue_put(&well.writer, SLICE("line\n"), false))
            refused++; /* counted as dropped, too */
        if (i % 256 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    stuck.blocked = false;
    CHECK(log_queue_stop(60 * NS_PER_S));
    CHECK_INT(well.lines, 200);
    CHECK_INT(stuck.lines + (log_queue_dropped() - before) - refused, 20000);
    CHECK(stuck.lines >= LOG_PENDING_MAX / sizeof line);
    CHECK(log_queue_dropped() > before);
}

static void *unblock_soon(void *arg)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    atomic_store(&((struct test_writer *)arg)->blocked, false);
    return NULL;
}

TEST("a log that would rather wait goes on when its writer has paused")
{
    struct test_writer t;
    pthread_t thread;
    char line[1024];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    start(&t);
    t.blocked = true;
    for (unsigned i = 0; i < 9000; i++) { /* 7,000 fit without waiting */
        if (i == 7000)
            pthread_create(&thread, NULL, unblock_soon, &t);
        (void)log_queue_put(&t.writer, slice_of(line, sizeof line), true);
    }
    pthread_join(thread, NULL);
    CHECK(log_queue_stop(60 * NS_PER_S));
    CHECK_INT(t.lines + t.writer.dropped, 9000);
    CHECK(t.lines >= 7000); /* all, unless the machine slept through the time */
}

TEST("closing a writer writes what was put before")
{
    struct test_writer t;
    start(&t);
    for (unsigned i = 0; i < 1000; i++)
        CHECK(log_queue_put(&t.writer, SLICE("line\n"), false));
    log_queue_close(&t.writer);
    for (unsigned i = 0; i < 60000 && !t.closed; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    CHECK(t.closed);
    CHECK_INT(t.lines, 1000);
    CHECK(log_queue_stop(60 * NS_PER_S));
}

/* --- sets --- */

static enum err encode_plain(const void *cfg, struct buffer *b, const struct log_event *e,
                             size_t string_max)
{
    TRY(buffer_append(b, slice_take(e->message, string_max)));
    return buffer_append_byte(b, '\n');
}

static atomic_bool publishing;

static void *log_events(void *arg)
{
    while (atomic_load(&publishing))
        LOG(LOG_INFO, "a.b", "event", LOG_NUM("n", 1));
    return NULL;
}

TEST("a set of logs is replaced while threads log to it")
{
    struct test_writer t;
    pthread_t threads[3];
    start(&t);
    publishing = true;
    struct log_stream *streams = NULL;
    for (unsigned i = 0; i < 300; i++) {
        struct log_stream *fresh = mem_zalloc(sizeof *fresh + sizeof(struct log_set));
        struct log_set *set = (void *)(fresh + 1);
        *fresh = (struct log_stream){.name = "x", .level = LOG_INFO, .encode = encode_plain,
                                     .writer = &t.writer, .stack_level = -1};
        *set = (struct log_set){fresh, 1};
        log_publish(set);
        mem_free(streams); /* nobody is in it any more */
        streams = fresh;
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        for (unsigned k = 0; i == 0 && k < 3; k++)
            pthread_create(&threads[k], NULL, log_events, NULL);
    }
    publishing = false;
    for (unsigned k = 0; k < 3; k++)
        pthread_join(threads[k], NULL);
    log_publish(NULL);
    mem_free(streams);
    CHECK(log_queue_stop(60 * NS_PER_S));
    CHECK(t.lines > 0);
}

TEST("sampling keeps the first ones and then one in so many")
{
    struct test_writer t;
    start(&t);
    struct log_stream s = {.name = "x", .encode = encode_plain, .writer = &t.writer,
                           .stack_level = -1,
                           .sampling = log_sampling_create(3600 * NS_PER_S, 10, 50)};
    struct log_set set = {&s, 1};
    log_publish(&set);
    for (unsigned i = 0; i < 210; i++)
        LOG(LOG_INFO, "a", "event");
    for (unsigned i = 0; i < 3; i++)
        LOG(LOG_WARN, "a", "event");
    log_publish(NULL);
    CHECK(log_queue_stop(60 * NS_PER_S));
    CHECK_INT(t.lines, 10 + 4 + 3);
    log_sampling_destroy(s.sampling);
}
