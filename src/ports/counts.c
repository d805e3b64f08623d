/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How often new connections came to declared ports, out of the elements of our own table's sets, as
 * `nft -j list ruleset` tells them. During a trial two generations of rules count side by side; the
 * intervals of one generation and protocol never overlap, so each is searched for itself.
 */
#include <stdlib.h>

#include "ports/enforce.h"

static struct slice text_of(const json_t *o, const char *key)
{
    const json_t *s = json_object_get(o, key);
    return slice_of(json_string_value(s), json_string_length(s));
}

/* Of "a_3_tcp": tcp, of generation a. Of sources, or the trial: false. */
static bool is_ours(const json_t *set, struct port_count *c)
{
    struct slice name = text_of(set, "name");
    size_t at = slice_find_last(name, '_');
    c->generation = name.len > 0 ? name.ptr[0] : 0;
    return slice_is(text_of(set, "family"), "inet") && slice_is(text_of(set, "table"), "portico") &&
           at != SIZE_MAX && at > 1 && port_protocol_parse(slice_skip(name, at + 1), &c->protocol);
}

static uint64_t number_of(const json_t *v)
{
    json_int_t n = json_integer_value(v);
    return n > 0 ? (uint64_t)n : 0;
}

static void read_count(const json_t *element, struct port_count *c)
{
    const json_t *inner = json_object_get(element, "elem");
    const json_t *val = inner != NULL ? json_object_get(inner, "val") : element;
    const json_t *range = json_object_get(val, "range"), *n = json_object_get(inner, "counter");
    c->first = (uint16_t)number_of(range != NULL ? json_array_get(range, 0) : val);
    c->last = range != NULL ? (uint16_t)number_of(json_array_get(range, 1)) : c->first;
    c->packets = number_of(json_object_get(n, "packets"));
    c->bytes = number_of(json_object_get(n, "bytes"));
}

void port_counts_read(const json_t *ruleset, struct arena *arena, struct port_count **out,
                      size_t *count)
{
    const json_t *items = json_object_get(ruleset, "nftables"), *set;
    size_t i, k, room = 0;
    json_t *item, *element;
    struct port_count c = {0};
    *out = NULL;
    *count = 0;
    json_array_foreach(items, i, item) {
        set = json_object_get(item, "set");
        room += set != NULL && is_ours(set, &c) ? json_array_size(json_object_get(set, "elem")) : 0;
    }
    if (room == 0)
        return;
    *out = ARENA_ARRAY(arena, struct port_count, room);
    json_array_foreach(items, i, item) {
        set = json_object_get(item, "set");
        if (set == NULL || !is_ours(set, &c))
            continue;
        json_array_foreach(json_object_get(set, "elem"), k, element) {
            read_count(element, &c);
            (*out)[(*count)++] = c;
        }
    }
}

/* --- and to the rows --- */

static int compare(const void *left, const void *right)
{
    const struct port_count *a = left, *b = right;
    if (a->generation != b->generation)
        return a->generation < b->generation ? -1 : 1;
    if (a->protocol != b->protocol)
        return a->protocol < b->protocol ? -1 : 1;
    return (a->first > b->first) - (a->first < b->first);
}

/* The last that begins at or before the port; NULL: it does not reach that far. */
static const struct port_count *find(const struct port_table *t, char generation,
                                     const struct port_entry *e)
{
    struct port_count wanted = {.generation = generation, .protocol = e->protocol, .first = e->port};
    size_t low = 0, high = t->counts_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare(&t->counts[middle], &wanted) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    const struct port_count *c = low > 0 ? &t->counts[low - 1] : NULL;
    bool there = c != NULL && c->generation == generation && c->protocol == e->protocol &&
                 c->last >= e->port;
    return there ? c : NULL;
}

void table_count(struct port_table *t)
{
    if (t->counts_count == 0)
        return;
    qsort(t->counts, t->counts_count, sizeof *t->counts, compare);
    for (size_t i = 0; i < t->count; i++) {
        struct port_entry *e = &t->entries[i];
        for (char g = 'a'; g <= 'b' && e->netns == t->netns; g++) {
            const struct port_count *c = find(t, g, e);
            e->is_counted = e->is_counted || c != NULL;
            e->tried += c != NULL ? c->packets : 0;
        }
    }
}
