/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing list that is sorted once: filled while a Caddyfile is adapted, asked when somebody wants
 * to know where a value came from.
 */
#include "config/origin.h"

#include <stdlib.h>

void origins_init(struct origins *o)
{
    *o = (struct origins){0};
    arena_init(&o->arena, 4096);
}

void origins_deinit(struct origins *o)
{
    arena_deinit(&o->arena);
    *o = (struct origins){0};
}

static void make_room(struct origins *o)
{
    if (o->count < o->cap)
        return;
    size_t cap = o->cap > 0 ? 2 * o->cap : 64;
    struct origin *items = ARENA_ARRAY(&o->arena, struct origin, cap);
    if (o->count > 0)
        memcpy(items, o->items, o->count * sizeof *items);
    o->items = items;
    o->cap = cap;
}

void origins_add(struct origins *o, struct slice path, struct slice name, struct slice file,
                 uint32_t line)
{
    make_room(o);
    o->items[o->count++] = (struct origin){arena_copy(&o->arena, path), arena_copy(&o->arena, name),
                                           arena_copy(&o->arena, file), line};
}

static int compare(const void *left, const void *right)
{
    const struct origin *a = left, *b = right;
    int order = slice_cmp(a->path, b->path);
    if (order == 0)
        order = slice_cmp(a->file, b->file);
    return order != 0 ? order : (a->line > b->line) - (a->line < b->line);
}

void origins_sort(struct origins *o)
{
    if (o->count > 1)
        qsort(o->items, o->count, sizeof *o->items, compare);
}

const struct origin *origins_find(const struct origins *o, struct slice path, size_t *count)
{
    size_t low = 0, high = o->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (slice_cmp(o->items[middle].path, path) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *count = 0;
    while (low + *count < o->count && slice_eq(o->items[low + *count].path, path))
        ++*count;
    return *count > 0 ? &o->items[low] : NULL;
}
