/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where events go: to the one sink of the process, or, before one is set, as a line to stderr, in
 * the console form when that is a terminal and as JSON else. The sink and the threshold are the
 * only mutable state at file scope here, set before threads start.
 */
#include "base/log.h"

#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log_encode.h"

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
        (void)!write(STDERR_FILENO, line.ptr, line.len);
    buffer_deinit(&line);
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
