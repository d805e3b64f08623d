/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both looks are sorted the same way, so that one walk over the two finds what came and went. An
 * owner that one of the looks could not see is no change.
 */
#include "ports/history.h"

#include <stdlib.h>

#include "config/jsonx.h"

struct looks {
    struct history *history;
    struct arena arena;
    struct seen_port *fresh;
    size_t fresh_count;
    int64_t time;
    size_t changes;
};

static int by_place(const void *x, const void *y)
{
    const struct seen_port *a = x, *b = y;
    if (a->port != b->port)
        return a->port < b->port ? -1 : 1;
    if (a->protocol != b->protocol)
        return a->protocol < b->protocol ? -1 : 1;
    return slice_cmp(a->address, b->address);
}

/* Mostly it is in order: a table is, but for its addresses as text. */
void history_sort(struct seen_port *list, size_t count)
{
    size_t i = 1;
    while (i < count && by_place(&list[i - 1], &list[i]) <= 0)
        i++;
    if (i < count)
        qsort(list, count, sizeof *list, by_place);
}

void history_init(struct history *h)
{
    *h = (struct history){0};
    arena_init(&h->arena, 65536);
}

void history_deinit(struct history *h)
{
    json_decref(h->log);
    arena_deinit(&h->arena);
}

size_t history_memory(const struct history *h, struct arena *arena, struct port_memory **out)
{
    size_t count = 0;
    *out = ARENA_ARRAY(arena, struct port_memory, h->last_count + 1);
    for (size_t i = 0; i < h->last_count; i++) {
        const struct seen_port *p = &h->last[i];
        if (p->owner.len > 0)
            (*out)[count++] = (struct port_memory){p->port, p->protocol, p->owner};
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
    l->fresh = ARENA_ARRAY(&l->arena, struct seen_port, t->count + 1);
    for (size_t i = 0; i < t->count; i++) {
        const struct port_entry *e = &t->entries[i];
        if (!is_remembered(t, e, local))
            continue;
        size_t len = ip_text(&e->address, text);
        l->fresh[l->fresh_count++] =
            (struct seen_port){e->port, e->protocol, arena_copy(&l->arena, slice_of(text, len)),
                               memory_owner(e, &l->arena)};
    }
    history_sort(l->fresh, l->fresh_count);
}

static void note(struct looks *l, const char *change, const struct seen_port *s, struct slice was)
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
    json_array_append_new(history_log(l->history), o);
    l->changes++;
}

static void compare(struct looks *l)
{
    struct history *h = l->history;
    size_t i = 0, k = 0;
    while (i < h->last_count || k < l->fresh_count) {
        const struct seen_port *old = i < h->last_count ? &h->last[i] : NULL;
        const struct seen_port *fresh = k < l->fresh_count ? &l->fresh[k] : NULL;
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
    size_t log = l->changes > 0 ? json_array_size(h->log) : 0;
    for (; log > HISTORY_CHANGES_MAX; log--)
        json_array_remove(h->log, 0);
}

/* The fresh look is the last one from now on. */
static void take_over(struct looks *l)
{
    struct history *h = l->history;
    struct arena before = h->arena;
    history_log(h); /* whose text is in that one */
    h->looked = true;
    h->time = l->time;
    h->last = l->fresh;
    h->last_count = l->fresh_count;
    h->arena = l->arena;
    l->arena = before;
}

bool history_update(struct history *h, const struct port_table *t, struct port_interval local,
                    size_t *changes)
{
    struct looks l = {.history = h, .time = t->time_ns / 1000000000};
    arena_init(&l.arena, 65536);
    read_table(&l, t, local);
    bool few = l.fresh_count <= HISTORY_PORTS_MAX;
    if (h->looked && few)
        compare(&l);
    bool news = few && (l.changes > 0 || !h->looked);
    if (news)
        take_over(&l);
    *changes = l.changes;
    arena_deinit(&l.arena);
    return news;
}
