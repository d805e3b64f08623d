/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass: a BEGIN line, headers where the first lines hold a colon, base64 with white space
 * anywhere, the END line of the same type. Base64 has no dash, so the next five dashes at the start
 * of a line must be that END; where they are not, the search goes on from there: a broken block hides
 * none behind it, and no text is read twice.
 */
#include "base/pem.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const struct slice begin_mark = {"-----BEGIN ", 11}, end_mark = {"-----END ", 9},
                          dashes = {"-----", 5};

enum { LINE_MAX_CHARS = 64 };

/* The rest of the line at the front, cut off with its line end. */
static struct slice take_line(struct slice *text)
{
    struct slice line;
    slice_cut(*text, '\n', &line, text);
    return slice_trim(line);
}

/* The position of `mark` at the start of a line, or SIZE_MAX. */
static size_t find_at_line(struct slice text, struct slice mark)
{
    for (size_t at = 0;;) {
        size_t found = slice_find_slice(slice_skip(text, at), mark);
        if (found == SIZE_MAX)
            return SIZE_MAX;
        at += found;
        if (at == 0 || text.ptr[at - 1] == '\n' || text.ptr[at - 1] == '\r')
            return at;
        at += mark.len;
    }
}

/* Of a digit its value and one; 0 is none. */
enum { SPACE = 65 };
static const uint8_t values[256] = {
    ['A'] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
    ['a'] = 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49,
    50, 51, 52, ['0'] = 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, ['+'] = 63, ['/'] = 64,
    [' '] = SPACE, ['\t'] = SPACE, ['\r'] = SPACE, ['\n'] = SPACE,
};

/* Writes body.len / 4 * 3 + 3 bytes at most; `out` NULL: it is only looked at. */
static bool decode(struct slice body, char *out, size_t *len)
{
    uint32_t bits = 0;
    size_t digits = 0, pads = 0, at = 0;
    char bin[3];
    for (size_t i = 0; i < body.len; i++) {
        uint8_t v = values[(unsigned char)body.ptr[i]];
        if (v == SPACE || (body.ptr[i] == '=' && ++pads <= 2))
            continue;
        if (v == 0 || pads > 0)
            return false;
        bits = bits << 6 | (v - 1U);
        if (++digits % 4 == 0) {
            char *to = out != NULL ? out + at : bin;
            to[0] = (char)(bits >> 16);
            to[1] = (char)(bits >> 8);
            to[2] = (char)bits;
            at += 3;
        }
    }
    if ((digits + pads) % 4 != 0 || digits % 4 == 1)
        return false;
    unsigned left = digits % 4;
    if (out != NULL && left >= 2)
        out[at] = (char)(bits >> (left == 2 ? 4 : 10));
    if (out != NULL && left == 3)
        out[at + 1] = (char)(bits >> 2);
    *len = at + (left >= 2 ? left - 1 : 0);
    return true;
}

/* Takes the headers off the front of a body. */
static bool read_headers(struct slice *body)
{
    bool encrypted = false;
    struct slice rest = *body, line = take_line(&rest);
    while (slice_find(line, ':') != SIZE_MAX) {
        encrypted |= slice_starts(line, SLICE("Proc-Type:")) &&
                     slice_find_slice(line, SLICE("ENCRYPTED")) != SIZE_MAX;
        *body = rest;
        line = take_line(&rest);
    }
    return encrypted;
}

/* Behind a BEGIN mark at `begin`: whether a whole block stands there. Moves on as far as was read. */
static bool take_block(struct slice *rest, const char *begin, struct pem_block *b)
{
    struct slice line = take_line(rest);
    size_t end = find_at_line(*rest, dashes), len;
    if (end == SIZE_MAX) {
        *rest = SLICE_NONE;
        return false;
    }
    b->type = slice_take(line, line.len > dashes.len ? line.len - dashes.len : 0);
    b->body = slice_take(*rest, end);
    *rest = slice_skip(*rest, end);
    struct slice behind = *rest, last = take_line(&behind);
    if (!slice_ends(line, dashes) || !slice_starts(last, end_mark) ||
        !slice_eq(slice_skip(last, end_mark.len), line))
        return false;
    b->text = slice_of(begin, (size_t)(last.ptr + last.len - begin));
    b->encrypted = read_headers(&b->body);
    if (!decode(b->body, NULL, &len))
        return false;
    *rest = behind;
    return true;
}

bool pem_next(struct slice *rest, struct pem_block *b)
{
    for (size_t at; (at = find_at_line(*rest, begin_mark)) != SIZE_MAX;) {
        const char *begin = rest->ptr + at;
        *rest = slice_skip(*rest, at + begin_mark.len);
        if (take_block(rest, begin, b))
            return true;
    }
    *rest = SLICE_NONE;
    return false;
}

enum err pem_decode(const struct pem_block *b, struct arena *arena, struct slice *der)
{
    char *out = arena_alloc(arena, b->body.len / 4 * 3 + 3);
    size_t len;
    if (!decode(b->body, out, &len))
        return ERR_INVALID;
    *der = slice_of(out, len);
    return OK;
}

/* A buffer that moves leaves its bytes behind in the heap. */
static enum err make_room(struct buffer *b, size_t need)
{
    struct buffer old = *b;
    if (need <= b->cap - b->len || b->len == 0) {
        if (need > b->cap && b->ptr != NULL)
            explicit_bzero(b->ptr, b->cap);
        return buffer_reserve(b, need);
    }
    buffer_init(b, old.max);
    if (need > old.max - old.len || buffer_reserve(b, old.len + need) != OK) {
        *b = old;
        b->full = true;
        return ERR_LIMIT;
    }
    memcpy(b->ptr, old.ptr, old.len);
    b->len = old.len;
    b->full = old.full;
    explicit_bzero(old.ptr, old.cap);
    buffer_deinit(&old);
    return OK;
}

enum err pem_decode_to(const struct pem_block *b, struct buffer *out)
{
    size_t len;
    TRY(make_room(out, b->body.len / 4 * 3 + 3));
    if (!decode(b->body, out->ptr + out->len, &len))
        return ERR_INVALID;
    out->len += len;
    return OK;
}

static void put_group(const unsigned char *in, size_t len, char out[4])
{
    uint32_t bits = (uint32_t)in[0] << 16 | (uint32_t)(len > 1 ? in[1] : 0) << 8 |
                    (len > 2 ? in[2] : 0);
    out[0] = alphabet[bits >> 18];
    out[1] = alphabet[bits >> 12 & 63];
    out[2] = len > 1 ? alphabet[bits >> 6 & 63] : '=';
    out[3] = len > 2 ? alphabet[bits & 63] : '=';
}

enum err pem_put(struct buffer *out, const char *type, struct slice der)
{
    size_t text = (der.len + 2) / 3 * 4;
    TRY(make_room(out, text + text / LINE_MAX_CHARS + 2 * strlen(type) + 64));
    TRY(buffer_append_f(out, "-----BEGIN %s-----\n", type));
    size_t column = 0;
    for (size_t i = 0; i < der.len; i += 3) {
        char group[4];
        put_group((const unsigned char *)der.ptr + i, der.len - i, group);
        TRY(buffer_append(out, slice_of(group, sizeof group)));
        if ((column += sizeof group) == LINE_MAX_CHARS || i + 3 >= der.len) {
            TRY(buffer_append_byte(out, '\n'));
            column = 0;
        }
    }
    return buffer_append_f(out, "-----END %s-----\n", type);
}
