/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two encoders of log events, JSON and console, with the member names, the number forms and the
 * options of Caddy's.
 */
#pragma once

#include "base/log.h"
#include "base/time_layout.h"

/* How times and durations are written. */
enum log_time_format {
    LOG_TIME_UNIX_FLOAT, /* seconds since 1970 with a fraction: Caddy's default for JSON */
    LOG_TIME_UNIX_MILLI, /* milliseconds with a fraction */
    LOG_TIME_UNIX_NANO,
    LOG_TIME_LAYOUT,     /* `layout`, UTC or local */
};

enum log_duration_format {
    LOG_DURATION_SECONDS,
    LOG_DURATION_MILLIS, /* whole ones */
    LOG_DURATION_NANOS,
    LOG_DURATION_STRING, /* "1.5s" */
};

enum log_level_format { LOG_LEVEL_LOWER, LOG_LEVEL_UPPER, LOG_LEVEL_COLOR };

struct log_format {
    enum log_time_format time;
    const struct time_layout *layout;
    bool local_time; /* layouts in the machine's zone instead of UTC */
    enum log_duration_format duration;
    enum log_level_format level;
    bool caller, stack;     /* written when the event has them */
    struct slice level_key, time_key, logger_key, caller_key, message_key, stack_key; /* "": not */
    struct slice line_end;
    size_t string_max; /* longer values are cut there, with "…" behind */
};

/* Caddy's: level ts logger caller msg stacktrace, LF, times as float seconds, lower case. */
void log_format_init(struct log_format *);

/* Caddy's for people: wall_milli, colours. */
void log_format_init_console(struct log_format *);

/* One line with its end: {"level":"info","ts":…,"logger":"…","msg":"…",…}. ERR_LIMIT leaves the
 * buffer as it was. */
enum err log_encode_json(struct buffer *, const struct log_event *, const struct log_format *);

/* One line with its end: time, level, logger, message, fields as JSON; tab-separated. */
enum err log_encode_console(struct buffer *, const struct log_event *, const struct log_format *);

/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. Control characters, those
 * of C1 and DEL too, are escaped: nothing that is logged reaches a terminal as a command. */
enum err json_put_string(struct buffer *, struct slice);
