/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A log of the configuration ("logging.logs.NAME"): which events it takes, how it writes them down,
 * and to which writer they go. Logs are immutable; a configuration has a set of them.
 */
#pragma once

#include "base/log_encode.h"
#include "base/log_queue.h"

struct log_sampling;

/* Appends one line. */
typedef enum err log_encoder(const void *cfg, struct buffer *, const struct log_event *,
                             size_t string_max);

struct log_stream {
    const char *name;
    enum log_level level;
    struct slice *include, *exclude; /* logger names */
    size_t include_count, exclude_count;
    log_encoder *encode;
    const void *encoder;
    struct log_writer *writer;
    bool discards;             /* everything is thrown away; there is no writer */
    struct log_sampling *sampling; /* NULL: every event */
    bool with_caller;
    int stack_level; /* events of this level and above tell where they come from; -1: none */
    bool may_wait;   /* rather than drop a line when it cannot be queued */
};

struct log_set {
    struct log_stream *streams;
    size_t count;
};

/* Those of a set that take a logger's events, found once. */
struct log_target {
    const struct log_stream **streams;
    size_t count;
    enum log_level level; /* the lowest that one of them takes; above LOG_FATAL: none */
};

/* Whether lists of included and excluded names let a logger through, as Caddy decides it.
 * `is_module`: the name is a module's, whose own prefixes count. */
bool log_allowed(const struct slice *include, size_t include_count, const struct slice *exclude,
                 size_t exclude_count, struct slice logger, bool is_module);

/* `streams` is allocated in the arena. */
struct arena;
void log_target_find(struct log_target *, const struct log_set *, const char *logger,
                     struct arena *);
void log_target_put(const struct log_target *, const struct log_event *);

struct log_sampling *log_sampling_create(uint64_t interval_ns, uint64_t first, uint64_t thereafter);
void log_sampling_destroy(struct log_sampling *);

/* Keeps events until the first log_publish, which writes them as if they came then; what a program
 * tells before it knows its logs belongs there too. Call before threads start. */
void log_hold(void);

/* What the whole process logs to from now on; NULL: stderr. The earlier set may be freed when this
 * returns. From one thread. */
void log_publish(const struct log_set *);
