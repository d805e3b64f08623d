/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which owners are portico's services, where that is told by pids: an owner belongs to the service
 * whose first process it is, or descends from. And which ports the services were given, where these
 * are not in the document.
 */
#include <fcntl.h>
#include <unistd.h>

#include "base/map.h"
#include "config/jsonx.h"
#include "ports/declared.h"
#include "ports/processes.h"

enum { GENERATIONS_MAX = 32 };

static struct slice text_of(const json_t *v)
{
    return slice_of(json_string_value(v), json_string_length(v));
}

/* "812 (a) b) S 1 …": the fourth word, behind the last parenthesis. */
static pid_t parent_of(int proc, pid_t pid)
{
    char name[PROC_NAME_MAX], buffer[512];
    uint64_t parent;
    struct slice state, rest, word;
    struct slice text = read_at(proc, proc_name(name, (uint32_t)pid, "/stat"), buffer, sizeof buffer);
    size_t end = slice_find_last(text, ')');
    if (end == SIZE_MAX || !slice_cut(slice_skip(text, end + 2), ' ', &state, &rest))
        return 0;
    slice_cut(rest, ' ', &word, &rest);
    return slice_to_u64(word, INT32_MAX, &parent) ? (pid_t)parent : 0;
}

struct family {
    struct arena *arena;
    int proc;
    struct map known; /* a pid's bytes → the service's name, or `none` */
    struct slice none;
};

static void know(struct family *f, pid_t pid, const struct slice *name)
{
    struct slice key = arena_copy(f->arena, slice_of((const char *)&pid, sizeof pid));
    map_put(&f->known, key, (void *)name);
}

static const struct slice *service_of(struct family *f, pid_t pid)
{
    pid_t line[GENERATIONS_MAX];
    unsigned n = 0;
    const struct slice *name = NULL;
    for (pid_t at = pid; at > 1 && n < GENERATIONS_MAX && name == NULL; at = parent_of(f->proc, at)) {
        name = map_get(&f->known, slice_of((const char *)&at, sizeof at));
        line[n++] = at;
    }
    name = name != NULL ? name : &f->none;
    for (unsigned i = 0; i < n; i++)
        know(f, line[i], name);
    return name;
}

static void know_all(struct family *f, const json_t *services)
{
    for (size_t i = 0; i < json_array_size(services); i++) {
        const json_t *s = json_array_get(services, i), *replicas = json_object_get(s, "replicas");
        struct slice *name = ARENA_NEW(f->arena, struct slice);
        *name = arena_copy(f->arena, text_of(json_object_get(s, "name")));
        for (size_t k = 0; k < json_array_size(replicas); k++) {
            json_int_t pid = json_integer_value(json_object_get(json_array_get(replicas, k), "pid"));
            if (pid > 1 && pid <= INT32_MAX)
                know(f, (pid_t)pid, name);
        }
    }
}

void table_services(struct port_table *t, const json_t *services)
{
    struct family f = {.arena = t->arena, .proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC)};
    if (json_array_size(services) == 0 || f.proc < 0) {
        if (f.proc >= 0)
            close(f.proc);
        return;
    }
    map_init(&f.known, false);
    know_all(&f, services);
    for (size_t i = 0; i < t->count; i++) {
        for (struct port_owner *o = t->entries[i].owners; o != NULL; o = o->next) {
            if (o->service.len == 0 && o->pid > 1)
                o->service = *service_of(&f, o->pid);
        }
    }
    map_deinit(&f.known);
    close(f.proc);
}

static const json_t *find_service(const json_t *services, struct slice name)
{
    for (size_t i = 0; i < json_array_size(services); i++) {
        const json_t *s = json_array_get(services, i);
        if (slice_eq(text_of(json_object_get(s, "name")), name))
            return s;
    }
    return NULL;
}

struct slice service_trouble(const json_t *s, struct arena *arena)
{
    const json_t *replica = json_array_get(json_object_get(s, "replicas"), 0);
    struct slice state = text_of(json_object_get(replica, "state"));
    struct slice why = text_of(json_object_get(replica, "reason"));
    bool stopped = slice_is(state, "stopped");
    if (why.len == 0 && !stopped)
        why = text_of(json_object_get(s, "last_trouble"));
    if (s == NULL || json_integer_value(json_object_get(s, "ready")) > 0 || state.len == 0 ||
        slice_is(state, "starting") || slice_is(state, "ready") ||
        (slice_is(state, "waiting") && why.len == 0) ||
        (stopped && json_is_true(json_object_get(s, "on_demand")) &&
         !json_is_true(json_object_get(s, "paused"))))
        return SLICE_NONE;
    if (slice_starts(why, state))
        return arena_copy(arena, slice_take(why, 300));
    return arena_printf(arena, SLICE_FMT "%s" SLICE_FMT, SLICE_ARG(slice_take(state, 40)),
                        why.len > 0 ? ": " : "", SLICE_ARG(slice_take(why, 300)));
}

void declarations_settle(const json_t *services, struct arena *arena,
                         const struct port_declaration **list, size_t *count)
{
    struct declarations all = {.arena = arena};
    for (size_t i = 0; i < *count; i++) {
        const struct port_declaration *d = &(*list)[i];
        const json_t *s = d->by == DECLARED_SERVICE ? find_service(services, d->name) : NULL;
        const json_t *replicas = d->first == 0 ? json_object_get(s, "replicas") : NULL;
        struct slice trouble = service_trouble(s, arena);
        bool given = false;
        for (size_t k = 0; k < json_array_size(replicas); k++) {
            json_int_t port = json_integer_value(json_object_get(json_array_get(replicas, k), "port"));
            if (port <= 0 || port > 65535)
                continue;
            struct port_declaration *one = declarations_add(&all);
            *one = *d;
            one->first = one->last = (uint16_t)port;
            one->trouble = trouble;
            given = true;
        }
        if (given)
            continue;
        struct port_declaration *one = declarations_add(&all);
        *one = *d;
        one->trouble = trouble;
    }
    *list = all.items;
    *count = all.count;
}
