/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear probing with tombstones, at most three quarters full, tombstones counted; growing drops
 * them. The full hash is kept beside each key, so a probe compares bytes only on a real candidate.
 */
#include "base/map.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/mem.h"

static char gone; /* its address marks a removed entry */

void map_init(struct map *m, bool nocase)
{
    *m = (struct map){.nocase = nocase};
}

void map_deinit(struct map *m)
{
    mem_free(m->entries);
    map_init(m, m->nocase);
}

static uint64_t hash_key(const struct map *m, struct slice key)
{
    return m->nocase ? hash_nocase(key) : hash_bytes(key);
}

static bool is_key(const struct map *m, const struct map_entry *e, struct slice key, uint64_t hash)
{
    if (e->hash != hash || e->value == &gone)
        return false;
    return m->nocase ? slice_eq_nocase(e->key, key) : slice_eq(e->key, key);
}

static struct map_entry *find(const struct map *m, struct slice key, uint64_t hash)
{
    if (m->slots == 0)
        return NULL;
    for (size_t i = hash & (m->slots - 1);; i = (i + 1) & (m->slots - 1)) {
        struct map_entry *e = &m->entries[i];
        if (e->value == NULL)
            return NULL;
        if (is_key(m, e, key, hash))
            return e;
    }
}

void *map_get(const struct map *m, struct slice key)
{
    if (m->count == 0)
        return NULL;
    struct map_entry *e = find(m, key, hash_key(m, key));
    return e != NULL ? e->value : NULL;
}

static void insert_new(struct map *m, struct map_entry entry)
{
    size_t i = entry.hash & (m->slots - 1);
    while (m->entries[i].value != NULL)
        i = (i + 1) & (m->slots - 1);
    m->entries[i] = entry;
    m->used++;
    m->count++;
}

static void grow(struct map *m)
{
    struct map old = *m;
    size_t slots = 8;
    while (slots * 3 / 4 < old.count + 1)
        slots *= 2;
    slots *= old.count + 1 > slots / 2 ? 2 : 1;
    m->entries = mem_resize(NULL, slots, sizeof *m->entries);
    memset(m->entries, 0, slots * sizeof *m->entries);
    m->slots = slots;
    m->count = m->used = 0;
    for (size_t i = 0; i < old.slots; i++) {
        if (old.entries[i].value != NULL && old.entries[i].value != &gone)
            insert_new(m, old.entries[i]);
    }
    mem_free(old.entries);
}

void *map_put(struct map *m, struct slice key, void *value)
{
    ASSERT(value != NULL);
    uint64_t hash = hash_key(m, key);
    struct map_entry *e = find(m, key, hash);
    if (e != NULL) {
        void *before = e->value;
        e->key = key;
        e->value = value;
        return before;
    }
    if ((m->used + 1) * 4 > m->slots * 3)
        grow(m);
    insert_new(m, (struct map_entry){key, value, hash});
    return NULL;
}

void *map_remove(struct map *m, struct slice key)
{
    struct map_entry *e = m->count > 0 ? find(m, key, hash_key(m, key)) : NULL;
    if (e == NULL)
        return NULL;
    void *before = e->value;
    e->value = &gone;
    e->key = SLICE_NONE;
    m->count--;
    return before;
}

struct map_entry *map_next(const struct map *m, size_t *at)
{
    while (*at < m->slots) {
        struct map_entry *e = &m->entries[(*at)++];
        if (e->value != NULL && e->value != &gone)
            return e;
    }
    return NULL;
}
