/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of keys' parts. certmagic lowers case, trims, replaces what file systems or shells dislike,
 * removes "..", then everything but letters, digits and "_@.-". What goes beyond ASCII is removed,
 * too: domains come in their ASCII form.
 */
#include "pki/storage.h"

#include <stdio.h>

static const struct {
    char from;
    const char *to;
} replaced[] = {{' ', "_"}, {'+', "_plus_"}, {'*', "wildcard_"}, {':', "-"}};

static const char *replacement(char c)
{
    for (size_t i = 0; i < sizeof replaced / sizeof replaced[0]; i++) {
        if (replaced[i].from == c)
            return replaced[i].to;
    }
    return NULL;
}

static bool is_safe(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '@' || c == '.' ||
           c == '-';
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct slice storage_safe(struct arena *arena, struct slice part)
{
    while (part.len > 0 && is_space(part.ptr[0]))
        part = slice_skip(part, 1);
    while (part.len > 0 && is_space(part.ptr[part.len - 1]))
        part.len--;
    char *out = arena_alloc(arena, part.len * (sizeof "wildcard_" - 1) + 1);
    size_t len = 0;
    for (size_t i = 0; i < part.len; i++) {
        char c = ascii_lower(part.ptr[i]);
        const char *to = replacement(c);
        if (to != NULL) {
            memcpy(out + len, to, strlen(to));
            len += strlen(to);
        } else if (c == '.' && i + 1 < part.len && part.ptr[i + 1] == '.') {
            i++;
        } else if (is_safe(c)) {
            out[len++] = c;
        }
    }
    return slice_of(out, len);
}

enum err storage_fail(struct storage_why *why, enum err e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why->text, sizeof why->text, format, args);
    va_end(args);
    return e;
}
