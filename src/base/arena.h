/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of one lifetime: allocate piece by piece, free all at once. An exchange's arena is reset
 * at its end; a generation's lives as long as the generation. Not thread-safe.
 */
#pragma once

#include "base/sanitizer.h"
#include "base/slice.h"

struct arena_chunk;

struct arena {
    char *at;                  /* next free byte */
    char *end;                 /* behind the current chunk */
    struct arena_chunk *chunk; /* newest first */
    size_t used;               /* bytes handed out since the last reset, for budgets */
    size_t chunk_size;         /* of the next chunk; the first one is kept over resets */
};

/* `chunk_size`: bytes fetched from the heap at a time; larger requests get a chunk of their own.
 * Nothing is allocated before the first use. */
void arena_init(struct arena *, size_t chunk_size);
void arena_deinit(struct arena *);

/* Frees everything handed out; keeps one chunk of the normal size for the next user. */
void arena_reset(struct arena *);

void *arena_alloc_slow(struct arena *, size_t size);

/* 16-byte aligned, uninitialised; never NULL. */
static inline void *arena_alloc(struct arena *a, size_t size)
{
    size_t need = (size + 15 + (size == 0)) & ~(size_t)15;
    if (__builtin_expect(need < size || need > (size_t)(a->end - a->at), 0))
        return arena_alloc_slow(a, size);
    void *p = a->at;
    a->at += need;
    a->used += need;
    UNPOISON(p, size);
    return p;
}

void *arena_zalloc(struct arena *, size_t size);
struct slice arena_copy(struct arena *, struct slice);

/* A copy that ends in NUL (not counted in any length). */
char *arena_str(struct arena *, struct slice);

/* The parts, one behind the other. */
struct slice arena_join(struct arena *, const struct slice *parts, size_t count);
struct slice arena_printf(struct arena *, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define ARENA_NEW(a, type) ((type *)arena_zalloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, count) ((type *)arena_alloc_array((a), (count), sizeof(type)))

/* Zeroed; ends the process when count × size overflows. */
void *arena_alloc_array(struct arena *, size_t count, size_t size);
