/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing byte buffer with a cap. Appending beyond `max` changes nothing and returns ERR_LIMIT,
 * and remembers it in `full`, so that a run of appends may be checked once at its end.
 */
#pragma once

#include <stdarg.h>

#include "base/slice.h"

struct buffer {
    char *ptr;
    size_t len;
    size_t cap; /* allocated bytes */
    size_t max; /* never grows beyond */
    bool full;  /* an append was refused since init or clear */
};

void buffer_init(struct buffer *, size_t max);
void buffer_deinit(struct buffer *);

/* Empties; keeps the memory. */
static inline void buffer_clear(struct buffer *b)
{
    b->len = 0;
    b->full = false;
}

static inline struct slice buffer_slice(const struct buffer *b)
{
    return (struct slice){b->ptr, b->len};
}

/* Makes room for `more` bytes behind `len`; the caller writes them and adds to `len`. */
enum err buffer_reserve(struct buffer *, size_t more);

/* Where there is no room yet. */
enum err buffer_append_slow(struct buffer *, struct slice);

/* Inline, so that a short literal is a few stores. */
static inline enum err buffer_append(struct buffer *b, struct slice s)
{
    if (__builtin_expect(s.len == 0 || s.len > b->cap - b->len, 0))
        return buffer_append_slow(b, s);
    memcpy(b->ptr + b->len, s.ptr, s.len);
    b->len += s.len;
    return OK;
}

enum err buffer_append_byte(struct buffer *, char);
enum err buffer_append_u64(struct buffer *, uint64_t);
enum err buffer_append_f(struct buffer *, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Drops `n` bytes at the front, moving the rest. */
void buffer_consume(struct buffer *, size_t n);

/* The content as a malloc'd C string; the buffer is empty and without memory afterwards. */
char *buffer_steal(struct buffer *);

#define BUFFER_PUT(b, literal) buffer_append((b), SLICE(literal))
