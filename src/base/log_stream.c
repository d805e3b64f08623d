/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an event to queued lines: filter by level, name and sampling; write the line down in the
 * thread's own memory; put it into the thread's pipe. A line that is too long (hostile header
 * fields) is written again with its strings cut, then with none of its fields.
 */
#include "base/log_stream.h"

#include <pthread.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

enum { SAMPLES = 1024, CUT_FIRST = 8192, CUT_SECOND = 256 };

struct log_sampling {
    uint64_t interval_ns, first, thereafter;
    struct {
        _Atomic uint64_t until_ns, count;
    } at[SAMPLES]; /* by the hash of level and message */
};

static _Atomic(const struct log_set *) current;

/* --- names --- */

/* "http.log" is within "http" and within "http.log", but not within "htt". */
static bool is_within(struct slice name, struct slice space)
{
    return slice_starts(name, space) && (name.len == space.len || name.ptr[space.len] == '.');
}

static bool excludes_all(struct slice space, struct slice logger)
{
    return (slice_is(space, "*") && !slice_is(logger, ".")) ||
           (slice_is(space, ".") && slice_is(logger, "."));
}

bool log_allowed(const struct slice *include, size_t include_count, const struct slice *exclude,
                 size_t exclude_count, struct slice logger, bool is_module)
{
    size_t accept = 0, reject = 0;
    for (size_t i = 0; i < include_count; i++) {
        bool fits = is_module ? is_within(include[i], logger) || logger.len == 0
                              : is_within(logger, include[i]);
        if (fits && include[i].len > accept)
            accept = include[i].len;
    }
    if (include_count > 0 && accept == 0)
        return false;
    for (size_t i = 0; i < exclude_count; i++) {
        if (excludes_all(exclude[i], logger))
            return false;
        if (is_within(logger, exclude[i]) && exclude[i].len > reject)
            reject = exclude[i].len;
    }
    return accept > reject || (include_count == 0 && reject == 0);
}

static bool takes(const struct log_stream *s, struct slice logger)
{
    return !s->discards &&
           ((s->include_count == 0 && s->exclude_count == 0) ||
            log_allowed(s->include, s->include_count, s->exclude, s->exclude_count, logger, false));
}

/* --- sampling --- */

struct log_sampling *log_sampling_create(uint64_t interval_ns, uint64_t first, uint64_t thereafter)
{
    struct log_sampling *s = NEW(struct log_sampling);
    s->interval_ns = interval_ns;
    s->first = first;
    s->thereafter = thereafter;
    return s;
}

void log_sampling_destroy(struct log_sampling *s)
{
    mem_free(s);
}

/* The counters are shared by all threads and exact only as far as anybody needs. */
static bool is_sampled(struct log_sampling *s, const struct log_event *e)
{
    size_t at = (hash_bytes(e->message) + (unsigned)e->level) % SAMPLES;
    uint64_t now = (uint64_t)e->wall_ns;
    uint64_t until = atomic_load_explicit(&s->at[at].until_ns, memory_order_relaxed);
    if (now >= until && atomic_compare_exchange_strong(&s->at[at].until_ns, &until,
                                                       now + s->interval_ns))
        atomic_store_explicit(&s->at[at].count, 0, memory_order_relaxed);
    uint64_t n = atomic_fetch_add_explicit(&s->at[at].count, 1, memory_order_relaxed) + 1;
    return n <= s->first || (s->thereafter > 0 && (n - s->first) % s->thereafter == 0);
}

/* --- lines --- */

static enum err write_down(const struct log_stream *s, struct buffer *b, const struct log_event *e)
{
    static const size_t cuts[] = {SIZE_MAX, CUT_FIRST, CUT_SECOND};
    struct log_event bare = *e;
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        if (s->encode(s->encoder, b, e, cuts[i]) == OK)
            return OK;
    }
    bare.count = 0;
    return s->encode(s->encoder, b, &bare, CUT_SECOND);
}

static void put(const struct log_stream *s, const struct log_event *e)
{
    struct buffer *b = log_queue_scratch();
    struct log_event shown = *e;
    if (b == NULL || s->writer == NULL || e->level < s->level ||
        (s->sampling != NULL && !is_sampled(s->sampling, e)))
        return;
    if (!s->with_caller && (s->stack_level < 0 || (int)e->level < s->stack_level))
        shown.file = NULL;
    buffer_clear(b);
    if (write_down(s, b, &shown) == OK)
        log_queue_put(s->writer, buffer_slice(b), s->may_wait);
    arena_reset(log_queue_arena());
}

void log_target_find(struct log_target *t, const struct log_set *set, const char *logger,
                     struct arena *arena)
{
    *t = (struct log_target){.level = LOG_FATAL + 1};
    t->streams = ARENA_ARRAY(arena, const struct log_stream *, set->count + 1);
    for (size_t i = 0; i < set->count; i++) {
        const struct log_stream *s = &set->streams[i];
        if (!takes(s, slice_from(logger)))
            continue;
        t->streams[t->count++] = s;
        if (s->level < t->level)
            t->level = s->level;
    }
}

void log_target_put(const struct log_target *t, const struct log_event *e)
{
    for (size_t i = 0; i < t->count; i++)
        put(t->streams[i], e);
}

/* --- what comes before there are logs --- */

enum { HELD_MAX = 1000 };

struct held_event {
    struct held_event *next;
    struct log_event event;
};

static struct {
    pthread_mutex_t lock;
    struct arena arena;
    struct held_event *first, **last;
    unsigned count;
} held = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct log_field *copy_fields(struct arena *arena, const struct log_field *fields,
                                     size_t count)
{
    struct log_field *out = arena_alloc(arena, (count + 1) * sizeof *out);
    for (size_t i = 0; i < count; i++) {
        out[i] = fields[i];
        out[i].key = arena_copy(arena, fields[i].key);
        if (fields[i].kind == LOG_STRING || fields[i].kind == LOG_JSON)
            out[i].text = arena_copy(arena, fields[i].text);
        if (fields[i].kind == LOG_OBJECT)
            out[i].object.fields = copy_fields(arena, fields[i].object.fields,
                                               fields[i].object.count);
        if (fields[i].kind != LOG_STRINGS)
            continue;
        struct slice *items = arena_alloc(arena, (fields[i].strings.count + 1) * sizeof *items);
        for (size_t k = 0; k < fields[i].strings.count; k++)
            items[k] = arena_copy(arena, fields[i].strings.items[k]);
        out[i].strings.items = items;
    }
    return out;
}

static void hold_event(struct log_event *e)
{
    pthread_mutex_lock(&held.lock);
    if (held.last != NULL && held.count < HELD_MAX) {
        struct held_event *h = ARENA_NEW(&held.arena, struct held_event);
        h->event = *e;
        h->event.logger = arena_str(&held.arena, slice_from(e->logger));
        h->event.message = arena_copy(&held.arena, e->message);
        h->event.fields = copy_fields(&held.arena, e->fields, e->count);
        *held.last = h;
        held.last = &h->next;
        held.count++;
    } else if (held.last == NULL) {
        log_write_stderr(e); /* a thread that still had the old sink in hand */
    }
    pthread_mutex_unlock(&held.lock);
}

void log_hold(void)
{
    arena_init(&held.arena, 4096);
    held.first = NULL;
    held.last = &held.first;
    held.count = 0;
    log_set_sink(hold_event);
}

static void release_held(log_sink *to)
{
    pthread_mutex_lock(&held.lock);
    for (struct held_event *h = held.first; h != NULL; h = h->next)
        to(&h->event);
    if (held.last != NULL)
        arena_deinit(&held.arena);
    held.first = NULL;
    held.last = NULL;
    pthread_mutex_unlock(&held.lock);
}

/* --- the whole process --- */

/* The set is held by saying so and then looking whether it is still the one. */
static const struct log_set *hold_current(void)
{
    const struct log_set *set;
    do {
        set = atomic_load(&current);
        log_using(set);
    } while (set != atomic_load(&current));
    return set;
}

static void to_current(struct log_event *e)
{
    const struct log_set *set = hold_current();
    struct slice logger = slice_from(e->logger);
    for (size_t i = 0; set != NULL && i < set->count; i++) {
        if (takes(&set->streams[i], logger))
            put(&set->streams[i], e);
    }
    log_using(NULL);
    if (set == NULL)
        log_write_stderr(e);
}

static enum log_level lowest(const struct log_set *set)
{
    enum log_level level = LOG_FATAL;
    for (size_t i = 0; i < set->count; i++) {
        if (set->streams[i].level < level)
            level = set->streams[i].level;
    }
    return level;
}

void log_publish(const struct log_set *set)
{
    const struct log_set *old = atomic_exchange(&current, set);
    log_set_threshold(set != NULL ? lowest(set) : LOG_INFO);
    log_set_sink(set != NULL ? to_current : NULL);
    release_held(to_current);
    if (old != NULL && old != set)
        log_unused(old);
}
