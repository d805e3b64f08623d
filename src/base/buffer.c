/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growth doubles from 64 bytes up to the cap, so a buffer costs O(log n) reallocations and a peer
 * cannot make it larger than its owner allowed.
 */
#include "base/buffer.h"

#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"

void buffer_init(struct buffer *b, size_t max)
{
    *b = (struct buffer){.max = max};
}

void buffer_deinit(struct buffer *b)
{
    mem_free(b->ptr);
    *b = (struct buffer){.max = b->max};
}

enum err buffer_reserve(struct buffer *b, size_t more)
{
    if (more <= b->cap - b->len)
        return OK;
    if (more > b->max - b->len) {
        b->full = true;
        return ERR_LIMIT;
    }
    size_t cap = b->cap > 0 ? b->cap : 64;
    while (cap - b->len < more)
        cap = cap > b->max / 2 ? b->max : cap * 2;
    if (cap > b->max)
        cap = b->max;
    b->ptr = mem_realloc(b->ptr, cap);
    b->cap = cap;
    return OK;
}

enum err buffer_append_slow(struct buffer *b, struct slice s)
{
    TRY(buffer_reserve(b, s.len));
    if (s.len > 0)
        memcpy(b->ptr + b->len, s.ptr, s.len);
    b->len += s.len;
    return OK;
}

enum err buffer_append_byte(struct buffer *b, char c)
{
    TRY(buffer_reserve(b, 1));
    b->ptr[b->len++] = c;
    return OK;
}

enum err buffer_append_u64(struct buffer *b, uint64_t n)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + n % 10);
    while ((n /= 10) != 0);
    return buffer_append(b, slice_of(digits + at, sizeof digits - at));
}

enum err buffer_append_f(struct buffer *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ASSERT(need >= 0);
    enum err e = buffer_reserve(b, (size_t)need + 1); /* vsnprintf writes its NUL there */
    if (e == OK) {
        vsnprintf(b->ptr + b->len, (size_t)need + 1, format, again);
        b->len += (size_t)need;
    }
    va_end(again);
    return e;
}

void buffer_consume(struct buffer *b, size_t n)
{
    ASSERT(n <= b->len);
    b->len -= n;
    if (b->len > 0)
        memmove(b->ptr, b->ptr + n, b->len);
}

char *buffer_steal(struct buffer *b)
{
    char *text = mem_realloc(b->ptr, b->len + 1);
    text[b->len] = '\0';
    *b = (struct buffer){.max = b->max};
    return text;
}
