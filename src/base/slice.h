/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A view of bytes owned by somebody else. Passed by value, never promised to end in NUL, and not
 * assumed to be UTF-8. The empty slice may have a NULL pointer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

struct slice {
    const char *ptr;
    size_t len;
};

#define SLICE(literal) ((struct slice){"" literal, sizeof(literal) - 1})
#define SLICE_NONE ((struct slice){NULL, 0})
#define SLICE_FMT "%.*s" /* printf with SLICE_ARG */
#define SLICE_ARG(s) (int)(s).len, (s).ptr

static inline struct slice slice_of(const char *ptr, size_t len)
{
    return (struct slice){ptr, len};
}

/* The bytes of a C string; NULL gives the empty slice. */
static inline struct slice slice_from(const char *text)
{
    return (struct slice){text, text != NULL ? strlen(text) : 0};
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool slice_is(struct slice a, const char *text)
{
    return slice_eq(a, slice_from(text));
}

/* `from` bytes dropped at the front, at most all of them. */
static inline struct slice slice_skip(struct slice s, size_t from)
{
    if (from > s.len)
        from = s.len;
    return (struct slice){from > 0 ? s.ptr + from : s.ptr, s.len - from}; /* NULL + 0 is undefined */
}

static inline struct slice slice_take(struct slice s, size_t len)
{
    return (struct slice){s.ptr, len < s.len ? len : s.len};
}

static inline bool slice_starts(struct slice s, struct slice prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

static inline bool slice_ends(struct slice s, struct slice suffix)
{
    return s.len >= suffix.len &&
           (suffix.len == 0 || memcmp(s.ptr + s.len - suffix.len, suffix.ptr, suffix.len) == 0);
}

static inline char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* ASCII case folded; other bytes compare as they are. */
bool slice_eq_nocase(struct slice, struct slice);
bool slice_starts_nocase(struct slice, struct slice prefix);

/* memcmp order, the shorter first when one is a prefix of the other. */
int slice_cmp(struct slice, struct slice);

/* Position of the first / last byte `c`, or SIZE_MAX. */
size_t slice_find(struct slice, char c);
size_t slice_find_last(struct slice, char c);

/* Position of the first `needle`, or SIZE_MAX; the empty needle is found at 0. */
size_t slice_find_slice(struct slice, struct slice needle);

/* Cuts at the first `c`: head before it, tail behind it. False, with head whole and tail empty,
 * when there is none. */
bool slice_cut(struct slice, char c, struct slice *head, struct slice *tail);

/* Without spaces, tabs, CR and LF at both ends. */
struct slice slice_trim(struct slice);

/* Decimal digits only: no sign, no space, not empty. False on overflow of `max`. */
bool slice_to_u64(struct slice, uint64_t max, uint64_t *out);

/* One optional '-' or '+', then digits. */
bool slice_to_i64(struct slice, int64_t *out);

/* A malloc'd copy that ends in NUL. */
char *slice_dup(struct slice);
