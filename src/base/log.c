/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where events go: to the one sink of the process, or, before one is set, as a line to stderr, in
 * the console form when that is a terminal and as JSON else. The sink and the threshold are the
 * only mutable state at file scope here, set before threads start.
 */
#include "base/log.h"

#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log_encode.h"

enum { STDERR_WAIT_MS = 100 }; /* for a reader, before a line is given up */

static _Atomic(log_sink *) sink;
static _Atomic int threshold = LOG_INFO;

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
    atomic_store(&sink, to);
}

void log_set_threshold(enum log_level level)
{
    atomic_store_explicit(&threshold, (int)level, memory_order_relaxed);
}

bool log_wants(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&threshold, memory_order_relaxed);
}

void log_write_stderr(const struct log_event *e)
{
    struct log_format format;
    struct buffer line;
    bool terminal = isatty(STDERR_FILENO);
    buffer_init(&line, 64 << 10);
    if (terminal)
        log_format_init_console(&format);
    else
        log_format_init(&format);
    enum err r = terminal ? log_encode_console(&line, e, &format)
                          : log_encode_json(&line, e, &format);
    if (r == OK)
        log_raw_stderr(buffer_slice(&line));
    buffer_deinit(&line);
}

void log_raw_stderr(struct slice bytes)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    while (bytes.len > 0 && poll(&p, 1, STDERR_WAIT_MS) == 1) {
        ssize_t n = write(STDERR_FILENO, bytes.ptr, bytes.len < PIPE_BUF ? bytes.len : PIPE_BUF);
        if (n <= 0)
            return;
        bytes = slice_skip(bytes, (size_t)n);
    }
}

void log_complain(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0)
        log_raw_stderr(slice_of(text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1));
}

void log_event(struct log_event *e)
{
    log_sink *to = atomic_load(&sink);
    e->wall_ns = clock_wall_ns();
    if (to != NULL)
        to(e);
    else
        log_write_stderr(e);
}

void log_emit(enum log_level level, const char *logger, struct slice message,
              const struct log_field *fields, size_t count)
{
    if (log_wants(level))
        log_event(&(struct log_event){.level = level, .logger = logger, .message = message,
                                      .fields = fields, .count = count});
}
