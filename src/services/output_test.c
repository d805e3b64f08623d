/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines out of pipes: whole ones, long ones, too many, and those that are JSON.
 */
#include <unistd.h>

#include "base/log.h"
#include "base/test.h"
#include "services/output.h"

static struct loop *loop;
static struct lines lines;
static struct output output;
static int writing;
static char logged[4096];

static void on_log(struct log_event *e)
{
    snprintf(logged, sizeof logged, "%s|%s|" SLICE_FMT "|%zu", log_level_name(e->level), e->logger,
             SLICE_ARG(slice_take(e->message, 100)), e->count);
}

static void on_end(struct output *o)
{
    (void)o;
    loop_stop(loop);
}

static void begin(void)
{
    int pair[2];
    CHECK_INT(pipe(pair), 0);
    CHECK_OK(loop_create(LOOP_EPOLL, &loop));
    log_set_sink(on_log);
    lines_init(&lines);
    memset(&output, 0, sizeof output);
    output.on_end = on_end;
    output_open(&output, loop, pair[0], &lines, "service.x", "stderr", 1);
    writing = pair[1];
}

static void end(void)
{
    CHECK(!output_close(&output));
    close(writing);
    loop_run(loop);
    log_set_sink(NULL);
}

static void done(void)
{
    lines_deinit(&lines);
    loop_destroy(loop);
}

static void put(const char *text)
{
    CHECK_INT(write(writing, text, strlen(text)), strlen(text));
}

static struct slice line(unsigned i)
{
    return lines.ring[(lines.first + i) % LINES_KEPT].text;
}

TEST("lines are kept and logged, the last one also without its end")
{
    begin();
    put("one\r\n\ntwo\nthr");
    put("ee");
    end();
    CHECK_INT(lines.count, 3);
    CHECK_TEXT(line(0), "one");
    CHECK_TEXT(line(2), "three");
    CHECK_TEXT(slice_from(logged), "info|service.x|three|2");
    done();
}

TEST("a line of JSON gives its message, its level, and its members as fields")
{
    begin();
    put("{\"level\":\"warn\",\"msg\":\"hm\",\"n\":1,\"o\":{\"a\":[]},\"ts\":0}\n");
    end();
    CHECK_TEXT(slice_from(logged), "warn|service.x|hm|4");
    done();
    begin();
    put("{\"level\":50,\"message\":\"pino\"}\n");
    end();
    CHECK_TEXT(slice_from(logged), "error|service.x|pino|2");
    done();
    begin();
    put("{not json\n");
    end();
    CHECK_TEXT(slice_from(logged), "info|service.x|{not json|2");
    done();
}

TEST("a long line is cut, and the next one is whole")
{
    static char text[3 * LINE_MAX_BYTES + 8];
    begin();
    memset(text, 'x', sizeof text - 1);
    memcpy(text + sizeof text - 7, "\nnext\n", 7);
    CHECK_INT(write(writing, text, sizeof text - 1), sizeof text - 1);
    end();
    CHECK_INT(lines.count, 2);
    CHECK_INT(line(0).len, LINE_MAX_BYTES);
    CHECK_TEXT(line(1), "next");
    done();
}

TEST("what is over the rate is dropped and counted, and memory is bounded")
{
    begin();
    for (int i = 0; i < 2000; i++)
        put("0123456789\n");
    end();
    CHECK_INT(lines.total, 2000);
    CHECK(lines.count <= LINES_KEPT);
    CHECK(lines.dropped > 0 && lines.dropped <= 1000);
    done();
}
