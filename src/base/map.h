/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash map from bytes to a pointer, open addressing, seeded per process. Keys are borrowed: they
 * must outlive their entry. Iteration goes in no promised order.
 */
#pragma once

#include "base/slice.h"

struct map_entry {
    struct slice key;
    void *value; /* NULL: free, or MAP_GONE's mark inside map.c */
    uint64_t hash;
};

struct map {
    struct map_entry *entries;
    size_t slots; /* 0 or a power of two */
    size_t count; /* live entries */
    size_t used;  /* live and removed ones */
    bool nocase;  /* ASCII case of keys is ignored */
};

void map_init(struct map *, bool nocase);
void map_deinit(struct map *);

/* NULL when there is none. */
void *map_get(const struct map *, struct slice key);

/* Value must not be NULL. Returns the value that was there before, or NULL. */
void *map_put(struct map *, struct slice key, void *value);

/* Returns the value that was there, or NULL. */
void *map_remove(struct map *, struct slice key);

/* Walks the entries: start with *at = 0; NULL at the end. Removing the current one is allowed. */
struct map_entry *map_next(const struct map *, size_t *at);
