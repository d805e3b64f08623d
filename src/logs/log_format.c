/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoders json and console with their options.
 *
 *     {"format": "json", "time_format": "rfc3339", "duration_format": "ms", "level_format":
 *      "upper", "time_local": true, "message_key": "m", …, "line_ending": "\r\n"}
 */
#include "base/log_encode.h"
#include "logs/encoders.h"

struct encoder {
    struct log_format format;
    struct time_layout layout;
};

static const char *const members[] = {
    "format", "message_key", "level_key", "time_key", "name_key", "caller_key", "stacktrace_key",
    "line_ending", "time_format", "time_local", "duration_format", "level_format", NULL};

static const struct {
    const char *name, *layout;
} layouts[] = {
    {"iso8601", "2006-01-02T15:04:05.000Z0700"},
    {"rfc3339", "2006-01-02T15:04:05Z07:00"},
    {"rfc3339_nano", "2006-01-02T15:04:05.999999999Z07:00"},
    {"wall", "2006/01/02 15:04:05"},
    {"wall_milli", "2006/01/02 15:04:05.000"},
    {"wall_nano", "2006/01/02 15:04:05.000000000"},
    {"common_log", "02/Jan/2006:15:04:05 -0700"},
};

static enum err read_keys(struct log_format *f, const json_t *json, struct provision *p)
{
    TRY(provision_text(p, json, "message_key", f->message_key, &f->message_key));
    TRY(provision_text(p, json, "level_key", f->level_key, &f->level_key));
    TRY(provision_text(p, json, "time_key", f->time_key, &f->time_key));
    TRY(provision_text(p, json, "name_key", f->logger_key, &f->logger_key));
    TRY(provision_text(p, json, "caller_key", f->caller_key, &f->caller_key));
    TRY(provision_text(p, json, "stacktrace_key", f->stack_key, &f->stack_key));
    TRY(provision_text(p, json, "line_ending", f->line_end, &f->line_end));
    if (f->line_end.len == 0)
        f->line_end = SLICE("\n");
    return OK;
}

static enum err read_time(struct encoder *e, const json_t *json, struct provision *p)
{
    struct log_format *f = &e->format;
    struct slice name;
    TRY(provision_bool(p, json, "time_local", false, &f->local_time));
    TRY(provision_text(p, json, "time_format", SLICE_NONE, &name));
    if (name.len == 0)
        return OK;
    f->layout = &e->layout;
    if (slice_is(name, "unix_seconds_float"))
        f->time = LOG_TIME_UNIX_FLOAT;
    else if (slice_is(name, "unix_milli_float"))
        f->time = LOG_TIME_UNIX_MILLI;
    else if (slice_is(name, "unix_nano"))
        f->time = LOG_TIME_UNIX_NANO;
    else
        f->time = LOG_TIME_LAYOUT;
    if (slice_is(name, "iso8601")) /* the one that Caddy always writes in local time */
        f->local_time = true;
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (slice_is(name, layouts[i].name))
            name = slice_from(layouts[i].layout);
    }
    if (time_layout_compile(&e->layout, name) != OK)
        return provision_fail(p, "\"time_format\" is longer than %d bytes", TIME_LAYOUT_MAX);
    return OK;
}

static enum err read_forms(struct log_format *f, const json_t *json, struct provision *p)
{
    struct slice duration, level;
    TRY(provision_text(p, json, "duration_format", SLICE_NONE, &duration));
    TRY(provision_text(p, json, "level_format", SLICE_NONE, &level));
    if (slice_is(duration, "ns") || slice_is(duration, "nano") || slice_is(duration, "nanos"))
        f->duration = LOG_DURATION_NANOS;
    else if (slice_is(duration, "ms") || slice_is(duration, "milli") ||
             slice_is(duration, "millis"))
        f->duration = LOG_DURATION_MILLIS;
    else if (slice_is(duration, "string"))
        f->duration = LOG_DURATION_STRING;
    if (slice_is(level, "color"))
        f->level = LOG_LEVEL_COLOR;
    else if (slice_is(level, "upper"))
        f->level = LOG_LEVEL_UPPER;
    else if (level.len > 0)
        f->level = LOG_LEVEL_LOWER;
    return OK;
}

static enum err read_all(struct encoder *e, const json_t *json, struct provision *p)
{
    e->format.caller = e->format.stack = true;
    if (json == NULL)
        return OK;
    TRY(provision_members(p, json, members));
    TRY(read_keys(&e->format, json, p));
    TRY(read_time(e, json, p));
    return read_forms(&e->format, json, p);
}

static enum err provision_json(void *cfg, const json_t *json, struct provision *p)
{
    struct encoder *e = cfg;
    log_format_init(&e->format);
    return read_all(e, json, p);
}

static enum err provision_console(void *cfg, const json_t *json, struct provision *p)
{
    struct encoder *e = cfg;
    log_format_init_console(&e->format);
    return read_all(e, json, p);
}

static enum err encode_json(const void *cfg, struct buffer *b, const struct log_event *event,
                            size_t string_max)
{
    const struct encoder *e = cfg;
    if (string_max >= e->format.string_max)
        return log_encode_json(b, event, &e->format);
    struct log_format f = e->format;
    f.string_max = string_max;
    return log_encode_json(b, event, &f);
}

static enum err encode_console(const void *cfg, struct buffer *b, const struct log_event *event,
                               size_t string_max)
{
    const struct encoder *e = cfg;
    struct log_format f = e->format;
    f.string_max = string_max;
    return log_encode_console(b, event, &f);
}

static const struct log_encoder_face json_face = {encode_json, NULL};
static const struct log_encoder_face console_face = {encode_console, NULL};

const struct module log_encoder_json = {
    .id = "caddy.logging.encoders.json", .cfg_size = sizeof(struct encoder),
    .provision = provision_json, .face = &json_face};
const struct module log_encoder_console = {
    .id = "caddy.logging.encoders.console", .cfg_size = sizeof(struct encoder),
    .provision = provision_console, .face = &console_face};
