/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pipe is read when it has something, up to some buffers a turn, so that one program that shouts
 * does not hold the control thread up; what stays in the pipe makes the program wait, for
 * microseconds, not for ever: what is over the rate is read and thrown away.
 */
#include "services/output.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "config/jsonx.h"

enum { READ_SIZE = 16384, READS_A_TURN = 8, FIELDS_MAX = 48, JSON_DEPTH = 16 };

/* --- the last lines --- */

void lines_init(struct lines *l)
{
    memset(l, 0, sizeof *l);
    l->next_seq = 1;
    list_init(&l->readers);
}

static void drop_first(struct lines *l)
{
    struct kept_line *first = &l->ring[l->first];
    l->bytes -= first->text.len;
    mem_free((void *)(uintptr_t)first->text.ptr);
    l->first = (l->first + 1) % LINES_KEPT;
    l->count--;
}

void lines_deinit(struct lines *l)
{
    while (l->count > 0)
        drop_first(l);
}

static void keep_line(struct lines *l, const char *stream, uint32_t replica, struct slice text)
{
    while (l->count == LINES_KEPT || (l->count > 0 && l->bytes + text.len > LINES_KEPT_BYTES))
        drop_first(l);
    l->ring[(l->first + l->count++) % LINES_KEPT] =
        (struct kept_line){l->next_seq++, clock_wall_ns(), replica, stream, {slice_dup(text), text.len}};
    l->bytes += text.len;
}

/* --- into the log --- */

static enum log_level level_of(const json_t *v)
{
    enum log_level level;
    if (json_is_string(v) &&
        log_level_parse(slice_of(json_string_value(v), json_string_length(v)), &level))
        return level > LOG_ERROR ? LOG_ERROR : level;
    json_int_t n = json_integer_value(v); /* pino's: 20 debug, 30 info, 40 warn, 50 error */
    if (!json_is_integer(v) || n < 10 || n > 60)
        return LOG_INFO;
    return n >= 50 ? LOG_ERROR : n >= 40 ? LOG_WARN : n >= 30 ? LOG_INFO : LOG_DEBUG;
}

static bool is_own_key(const char *key)
{
    static const char *const own[] = {"level", "ts", "logger", "msg", "message", "replica",
                                      "stream", NULL};
    const char *const *k = own;
    while (*k != NULL && strcmp(*k, key) != 0)
        k++;
    return *k != NULL;
}

static struct log_field field_of(const char *key, const json_t *v, struct arena *arena)
{
    struct slice name = slice_from(key);
    if (json_is_string(v))
        return LOG_STR(key, slice_of(json_string_value(v), json_string_length(v)));
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    struct slice copy = arena_copy(arena, slice_from(text != NULL ? text : "null"));
    free(text);
    return (struct log_field){.key = name, .kind = LOG_JSON, .text = copy};
}

/* Its "msg" or "message" is the message, its level the level, the rest fields. */
static bool log_object(const struct output *from, struct slice text)
{
    struct arena arena;
    struct log_field fields[FIELDS_MAX];
    size_t count = 0;
    const char *key;
    json_t *value;
    if (text.len < 2 || text.ptr[0] != '{' || jsonx_too_deep(text, JSON_DEPTH))
        return false;
    json_t *o = json_loadb(text.ptr, text.len, 0, NULL);
    if (!json_is_object(o)) {
        json_decref(o);
        return false;
    }
    const json_t *msg = json_object_get(o, "msg");
    msg = json_is_string(msg) ? msg : json_object_get(o, "message");
    enum log_level level = level_of(json_object_get(o, "level"));
    arena_init(&arena, 4096);
    fields[count++] = (struct log_field)LOG_NUM("replica", from->replica + 1);
    fields[count++] = (struct log_field)LOG_CSTR("stream", from->stream);
    json_object_foreach(o, key, value)
    {
        if (count < FIELDS_MAX && !is_own_key(key))
            fields[count++] = field_of(key, value, &arena);
    }
    if (log_wants(level))
        log_emit(level, from->logger,
                 json_is_string(msg) ? slice_of(json_string_value(msg), json_string_length(msg))
                                     : SLICE(""), fields, count);
    arena_deinit(&arena);
    json_decref(o);
    return true;
}

static void log_line(const struct output *from, struct slice text)
{
    const struct log_field fields[] = {LOG_NUM("replica", from->replica + 1),
                                       LOG_CSTR("stream", from->stream)};
    if (!log_object(from, text) && log_wants(LOG_INFO))
        log_emit(LOG_INFO, from->logger, text, fields, 2);
}

void lines_note(struct lines *l, uint32_t replica, struct slice text)
{
    keep_line(l, NULL, replica, text);
}

/* False when it is over the rate. */
static bool count_line(struct lines *l, const char *logger)
{
    uint64_t second = clock_mono_ns() / NS_PER_S;
    l->total++;
    if (second != l->second) {
        if (l->in_second > LINES_A_SECOND)
            LOG(LOG_WARN, "services", "too many lines: some were dropped",
                LOG_CSTR("log", logger), LOG_NUM("dropped", l->in_second - LINES_A_SECOND));
        l->second = second;
        l->in_second = 0;
    }
    if (++l->in_second <= LINES_A_SECOND)
        return true;
    l->dropped++;
    return false;
}

static void put_line(struct output *o, struct slice text)
{
    while (text.len > 0 && (text.ptr[text.len - 1] == '\r' || text.ptr[text.len - 1] == '\n'))
        text.len--;
    if (text.len == 0 || !count_line(o->lines, o->logger))
        return;
    keep_line(o->lines, o->stream, o->replica, text);
    log_line(o, text);
    if (o->on_line != NULL)
        o->on_line(o);
}

/* --- the pipe --- */

static void take(struct output *o, struct slice bytes)
{
    while (bytes.len > 0) {
        size_t at = slice_find(bytes, '\n');
        struct slice piece = slice_take(bytes, at == SIZE_MAX ? bytes.len : at);
        if (!o->cut && buffer_append(&o->part, slice_take(piece, LINE_MAX_BYTES - o->part.len)) == OK &&
            o->part.len == LINE_MAX_BYTES && piece.len > 0) {
            put_line(o, buffer_slice(&o->part));
            buffer_clear(&o->part);
            o->cut = true;
        }
        if (at == SIZE_MAX)
            return;
        if (!o->cut)
            put_line(o, buffer_slice(&o->part));
        buffer_clear(&o->part);
        o->cut = false;
        bytes = slice_skip(bytes, at + 1);
    }
}

/* False at the end. */
static bool read_some(struct output *o, unsigned reads)
{
    static char bytes[READ_SIZE];
    for (unsigned i = 0; i < reads; i++) {
        ssize_t n = read(o->fd, bytes, sizeof bytes);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        if (n == 0)
            return false;
        take(o, slice_of(bytes, (size_t)n));
    }
    return true;
}

static void finish(struct output *o)
{
    if (o->part.len > 0 && !o->cut)
        put_line(o, buffer_slice(&o->part));
    buffer_deinit(&o->part);
    loop_close(o->loop, o->fd);
    o->fd = -1;
}

static void on_readable(struct op *op, int result)
{
    struct output *o = CONTAINER_OF(op, struct output, op);
    bool goes_on = result >= 0 && read_some(o, READS_A_TURN);
    if (goes_on && !o->closing) {
        op_poll(o->loop, &o->op, o->fd, POLLIN);
        return;
    }
    if (o->closing)
        (void)read_some(o, READS_A_TURN);
    finish(o);
    if (o->closing && o->on_end != NULL)
        o->on_end(o);
}

void output_open(struct output *o, struct loop *loop, int fd, struct lines *lines,
                 const char *logger, const char *stream, uint32_t replica)
{
    o->fd = fd;
    o->loop = loop;
    o->lines = lines;
    o->logger = logger;
    o->stream = stream;
    o->replica = replica;
    buffer_init(&o->part, LINE_MAX_BYTES);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    o->op.on_done = on_readable;
    op_poll(loop, &o->op, fd, POLLIN);
}

bool output_is_open(const struct output *o)
{
    return o->fd >= 0 || o->op.armed;
}

bool output_close(struct output *o)
{
    o->closing = true;
    if (o->fd < 0)
        return true;
    op_cancel(o->loop, &o->op);
    return false;
}
