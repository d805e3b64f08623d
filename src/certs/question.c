/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As Go's url.Values writes them: letters, digits and -_.~ as they are, a space as '+', all else in
 * percent form.
 */
#include "certs/question.h"

#include "base/buffer.h"

static void put_encoded(struct buffer *b, struct slice s)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool plain = (c >= '0' && c <= '9') || (ascii_lower((char)c) >= 'a' &&
                     ascii_lower((char)c) <= 'z') || (c != 0 && strchr("-_.~", c) != NULL);
        if (plain) {
            buffer_append_byte(b, (char)c);
        } else if (c == ' ') {
            buffer_append_byte(b, '+');
        } else {
            buffer_append(b, slice_of((char[]){'%', hex[c >> 4], hex[c & 15]}, 3));
        }
    }
}

static bool is_set(struct slice old, const struct question_pair *pairs, size_t count)
{
    struct slice name, value;
    slice_cut(old, '=', &name, &value);
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(name, pairs[i].name))
            return true;
    }
    return false;
}

struct slice question_url(struct arena *arena, struct slice url, const struct question_pair *pairs,
                          size_t count)
{
    struct buffer b;
    struct slice base, query, old;
    char mark = '?';
    buffer_init(&b, 65536);
    slice_cut(url, '#', &url, &old);
    slice_cut(url, '?', &base, &query);
    buffer_append(&b, base);
    while (query.len > 0) {
        slice_cut(query, '&', &old, &query);
        if (old.len == 0 || is_set(old, pairs, count))
            continue;
        buffer_append_byte(&b, mark);
        buffer_append(&b, old);
        mark = '&';
    }
    for (size_t i = 0; i < count; i++) {
        buffer_append_byte(&b, mark);
        put_encoded(&b, pairs[i].name);
        buffer_append_byte(&b, '=');
        put_encoded(&b, pairs[i].value);
        mark = '&';
    }
    struct slice out = arena_copy(arena, buffer_slice(&b));
    buffer_deinit(&b);
    return out;
}
