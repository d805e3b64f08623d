/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks in a singly linked list, newest first. A reset keeps the oldest normal chunk, so that a
 * connection that answers small requests touches the heap once in its life. Under AddressSanitizer
 * the free part of a chunk is poisoned: a pointer kept beyond a reset is found at once.
 */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sanitizer.h"

struct arena_chunk {
    struct arena_chunk *next;
    size_t size; /* of `bytes` */
    _Alignas(16) char bytes[];
};

void arena_init(struct arena *a, size_t chunk_size)
{
    *a = (struct arena){.chunk_size = chunk_size};
}

static void free_chunk(struct arena_chunk *c)
{
    UNPOISON(c->bytes, c->size);
    mem_free(c);
}

void arena_deinit(struct arena *a)
{
    while (a->chunk != NULL) {
        struct arena_chunk *c = a->chunk;
        a->chunk = c->next;
        free_chunk(c);
    }
    arena_init(a, a->chunk_size);
}

static void use_chunk(struct arena *a, struct arena_chunk *c)
{
    a->at = c->bytes;
    a->end = c->bytes + c->size;
    POISON(c->bytes, c->size);
}

void arena_reset(struct arena *a)
{
    a->used = 0;
    if (a->chunk == NULL)
        return;
    while (a->chunk->next != NULL) {
        struct arena_chunk *c = a->chunk;
        a->chunk = c->next;
        free_chunk(c);
    }
    if (a->chunk->size > a->chunk_size)
        arena_deinit(a);
    else
        use_chunk(a, a->chunk);
}

static struct arena_chunk *add_chunk(struct arena *a, size_t size)
{
    if (size > SIZE_MAX / 2)
        fatal("allocation size overflows");
    struct arena_chunk *c = mem_alloc(sizeof *c + size);
    c->size = size;
    POISON(c->bytes, size);
    return c;
}

void *arena_alloc_slow(struct arena *a, size_t size)
{
    if (size > SIZE_MAX / 4)
        fatal("allocation size overflows");
    size_t need = (size + 15 + (size == 0)) & ~(size_t)15;
    a->used += need;
    if (need > a->chunk_size / 4) { /* its own chunk, behind the current one */
        struct arena_chunk *own = add_chunk(a, need);
        if (a->chunk == NULL) {
            own->next = NULL;
            a->chunk = own;
            a->at = a->end = own->bytes + own->size;
        } else {
            own->next = a->chunk->next;
            a->chunk->next = own;
        }
        UNPOISON(own->bytes, size);
        return own->bytes;
    }
    struct arena_chunk *c = add_chunk(a, a->chunk_size);
    c->next = a->chunk;
    a->chunk = c;
    use_chunk(a, c);
    void *p = a->at;
    a->at += need;
    UNPOISON(p, size);
    return p;
}

void *arena_zalloc(struct arena *a, size_t size)
{
    if (size == 0)
        size = 1; /* an arena that is still empty would give NULL */
    return memset(arena_alloc(a, size), 0, size);
}

void *arena_alloc_array(struct arena *a, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        fatal("allocation size overflows");
    return arena_zalloc(a, total);
}

struct slice arena_copy(struct arena *a, struct slice s)
{
    if (s.len == 0)
        return (struct slice){"", 0};
    char *p = arena_alloc(a, s.len);
    memcpy(p, s.ptr, s.len);
    return slice_of(p, s.len);
}

char *arena_str(struct arena *a, struct slice s)
{
    char *p = arena_alloc(a, s.len + 1);
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    p[s.len] = '\0';
    return p;
}

struct slice arena_join(struct arena *a, const struct slice *parts, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += parts[i].len;
    char *p = arena_alloc(a, total);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len > 0)
            memcpy(p + at, parts[i].ptr, parts[i].len);
        at += parts[i].len;
    }
    return slice_of(p, total);
}

struct slice arena_printf(struct arena *a, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ASSERT(need >= 0);
    char *p = arena_alloc(a, (size_t)need + 1);
    vsnprintf(p, (size_t)need + 1, format, again);
    va_end(again);
    return slice_of(p, (size_t)need);
}
