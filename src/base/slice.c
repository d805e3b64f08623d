/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Searching, comparing and cutting of slices; all pure. Numbers are parsed here and nowhere else,
 * so that every length that comes from outside meets the same overflow check.
 */
#include "base/slice.h"

#include "base/mem.h"

bool slice_eq_nocase(struct slice a, struct slice b)
{
    return a.len == b.len && slice_starts_nocase(a, b);
}

bool slice_starts_nocase(struct slice s, struct slice prefix)
{
    if (s.len < prefix.len)
        return false;
    for (size_t i = 0; i < prefix.len; i++) {
        if (s.ptr[i] != prefix.ptr[i] && ascii_lower(s.ptr[i]) != ascii_lower(prefix.ptr[i]))
            return false;
    }
    return true;
}

int slice_cmp(struct slice a, struct slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = n > 0 ? memcmp(a.ptr, b.ptr, n) : 0;
    if (order != 0)
        return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

size_t slice_find(struct slice s, char c)
{
    const char *hit = s.len > 0 ? memchr(s.ptr, c, s.len) : NULL;
    return hit != NULL ? (size_t)(hit - s.ptr) : SIZE_MAX;
}

size_t slice_find_last(struct slice s, char c)
{
    const char *hit = s.len > 0 ? memrchr(s.ptr, c, s.len) : NULL;
    return hit != NULL ? (size_t)(hit - s.ptr) : SIZE_MAX;
}

size_t slice_find_slice(struct slice s, struct slice needle)
{
    if (needle.len == 0)
        return 0;
    const char *hit = s.len > 0 ? memmem(s.ptr, s.len, needle.ptr, needle.len) : NULL;
    return hit != NULL ? (size_t)(hit - s.ptr) : SIZE_MAX;
}

bool slice_cut(struct slice s, char c, struct slice *head, struct slice *tail)
{
    size_t at = slice_find(s, c);
    if (at == SIZE_MAX) {
        *head = s;
        *tail = SLICE_NONE;
        return false;
    }
    *head = slice_take(s, at);
    *tail = slice_skip(s, at + 1);
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct slice slice_trim(struct slice s)
{
    while (s.len > 0 && is_space(s.ptr[0]))
        s = slice_skip(s, 1);
    while (s.len > 0 && is_space(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

bool slice_to_u64(struct slice s, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;
    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned char)s.ptr[i] - '0';
        if (digit > 9 || n > (UINT64_MAX - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    if (n > max)
        return false;
    *out = n;
    return true;
}

bool slice_to_i64(struct slice s, int64_t *out)
{
    bool negative = s.len > 0 && s.ptr[0] == '-';
    uint64_t n;
    if (negative || (s.len > 0 && s.ptr[0] == '+'))
        s = slice_skip(s, 1);
    if (!slice_to_u64(s, (uint64_t)INT64_MAX + negative, &n))
        return false;
    *out = negative ? (int64_t)(0 - n) : (int64_t)n;
    return true;
}

char *slice_dup(struct slice s)
{
    char *copy = mem_alloc(s.len + 1);
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}
