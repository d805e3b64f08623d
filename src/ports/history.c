/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both looks are sorted the same way, so that one walk over the two finds what came and went. An
 * owner that one of the looks could not see is no change.
 */
#include "ports/history.h"

#include <stdlib.h>

#include "config/jsonx.h"

struct seen {
    uint16_t port;
    enum port_protocol protocol;
    struct slice address, owner;
};

struct looks {
    struct arena arena;
    struct seen *old, *fresh;
    size_t old_count, fresh_count;
    json_t *log;
    int64_t time;
    size_t changes;
};

static struct slice text_of(const json_t *v)
{
    return slice_of(json_string_value(v), json_string_length(v));
}

static int by_place(const void *x, const void *y)
{
    const struct seen *a = x, *b = y;
    if (a->port != b->port)
        return a->port < b->port ? -1 : 1;
    if (a->protocol != b->protocol)
        return a->protocol < b->protocol ? -1 : 1;
    return slice_cmp(a->address, b->address);
}

static size_t read_last(const json_t *history, struct arena *arena, struct seen **out)
{
    const json_t *ports = json_object_get(json_object_get(history, "last"), "ports");
    size_t n = json_array_size(ports), count = 0;
    *out = NULL;
    if (n == 0 || n > HISTORY_PORTS_MAX)
        return 0;
    *out = ARENA_ARRAY(arena, struct seen, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(ports, i);
        json_int_t port = json_integer_value(json_array_get(row, 0));
        struct seen s = {.address = arena_copy(arena, text_of(json_array_get(row, 2))),
                         .owner = arena_copy(arena, text_of(json_array_get(row, 3)))};
        s.port = (uint16_t)port;
        if (port > 0 && port < 65536 && port_protocol_parse(text_of(json_array_get(row, 1)), &s.protocol))
            (*out)[count++] = s;
    }
    if (count > 1)
        qsort(*out, count, sizeof **out, by_place);
    return count;
}

size_t history_memory(const json_t *history, struct arena *arena, struct port_memory **out)
{
    struct seen *last;
    size_t count = 0, n = read_last(history, arena, &last);
    *out = ARENA_ARRAY(arena, struct port_memory, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (last[i].owner.len > 0)
            (*out)[count++] = (struct port_memory){last[i].port, last[i].protocol, last[i].owner};
    }
    return count;
}

static bool is_remembered(const struct port_table *t, const struct port_entry *e,
                          struct port_interval local)
{
    if ((e->inode == 0 && !e->listening) || e->netns != t->netns || e->port == 0)
        return false;
    return e->protocol == PORT_TCP || e->declared_count > 0 || e->port < local.first ||
           e->port > local.last;
}

static void read_table(struct looks *l, const struct port_table *t, struct port_interval local)
{
    char text[IP_TEXT_MAX];
    l->fresh = ARENA_ARRAY(&l->arena, struct seen, t->count + 1);
    for (size_t i = 0; i < t->count; i++) {
        const struct port_entry *e = &t->entries[i];
        if (!is_remembered(t, e, local))
            continue;
        size_t len = ip_text(&e->address, text);
        l->fresh[l->fresh_count++] =
            (struct seen){e->port, e->protocol, arena_copy(&l->arena, slice_of(text, len)),
                          memory_owner(e, &l->arena)};
    }
    if (l->fresh_count > 1)
        qsort(l->fresh, l->fresh_count, sizeof *l->fresh, by_place);
}

static void note(struct looks *l, const char *change, const struct seen *s, struct slice was)
{
    json_t *o = json_object();
    json_object_set_new(o, "time", json_integer(l->time));
    json_object_set_new(o, "change", json_string(change));
    json_object_set_new(o, "port", json_integer(s->port));
    json_object_set_new(o, "protocol", json_string(port_protocol_name(s->protocol)));
    json_object_set_new(o, "address", jsonx_string(s->address));
    json_object_set_new(o, "owner", jsonx_string(s->owner));
    if (was.len > 0)
        json_object_set_new(o, "was", jsonx_string(was));
    json_array_append_new(l->log, o);
    l->changes++;
}

static void compare(struct looks *l)
{
    size_t i = 0, k = 0;
    while (i < l->old_count || k < l->fresh_count) {
        const struct seen *old = i < l->old_count ? &l->old[i] : NULL;
        const struct seen *fresh = k < l->fresh_count ? &l->fresh[k] : NULL;
        int order = old == NULL ? 1 : fresh == NULL ? -1 : by_place(old, fresh);
        if (order < 0)
            note(l, "closed", old, SLICE_NONE);
        else if (order > 0)
            note(l, "opened", fresh, SLICE_NONE);
        else if (old->owner.len > 0 && fresh->owner.len > 0 && !slice_eq(old->owner, fresh->owner))
            note(l, "owner", fresh, old->owner);
        i += order <= 0;
        k += order >= 0;
    }
}

static json_t *look_json(const struct looks *l)
{
    json_t *ports = json_array();
    for (size_t i = 0; i < l->fresh_count && l->fresh_count <= HISTORY_PORTS_MAX; i++) {
        const struct seen *s = &l->fresh[i];
        json_array_append_new(ports, json_pack("[i,s,o,o]", s->port, port_protocol_name(s->protocol),
                                               jsonx_string(s->address), jsonx_string(s->owner)));
    }
    return json_pack("{s:I,s:o}", "time", (json_int_t)l->time, "ports", ports);
}

/* The newest: what a file holds beyond them (it is no longer than that by our hand) is left. */
static json_t *copy_log(const json_t *log)
{
    json_t *copy = json_array();
    size_t n = json_array_size(log);
    for (size_t i = n > HISTORY_CHANGES_MAX ? n - HISTORY_CHANGES_MAX : 0; i < n; i++)
        json_array_append(copy, json_array_get(log, i));
    return copy;
}

json_t *history_update(const json_t *history, const struct port_table *t, struct port_interval local,
                       size_t *changes)
{
    struct looks l = {.time = t->time_ns / 1000000000};
    arena_init(&l.arena, 65536);
    l.log = copy_log(json_object_get(history, "log"));
    l.old_count = read_last(history, &l.arena, &l.old);
    read_table(&l, t, local);
    if (json_is_object(json_object_get(history, "last")) && l.fresh_count <= HISTORY_PORTS_MAX)
        compare(&l);
    while (json_array_size(l.log) > HISTORY_CHANGES_MAX)
        json_array_remove(l.log, 0);
    bool same = l.changes == 0 && json_is_object(json_object_get(history, "last"));
    json_t *result = same ? json_incref((json_t *)history)
                          : json_pack("{s:o,s:O}", "last", look_json(&l), "log", l.log);
    json_decref(l.log);
    *changes = l.changes;
    arena_deinit(&l.arena);
    return result;
}
