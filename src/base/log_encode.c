/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two encoders, with the field names and forms of Caddy's: JSON with the time as seconds since
 * 1970, and the console form for people, whose fields stand behind the message as one JSON object.
 * Encoders only append to a buffer; a line that does not fit its cap is refused whole.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "base/text.h"

enum err json_put_string(struct buffer *b, struct slice s)
{
    TRY(buffer_append_byte(b, '"'));
    while (s.len > 0) {
        unsigned char c = (unsigned char)s.ptr[0];
        size_t plain = 0;
        while (plain < s.len && (unsigned char)s.ptr[plain] >= 0x20 && s.ptr[plain] != '"' &&
               s.ptr[plain] != '\\' && (unsigned char)s.ptr[plain] < 0x7f)
            plain++;
        if (plain == 0 && c >= 0x80) {
            plain = utf8_decode(s, NULL);
            if (plain == 0) {
                TRY(BUFFER_PUT(b, "\\ufffd"));
                s = slice_skip(s, 1);
                continue;
            }
        }
        if (plain > 0) {
            TRY(buffer_append(b, slice_take(s, plain)));
            s = slice_skip(s, plain);
            continue;
        }
        s = slice_skip(s, 1);
        switch (c) {
        case '"':
        case '\\':
            TRY(buffer_append_byte(b, '\\'));
            TRY(buffer_append_byte(b, (char)c));
            break;
        case '\n':
            TRY(BUFFER_PUT(b, "\\n"));
            break;
        case '\r':
            TRY(BUFFER_PUT(b, "\\r"));
            break;
        case '\t':
            TRY(BUFFER_PUT(b, "\\t"));
            break;
        default:
            TRY(buffer_append_f(b, "\\u%04x", c));
        }
    }
    return buffer_append_byte(b, '"');
}

/* The shortest form that reads back as the same number. */
static enum err put_real(struct buffer *b, double v)
{
    char text[40];
    if (!isfinite(v))
        return BUFFER_PUT(b, "null");
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    return buffer_append(b, slice_from(text));
}

static enum err put_calendar(struct buffer *b, int64_t wall_ns, const struct log_format *f,
                             const char *layout, int fraction_digits, bool zone)
{
    static const int64_t scale[] = {1000000000, 100000000, 10000000, 1000000, 100000,
                                    10000,      1000,      100,      10,      1};
    char text[64];
    struct tm tm;
    time_t seconds = (time_t)(wall_ns / 1000000000);
    if (f->local_time)
        localtime_r(&seconds, &tm);
    else
        gmtime_r(&seconds, &tm);
    strftime(text, sizeof text, layout, &tm);
    TRY(buffer_append(b, slice_from(text)));
    if (fraction_digits > 0)
        TRY(buffer_append_f(b, ".%0*lld", fraction_digits,
                            (long long)(wall_ns % 1000000000 / scale[fraction_digits])));
    if (!zone)
        return OK;
    if (!f->local_time)
        return BUFFER_PUT(b, "Z");
    strftime(text, sizeof text, "%z", &tm);
    return buffer_append(b, slice_from(text));
}

static enum err put_time(struct buffer *b, int64_t ns, const struct log_format *f, bool quoted)
{
    switch (f->time) {
    case LOG_TIME_UNIX_FLOAT:
        return put_real(b, (double)ns / 1e9);
    case LOG_TIME_UNIX_MILLI:
        return put_real(b, (double)ns / 1e6);
    case LOG_TIME_UNIX_NANO:
        return buffer_append_u64(b, (uint64_t)ns);
    default:
        break;
    }
    if (quoted)
        TRY(buffer_append_byte(b, '"'));
    enum err e = OK;
    if (f->time == LOG_TIME_WALL)
        e = put_calendar(b, ns, f, "%Y/%m/%d %H:%M:%S", 0, false);
    else if (f->time == LOG_TIME_WALL_MILLI)
        e = put_calendar(b, ns, f, "%Y/%m/%d %H:%M:%S", 3, false);
    else if (f->time == LOG_TIME_WALL_NANO)
        e = put_calendar(b, ns, f, "%Y/%m/%d %H:%M:%S", 9, false);
    else if (f->time == LOG_TIME_ISO8601)
        e = put_calendar(b, ns, f, "%Y-%m-%dT%H:%M:%S", 3, true);
    else
        e = put_calendar(b, ns, f, "%Y-%m-%dT%H:%M:%S", f->time == LOG_TIME_RFC3339 ? 0 : 9, true);
    TRY(e);
    return quoted ? buffer_append_byte(b, '"') : OK;
}

static enum err put_duration(struct buffer *b, int64_t ns, const struct log_format *f)
{
    if (f->duration == LOG_DURATION_NANOS)
        return buffer_append_f(b, "%lld", (long long)ns);
    if (f->duration == LOG_DURATION_SECONDS)
        return put_real(b, (double)ns / 1e9);
    TRY(buffer_append_byte(b, '"'));
    TRY(duration_put(b, ns));
    return buffer_append_byte(b, '"');
}

static enum err put_fields(struct buffer *b, const struct log_field *fields, size_t count,
                           const struct log_format *f, bool comma);

static enum err put_value(struct buffer *b, const struct log_field *v, const struct log_format *f)
{
    switch (v->kind) {
    case LOG_STRING:
        return json_put_string(b, v->text);
    case LOG_INT:
        return buffer_append_f(b, "%lld", (long long)v->number);
    case LOG_UINT:
        return buffer_append_u64(b, v->unsigned_number);
    case LOG_FLOAT:
        return put_real(b, v->real);
    case LOG_BOOL:
        return buffer_append(b, v->truth ? SLICE("true") : SLICE("false"));
    case LOG_DURATION:
        return put_duration(b, v->number, f);
    case LOG_TIME:
        return put_time(b, v->number, f, true);
    case LOG_JSON:
        return buffer_append(b, v->text);
    case LOG_OBJECT:
        TRY(buffer_append_byte(b, '{'));
        TRY(put_fields(b, v->object.fields, v->object.count, f, false));
        return buffer_append_byte(b, '}');
    }
    return ERR_INVALID;
}

static enum err put_fields(struct buffer *b, const struct log_field *fields, size_t count,
                           const struct log_format *f, bool comma)
{
    for (size_t i = 0; i < count; i++) {
        if (comma)
            TRY(buffer_append_byte(b, ','));
        comma = true;
        TRY(json_put_string(b, slice_from(fields[i].key)));
        TRY(buffer_append_byte(b, ':'));
        TRY(put_value(b, &fields[i], f));
    }
    return OK;
}

static const char *key_or(const char *key, const char *fallback)
{
    return key != NULL ? key : fallback;
}

/* `"key":`, with a comma before all but the first; false in *wanted when the key is empty. */
static enum err put_key(struct buffer *b, const char *key, bool *wanted)
{
    *wanted = key[0] != '\0';
    if (!*wanted)
        return OK;
    if (b->len > 0 && b->ptr[b->len - 1] != '{')
        TRY(buffer_append_byte(b, ','));
    TRY(json_put_string(b, slice_from(key)));
    return buffer_append_byte(b, ':');
}

static enum err put_json(struct buffer *b, const struct log_event *e, const struct log_format *f)
{
    bool wanted;
    TRY(buffer_append_byte(b, '{'));
    TRY(put_key(b, key_or(f->level_key, "level"), &wanted));
    if (wanted)
        TRY(json_put_string(b, slice_from(log_level_name(e->level))));
    TRY(put_key(b, key_or(f->time_key, "ts"), &wanted));
    if (wanted)
        TRY(put_time(b, e->wall_ns, f, true));
    TRY(put_key(b, e->logger[0] != '\0' ? key_or(f->logger_key, "logger") : "", &wanted));
    if (wanted)
        TRY(json_put_string(b, slice_from(e->logger)));
    TRY(put_key(b, key_or(f->message_key, "msg"), &wanted));
    if (wanted)
        TRY(json_put_string(b, e->message));
    TRY(put_fields(b, e->fields, e->count, f, b->ptr[b->len - 1] != '{'));
    return BUFFER_PUT(b, "}\n");
}

enum err log_encode_json(struct buffer *b, const struct log_event *e, const struct log_format *f)
{
    struct buffer line;
    buffer_init(&line, b->max - b->len);
    enum err r = put_json(&line, e, f);
    if (r == OK)
        r = buffer_append(b, buffer_slice(&line));
    buffer_deinit(&line);
    return r;
}

static enum err put_level(struct buffer *b, enum log_level level, bool color)
{
    static const char *const upper[] = {"DEBUG", "INFO", "WARN", "ERROR", "PANIC", "FATAL"};
    static const int colors[] = {35, 34, 33, 31, 31, 31};
    if (!color)
        return buffer_append(b, slice_from(upper[level]));
    return buffer_append_f(b, "\x1b[%dm%s\x1b[0m", colors[level], upper[level]);
}

/* The message of a line for people: control characters cannot move the cursor or add lines. */
static enum err put_plain(struct buffer *b, struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        TRY(buffer_append_byte(b, (unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7f ? ' '
                                                                                     : s.ptr[i]));
    return OK;
}

static enum err put_console(struct buffer *b, const struct log_event *e, const struct log_format *f)
{
    TRY(put_time(b, e->wall_ns, f, false));
    TRY(buffer_append_byte(b, '\t'));
    TRY(put_level(b, e->level, f->color));
    TRY(buffer_append_byte(b, '\t'));
    if (e->logger[0] != '\0') {
        TRY(buffer_append(b, slice_from(e->logger)));
        TRY(buffer_append_byte(b, '\t'));
    }
    TRY(put_plain(b, e->message));
    if (e->count > 0) {
        TRY(BUFFER_PUT(b, "\t{"));
        TRY(put_fields(b, e->fields, e->count, f, false));
        TRY(buffer_append_byte(b, '}'));
    }
    return buffer_append_byte(b, '\n');
}

enum err log_encode_console(struct buffer *b, const struct log_event *e, const struct log_format *f)
{
    struct buffer line;
    buffer_init(&line, b->max - b->len);
    enum err r = put_console(&line, e, f);
    if (r == OK)
        r = buffer_append(b, buffer_slice(&line));
    buffer_deinit(&line);
    return r;
}
