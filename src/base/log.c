/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where events go: to the one sink of the process, or, before one is set, as a line to stderr, in
 * the console form when that is a terminal and as JSON else. The sink and the threshold are the
 * only mutable state at file scope here, set before threads start.
 */
#include "base/log.h"

#include <unistd.h>

#include "base/clock.h"

static log_sink *sink;
static enum log_level threshold = LOG_INFO;

static const char *const names[] = {"debug", "info", "warn", "error", "panic", "fatal"};

const char *log_level_name(enum log_level level)
{
    return names[level];
}

bool log_level_parse(struct slice text, enum log_level *level)
{
    if (slice_eq_nocase(text, SLICE("warning"))) {
        *level = LOG_WARN;
        return true;
    }
    for (int i = 0; i <= LOG_FATAL; i++) {
        if (slice_eq_nocase(text, slice_from(names[i]))) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

void log_set_sink(log_sink *to)
{
    sink = to;
}

void log_set_threshold(enum log_level level)
{
    threshold = level;
}

bool log_wants(enum log_level level)
{
    return level >= threshold;
}

static void write_stderr(const struct log_event *e)
{
    static const struct log_format json = {.time = LOG_TIME_UNIX_FLOAT};
    static const struct log_format console = {.time = LOG_TIME_WALL_MILLI};
    struct buffer line;
    buffer_init(&line, 64 << 10);
    enum err r = isatty(STDERR_FILENO) ? log_encode_console(&line, e, &console)
                                       : log_encode_json(&line, e, &json);
    if (r == OK)
        (void)!write(STDERR_FILENO, line.ptr, line.len);
    buffer_deinit(&line);
}

void log_emit(enum log_level level, const char *logger, struct slice message,
              const struct log_field *fields, size_t count)
{
    if (!log_wants(level))
        return;
    struct log_event e = {
        .level = level,
        .wall_ns = clock_wall_ns(),
        .logger = logger,
        .message = message,
        .fields = fields,
        .count = count,
    };
    if (sink != NULL)
        sink(&e);
    else
        write_stderr(&e);
}
