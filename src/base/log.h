/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structured log events: level, logger name, message, typed fields. An event is built on the
 * caller's stack and given to the process's logs (base/log_stream.h), or, before there are any, to
 * stderr. Field names and forms are Caddy's.
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
    LOG_STRINGS,  /* an array of strings */
    LOG_SKIP,     /* nothing: a filter took it out */
};

struct log_field {
    struct slice key;
    enum log_kind kind;
    bool header_key; /* a header field's name: written in its canonical form, "User-Agent" */
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
        struct {
            const struct slice *items;
            size_t count;
        } strings;
    };
};

struct log_event {
    enum log_level level;
    int64_t wall_ns;
    const char *logger;  /* "" for the root; "http.log.access" … */
    struct slice message;
    const struct log_field *fields;
    size_t count;
    const char *file, *function; /* who logs; NULL: not known */
    int line;
    bool no_console_time; /* whoever reads the console form knows the time: the journal */
};

#define LOG_KEY(k) slice_from(k)
#define LOG_STR(k, v) ((struct log_field){.key = LOG_KEY(k), .kind = LOG_STRING, .text = (v)})
#define LOG_CSTR(k, v) LOG_STR(k, slice_from(v))
#define LOG_NUM(k, v) ((struct log_field){.key = LOG_KEY(k), .kind = LOG_INT, .number = (v)})
#define LOG_BOOLEAN(k, v) ((struct log_field){.key = LOG_KEY(k), .kind = LOG_BOOL, .truth = (v)})
#define LOG_DUR(k, v)                                                                              \
    ((struct log_field){.key = LOG_KEY(k), .kind = LOG_DURATION, .number = (int64_t)(v)})
#define LOG_GROUP(k, f, n)                                                                         \
    ((struct log_field){.key = LOG_KEY(k), .kind = LOG_OBJECT, .object = {(f), (n)}})
#define LOG_LIST(k, v, n)                                                                          \
    ((struct log_field){.key = LOG_KEY(k), .kind = LOG_STRINGS, .strings = {(v), (n)}})

/* Where events go instead of stderr; NULL: stderr. Set before threads start. */
typedef void log_sink(struct log_event *);
void log_set_sink(log_sink *);

/* Events below it are dropped before they are built; from any thread. */
void log_set_threshold(enum log_level);
bool log_wants(enum log_level);

/* Gives an event its time and passes it on. */
void log_event(struct log_event *);

void log_emit(enum log_level, const char *logger, struct slice message,
              const struct log_field *fields, size_t count);

/* LOG(LOG_INFO, "http", "server running", LOG_CSTR("name", name), LOG_NUM("port", 80)); */
#define LOG(at_level, at_logger, text, ...)                                                        \
    do {                                                                                           \
        if (log_wants(at_level)) {                                                                 \
            const struct log_field log_fields_[] = {__VA_ARGS__ __VA_OPT__(, ){.kind = LOG_SKIP}}; \
            log_event(&(struct log_event){                                                         \
                .level = (at_level), .logger = (at_logger), .message = SLICE(text),                \
                .fields = log_fields_, .count = sizeof log_fields_ / sizeof log_fields_[0] - 1,    \
                .file = __FILE__, .function = __func__, .line = __LINE__});                        \
        }                                                                                          \
    } while (0)

/* One line straight to stderr: console form on a terminal, JSON else. */
void log_write_stderr(const struct log_event *);

/* Bytes to stderr, past all logs; given up when nobody takes them. The second is for the logs' own
 * troubles. */
void log_raw_stderr(struct slice);
void log_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "debug", "info", … in lower case. */
const char *log_level_name(enum log_level);

/* Accepts either case; "warn" and "warning". False when unknown. */
bool log_level_parse(struct slice, enum log_level *);
