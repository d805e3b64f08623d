/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block ends at its own END line; the text behind a BEGIN without one is searched on, so that a
 * broken block hides none behind it.
 */
#include "base/pem.h"

#include "base/text.h"

enum { LINE_MAX_CHARS = 64, DER_MAX = 16 << 20 };

static const struct slice begin_mark = {"-----BEGIN ", 11}, end_mark = {"-----END ", 9},
                          dashes = {"-----", 5};

static bool at_line_start(struct slice all, size_t at)
{
    return at == 0 || all.ptr[at - 1] == '\n' || all.ptr[at - 1] == '\r';
}

/* The END line of that type in `s`: its beginning, and the place behind it. */
static bool find_end(struct slice s, struct slice type, size_t *from, size_t *behind)
{
    size_t at = slice_find_slice(s, end_mark);
    if (at == SIZE_MAX)
        return false;
    struct slice rest = slice_skip(s, at + end_mark.len);
    if (!slice_starts(rest, type) || !slice_starts(slice_skip(rest, type.len), dashes))
        return false;
    *from = at;
    *behind = at + end_mark.len + type.len + dashes.len;
    return true;
}

bool pem_next(struct slice *rest, struct pem_block *b)
{
    for (size_t at; (at = slice_find_slice(*rest, begin_mark)) != SIZE_MAX;) {
        struct slice text = slice_skip(*rest, at), type = slice_skip(text, begin_mark.len);
        bool good = at_line_start(*rest, at);
        size_t type_len = slice_find_slice(type, dashes), from, behind;
        *rest = type;
        if (!good || type_len == SIZE_MAX || slice_find(slice_take(type, type_len), '\n') != SIZE_MAX)
            continue;
        struct slice inside = slice_skip(type, type_len + dashes.len);
        type = slice_take(type, type_len);
        if (!find_end(inside, type, &from, &behind))
            continue;
        b->type = type;
        b->body = slice_take(inside, from);
        b->text = slice_take(text, (size_t)(inside.ptr - text.ptr) + behind);
        *rest = slice_skip(inside, behind);
        return true;
    }
    *rest = SLICE_NONE;
    return false;
}

enum err pem_decode(const struct pem_block *b, struct arena *arena, struct slice *der)
{
    struct buffer text, bytes;
    buffer_init(&text, DER_MAX * 2);
    buffer_init(&bytes, DER_MAX);
    for (size_t i = 0; i < b->body.len; i++)
        if (strchr(" \t\r\n", b->body.ptr[i]) == NULL)
            buffer_append_byte(&text, b->body.ptr[i]);
    enum err e = text.len == 0 || text.full ? ERR_INVALID
                                            : base64_decode(&bytes, buffer_slice(&text));
    if (e == OK)
        *der = arena_copy(arena, buffer_slice(&bytes));
    buffer_deinit(&text);
    buffer_deinit(&bytes);
    return e;
}

enum err pem_put(struct buffer *out, const char *type, struct slice der)
{
    struct buffer text;
    buffer_init(&text, DER_MAX * 2);
    enum err e = base64_encode(&text, der);
    buffer_append_f(out, "-----BEGIN %s-----\n", type);
    for (struct slice s = buffer_slice(&text); s.len > 0; s = slice_skip(s, LINE_MAX_CHARS)) {
        buffer_append(out, slice_take(s, LINE_MAX_CHARS));
        buffer_append_byte(out, '\n');
    }
    buffer_append_f(out, "-----END %s-----\n", type);
    buffer_deinit(&text);
    return e != OK ? e : out->full ? ERR_LIMIT : OK;
}
