/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From "logging" to a set of logs, and the registry of open writers. The registry belongs to the
 * control thread: a writer is opened when its first user opens and given back to the log thread for
 * closing when the last one has gone.
 *
 *     {"logs": {"default": {"level": "INFO"},
 *               "access": {"writer": {"output": "file", "filename": "/var/log/a.log"},
 *                          "encoder": {"format": "json"}, "include": ["http.log.access"],
 *                          "sampling": {"interval": "1s", "first": 100, "thereafter": 100},
 *                          "when_full": "wait"}}}
 */
#include "logs/logging.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "logs/encoders.h"
#include "logs/writers.h"

struct logging_log {
    const struct log_writer_face *face;
    const void *writer_cfg;
    struct open_writer *open;
    bool shared; /* it was open before */
};

struct open_writer {
    struct open_writer *next;
    struct slice key; /* malloc'd */
    struct log_writer *writer;
    unsigned refs;
};

static struct open_writer *open_writers; /* the control thread's */

static const char *const logging_members[] = {"sink", "logs", NULL};
static const char *const base_members[] = {
    "writer", "encoder", "core", "level", "sampling", "with_caller", "with_caller_skip",
    "with_stacktrace", "include", "exclude", "when_full", NULL};
static const char *const sampling_members[] = {"interval", "first", "thereafter", NULL};

/* --- text with placeholders --- */

static bool global_placeholder(struct slice name, struct provision *p, struct slice *value)
{
    struct exchange nobody = {.arena = p->arena};
    static const char *const spaces[] = {"env.", "system.", "file.", "time."};
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        if (slice_starts(name, slice_from(spaces[i])))
            return placeholder_get(&nobody, name, value);
    }
    return false;
}

enum err log_text(struct provision *p, const json_t *json, const char *key, struct slice *out)
{
    struct slice rest, done = SLICE(""), name, tail, value;
    TRY(provision_text(p, json, key, SLICE_NONE, &rest));
    for (;;) {
        size_t at = slice_find(rest, '{');
        if (at == SIZE_MAX || !slice_cut(slice_skip(rest, at + 1), '}', &name, &tail)) {
            *out = arena_join(p->arena, (struct slice[]){done, rest}, 2);
            return OK;
        }
        if (!global_placeholder(name, p, &value))
            return provision_fail(p, "\"%s\": unrecognized placeholder {" SLICE_FMT "}", key,
                                  SLICE_ARG(name));
        if (value.len == 0)
            return provision_fail(p, "\"%s\": placeholder {" SLICE_FMT "} is empty", key,
                                  SLICE_ARG(name));
        done = arena_join(p->arena, (struct slice[]){done, slice_take(rest, at), value}, 3);
        rest = tail;
    }
}

/* --- one log --- */

static enum err read_level(struct provision *p, const json_t *json, const char *key,
                           enum log_level *out)
{
    struct slice text;
    TRY(log_text(p, json, key, &text));
    if (text.len == 0)
        return OK;
    if (!slice_eq_nocase(text, SLICE("warning")) && log_level_parse(text, out))
        return OK;
    return provision_fail(p, "unrecognized log level: " SLICE_FMT, SLICE_ARG(text));
}

static void release_sampling(void *cfg)
{
    log_sampling_destroy(*(struct log_sampling **)cfg);
}

static enum err read_sampling(struct log_stream *s, const json_t *json, struct provision *p)
{
    int64_t interval, first, thereafter;
    const json_t *sampling = json_object_get(json, "sampling");
    if (sampling == NULL || json_is_null(sampling))
        return OK;
    TRY(provision_members(p, sampling, sampling_members));
    TRY(provision_duration(p, sampling, "interval", 0, &interval));
    TRY(provision_int(p, sampling, "first", 0, 0, INT64_MAX, &first));
    TRY(provision_int(p, sampling, "thereafter", 0, 0, INT64_MAX, &thereafter));
    if (interval < 0)
        return provision_fail(p, "\"interval\" must not be negative");
    s->sampling = log_sampling_create(interval > 0 ? (uint64_t)interval : NS_PER_S,
                                      first > 0 ? (uint64_t)first : 100,
                                      thereafter > 0 ? (uint64_t)thereafter : 100);
    struct provision_release *r = ARENA_NEW(p->arena, struct provision_release);
    struct log_sampling **kept = ARENA_NEW(p->arena, struct log_sampling *);
    *kept = s->sampling;
    *r = (struct provision_release){p->releases, release_sampling, kept};
    p->releases = r;
    return OK;
}

static enum err load(struct provision *p, const json_t *json, const char *member, const char *space,
                     const char *key, const char *fallback, const struct module **m, void **cfg)
{
    const json_t *v = json_object_get(json, member);
    struct slice name;
    if (v == NULL || json_is_null(v))
        return provision_module(p, space, fallback, NULL, m, cfg);
    if (!json_is_object(v))
        return provision_fail(p, "\"%s\" must be an object", member);
    TRY(provision_text(p, v, key, SLICE_NONE, &name));
    if (name.len == 0)
        return provision_fail(p, "\"%s\": module name not specified with key '%s'", member, key);
    return provision_module(p, space, arena_str(p->arena, name), v, m, cfg);
}

static bool terminal_wanted(const struct logging_log *l)
{
    return l->face->standard_stream && isatty(STDERR_FILENO);
}

static bool is_object(const json_t *json, const char *member)
{
    return json_is_object(json_object_get(json, member));
}

static enum err read_modules(struct log_stream *s, struct logging_log *l, const json_t *json,
                             struct provision *p)
{
    const struct module *m;
    void *cfg;
    TRY(load(p, json, "writer", "caddy.logging.writers", "output", "stderr", &m, &cfg));
    l->face = m->face;
    l->writer_cfg = cfg;
    s->discards = l->face->discards;
    TRY(load(p, json, "encoder", "caddy.logging.encoders", "format",
             terminal_wanted(l) ? "console" : "json", &m, &cfg));
    const struct log_encoder_face *face = m->face;
    s->encode = face->encode;
    s->encoder = cfg;
    if (is_object(json, "encoder") && face->set_terminal != NULL && terminal_wanted(l))
        face->set_terminal(cfg);
    const json_t *core = json_object_get(json, "core");
    const char *name = json_string_value(json_object_get(core, "module"));
    if (core != NULL && (name == NULL || strcmp(name, "mock") != 0))
        return provision_fail(p, "unknown module: caddy.logging.cores.%s",
                              name != NULL ? name : "");
    return OK;
}

static enum err read_origin(struct log_stream *s, const json_t *json, struct provision *p)
{
    int64_t skip;
    enum log_level level = LOG_INFO;
    struct slice text;
    TRY(provision_bool(p, json, "with_caller", false, &s->with_caller));
    TRY(provision_int(p, json, "with_caller_skip", 0, 0, 1000, &skip));
    TRY(provision_text(p, json, "with_stacktrace", SLICE_NONE, &text));
    s->stack_level = -1;
    if (text.len == 0)
        return OK;
    TRY(read_level(p, json, "with_stacktrace", &level));
    s->stack_level = (int)level;
    return OK;
}

static bool listed(const struct slice *names, size_t count, struct slice name)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(names[i], name))
            return true;
    }
    return false;
}

static bool nested(struct slice a, struct slice b)
{
    struct slice shorter = a.len < b.len ? a : b, longer = a.len < b.len ? b : a;
    return slice_starts(longer, shorter) &&
           (longer.len == shorter.len || longer.ptr[shorter.len] == '.');
}

/* With both lists, each item is a rule or an exception to one of the other list. */
static enum err check_names(const struct log_stream *s, struct provision *p)
{
    for (size_t i = 0; i < s->include_count && s->exclude_count > 0; i++) {
        bool related = false;
        if (listed(s->exclude, s->exclude_count, s->include[i]))
            return provision_fail(p, "include and exclude must not intersect, but found " SLICE_FMT
                                  " in both lists", SLICE_ARG(s->include[i]));
        for (size_t k = 0; k < s->exclude_count; k++)
            related = related || nested(s->include[i], s->exclude[k]);
        if (!related)
            return provision_fail(p, "when both include and exclude are populated, each element "
                                  "must be a superspace or subspace of one in the other list; "
                                  "check '" SLICE_FMT "' in include", SLICE_ARG(s->include[i]));
    }
    return OK;
}

static enum err read_full(struct log_stream *s, const json_t *json, struct provision *p)
{
    struct slice text;
    TRY(provision_text(p, json, "when_full", SLICE("drop"), &text));
    s->may_wait = slice_is(text, "wait");
    if (!s->may_wait && !slice_is(text, "drop"))
        return provision_fail(p, "\"when_full\" must be \"drop\" or \"wait\"");
    return OK;
}

static enum err read_log(struct log_stream *s, struct logging_log *l, const char *name,
                         const json_t *json, struct provision *p)
{
    s->name = (const char *)arena_str(p->arena, slice_from(name));
    s->level = LOG_INFO;
    s->stack_level = -1;
    if (json != NULL) {
        TRY(provision_members(p, json, base_members));
        TRY(read_level(p, json, "level", &s->level));
        TRY(read_sampling(s, json, p));
        TRY(read_origin(s, json, p));
        TRY(read_full(s, json, p));
        TRY(provision_texts(p, json, "include", &s->include, &s->include_count));
        TRY(provision_texts(p, json, "exclude", &s->exclude, &s->exclude_count));
        TRY(check_names(s, p));
    }
    return read_modules(s, l, json, p);
}

/* --- all of it --- */

static enum err add_log(struct logging *g, const char *name, const json_t *json,
                        struct provision *p)
{
    size_t at = g->set.count;
    p->path = arena_join(p->arena, (struct slice[]){SLICE("logging.logs."), slice_from(name)}, 2);
    TRY(read_log(&g->set.streams[at], &g->logs[at], name, json, p));
    g->set.count++;
    return OK;
}

static enum err check_sink(const json_t *json, struct provision *p)
{
    static const char *const sink_members[] = {"writer", "encoder", "core", "level", "sampling",
                                               "with_caller", "with_caller_skip",
                                               "with_stacktrace", NULL};
    struct log_stream s = {0};
    struct logging_log l;
    const json_t *sink = json_object_get(json, "sink");
    if (sink == NULL || json_is_null(sink))
        return OK;
    p->path = SLICE("logging.sink");
    TRY(provision_members(p, sink, sink_members));
    return read_log(&s, &l, "sink", sink, p); /* nothing here writes past the logs */
}

enum err logging_provision(struct logging *g, const json_t *json, struct provision *p)
{
    const char *name;
    json_t *log;
    p->path = SLICE("logging");
    if (json_is_null(json))
        json = NULL;
    if (json != NULL)
        TRY(provision_members(p, json, logging_members));
    json_t *logs = json_object_get(json, "logs");
    if (logs != NULL && !json_is_object(logs))
        return provision_fail(p, "\"logs\" must be an object");
    TRY(check_sink(json, p));
    g->set.streams = ARENA_ARRAY(p->arena, struct log_stream, json_object_size(logs) + 1);
    g->logs = ARENA_ARRAY(p->arena, struct logging_log, json_object_size(logs) + 1);
    TRY(add_log(g, "default", json_object_get(logs, "default"), p));
    if (logs == NULL)
        return OK;
    json_object_foreach(logs, name, log)
    {
        if (strcmp(name, "default") != 0)
            TRY(add_log(g, name, log, p));
    }
    return OK;
}

const char *logging_default_name(const struct logging *g)
{
    const struct open_writer *o = g->logs[0].open;
    return o != NULL ? o->writer->name : "discard";
}

/* --- writers --- */

static struct open_writer *find_open(struct slice key)
{
    for (struct open_writer *o = open_writers; o != NULL; o = o->next) {
        if (slice_eq(o->key, key))
            return o;
    }
    return NULL;
}

static enum err open_one(struct logging_log *l, char *error, size_t cap)
{
    struct slice key = l->face->key(l->writer_cfg);
    struct log_writer *w;
    l->open = find_open(key);
    l->shared = l->open != NULL;
    if (l->shared) {
        l->open->refs++;
        return OK;
    }
    TRY(l->face->open(l->writer_cfg, &w, error, cap));
    log_queue_add(w);
    struct open_writer *o = NEW(struct open_writer);
    *o = (struct open_writer){open_writers, slice_of(slice_dup(key), key.len), w, 1};
    open_writers = o;
    l->open = o;
    return OK;
}

static void close_one(struct logging_log *l)
{
    struct open_writer *o = l->open, **at = &open_writers;
    l->open = NULL;
    if (o == NULL || --o->refs > 0)
        return;
    while (*at != o)
        at = &(*at)->next;
    *at = o->next;
    log_queue_close(o->writer);
    mem_free((void *)(uintptr_t)o->key.ptr);
    mem_free(o);
}

enum err logging_open(struct logging *g, char *error, size_t cap)
{
    char why[1024];
    g->opened = true;
    for (size_t i = 0; i < g->set.count; i++) {
        if (g->logs[i].face->discards)
            continue;
        enum err e = open_one(&g->logs[i], why, sizeof why);
        if (e != OK) {
            snprintf(error, cap, "setting up log '%s': opening log writer: %s",
                     g->set.streams[i].name, why);
            logging_close(g);
            return e;
        }
        g->set.streams[i].writer = g->logs[i].open->writer;
    }
    return OK;
}

void logging_commit(const struct logging *g)
{
    for (size_t i = 0; i < g->set.count; i++) {
        const struct logging_log *l = &g->logs[i];
        if (l->shared && l->face->message != NULL)
            log_queue_tell(l->open->writer, l->face->message(l->writer_cfg));
    }
}

void logging_close(struct logging *g)
{
    for (size_t i = 0; g->opened && i < g->set.count; i++)
        close_one(&g->logs[i]);
    g->opened = false;
}
