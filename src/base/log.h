/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structured log events: level, logger name, message, typed fields. An event is built on the
 * caller's stack and given to the one sink of the process (set once by app/; stderr before that),
 * which decides by logger and level what becomes of it. Field names are Caddy's.
 */
#pragma once

#include "base/buffer.h"
#include "base/slice.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_PANIC, LOG_FATAL };

enum log_kind {
    LOG_STRING,
    LOG_INT,
    LOG_UINT,
    LOG_FLOAT,
    LOG_BOOL,
    LOG_DURATION, /* nanoseconds in `number`; written as seconds, or as the encoder is told */
    LOG_TIME,     /* wall-clock nanoseconds in `number` */
    LOG_JSON,     /* `text` holds one JSON value, written as it stands */
    LOG_OBJECT,   /* `fields` and `count` */
};

struct log_field {
    const char *key;
    enum log_kind kind;
    union {
        struct slice text;
        int64_t number;
        uint64_t unsigned_number;
        double real;
        bool truth;
        struct {
            const struct log_field *fields;
            size_t count;
        } object;
    };
};

struct log_event {
    enum log_level level;
    int64_t wall_ns;
    const char *logger;  /* "" for the root; "http.log.access" … */
    struct slice message;
    const struct log_field *fields;
    size_t count;
};

#define LOG_STR(k, v) ((struct log_field){.key = (k), .kind = LOG_STRING, .text = (v)})
#define LOG_CSTR(k, v) LOG_STR(k, slice_from(v))
#define LOG_NUM(k, v) ((struct log_field){.key = (k), .kind = LOG_INT, .number = (v)})
#define LOG_BOOLEAN(k, v) ((struct log_field){.key = (k), .kind = LOG_BOOL, .truth = (v)})
#define LOG_DUR(k, v) ((struct log_field){.key = (k), .kind = LOG_DURATION, .number = (int64_t)(v)})

typedef void log_sink(const struct log_event *);

/* Replaces the process's sink; call before threads start. NULL: back to stderr. */
void log_set_sink(log_sink *);

/* Events below it are dropped before they are built. */
void log_set_threshold(enum log_level);
bool log_wants(enum log_level);

void log_emit(enum log_level, const char *logger, struct slice message,
              const struct log_field *fields, size_t count);

/* LOG(LOG_INFO, "http", "server running", LOG_CSTR("name", name), LOG_NUM("port", 80)); */
#define LOG(level, logger, message, ...)                                                           \
    do {                                                                                           \
        if (log_wants(level)) {                                                                    \
            const struct log_field log_fields_[] = {__VA_ARGS__ __VA_OPT__(, ){0}};                \
            log_emit((level), (logger), SLICE(message), log_fields_,                               \
                     sizeof log_fields_ / sizeof log_fields_[0] - 1);                              \
        }                                                                                          \
    } while (0)

/* "debug", "info", … in lower case. */
const char *log_level_name(enum log_level);

/* Accepts either case; "warn" and "warning". False when unknown. */
bool log_level_parse(struct slice, enum log_level *);

/* How times and durations are written. */
enum log_time_format {
    LOG_TIME_UNIX_FLOAT, /* seconds since 1970 with a fraction: Caddy's default for JSON */
    LOG_TIME_WALL,       /* 2006/01/02 15:04:05.000, UTC: Caddy's default for the console */
    LOG_TIME_WALL_MILLI,
    LOG_TIME_WALL_NANO,
    LOG_TIME_UNIX_MILLI,
    LOG_TIME_UNIX_NANO,
    LOG_TIME_ISO8601,
    LOG_TIME_RFC3339,
    LOG_TIME_RFC3339_NANO,
};

struct log_format {
    enum log_time_format time;
    bool local_time;      /* times in the machine's zone instead of UTC */
    bool color;           /* console only */
    const char *level_key, *time_key, *logger_key, *message_key; /* NULL: Caddy's names; "": left out */
    enum { LOG_DURATION_SECONDS, LOG_DURATION_NANOS, LOG_DURATION_STRING } duration;
};

/* One line with its LF: {"level":"info","ts":…,"logger":"…","msg":"…",…}. */
enum err log_encode_json(struct buffer *, const struct log_event *, const struct log_format *);

/* One line with its LF: time, level, logger, message, fields as JSON; tab-separated. */
enum err log_encode_console(struct buffer *, const struct log_event *, const struct log_format *);

/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
enum err json_put_string(struct buffer *, struct slice);
