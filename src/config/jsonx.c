/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON between the library's tree and text. The writer's form is Go's, byte for byte, because tools
 * compare what `adapt` prints and what the admin API answers.
 */
#include "config/jsonx.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/text.h"
#include "config/token.h"

/* The library stops at a depth of its own (2,048); ours is lower, since a walk over the tree uses
 * the stack of a fiber or thread. */
bool jsonx_too_deep(struct slice text, size_t max)
{
    size_t depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else
                quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            if (++depth > max)
                return true;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return false;
}

json_t *jsonx_load(struct slice file, struct slice text, struct diag *diag)
{
    json_error_t e;
    if (text.len > JSONX_MAX_SIZE || jsonx_too_deep(text, JSONX_MAX_DEPTH)) {
        diag_place(diag, file, 0, 0);
        diag_say(diag, text.len > JSONX_MAX_SIZE ? "JSON document larger than 64 MiB"
                                                 : "JSON nested deeper than 1000 levels");
        return NULL;
    }
    json_t *j = json_loadb(text.ptr != NULL ? text.ptr : "", text.len,
                           JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (j == NULL) {
        diag_place(diag, file, (unsigned)(e.line > 0 ? e.line : 1),
                   (unsigned)(e.column > 0 ? e.column : 1));
        diag_say(diag, "%s", e.text);
    }
    return j;
}

json_t *jsonx_string(struct slice s)
{
    json_t *j = s.len == 0 ? json_string("") : json_stringn(s.ptr, s.len);
    if (j != NULL)
        return j;
    struct buffer b;
    buffer_init(&b, SIZE_MAX);
    while (s.len > 0) {
        uint32_t rune;
        char utf8[4];
        size_t n = rune_next(s, &rune);
        (void)buffer_append(&b, slice_of(utf8, utf8_encode(rune, utf8)));
        s = slice_skip(s, n);
    }
    j = json_stringn(b.ptr, b.len);
    buffer_deinit(&b);
    if (j == NULL)
        fatal("out of memory");
    return j;
}

static void put_escaped(struct buffer *b, unsigned char c)
{
    switch (c) {
    case '"':
        BUFFER_PUT(b, "\\\"");
        break;
    case '\\':
        BUFFER_PUT(b, "\\\\");
        break;
    case '\b':
        BUFFER_PUT(b, "\\b");
        break;
    case '\f':
        BUFFER_PUT(b, "\\f");
        break;
    case '\n':
        BUFFER_PUT(b, "\\n");
        break;
    case '\r':
        BUFFER_PUT(b, "\\r");
        break;
    case '\t':
        BUFFER_PUT(b, "\\t");
        break;
    default:
        buffer_append_f(b, "\\u%04x", c);
    }
}

/* How many bytes at the front stand for themselves. */
static size_t plain_run(struct slice s)
{
    size_t n = 0;
    while (n < s.len) {
        unsigned char c = (unsigned char)s.ptr[n];
        if (c < 0x20 || c > 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&')
            break;
        n++;
    }
    return n;
}

enum err jsonx_put_string(struct buffer *b, struct slice s)
{
    buffer_append_byte(b, '"');
    for (;;) {
        uint32_t rune;
        size_t n = plain_run(s);
        if (n > 0)
            buffer_append(b, slice_take(s, n));
        s = slice_skip(s, n);
        if (s.len == 0)
            break;
        unsigned char c = (unsigned char)s.ptr[0];
        n = 1;
        if (c < 0x80)
            put_escaped(b, c);
        else if ((n = rune_next(s, &rune)) == 1 || rune == 0x2028 || rune == 0x2029)
            buffer_append_f(b, "\\u%04x", rune);
        else
            buffer_append(b, slice_take(s, n));
        s = slice_skip(s, n);
    }
    return buffer_append_byte(b, '"');
}

/* Shortest digits that read back as the same number; exponent form below 1e-6 and from 1e21 on. */
enum err jsonx_put_float(struct buffer *b, double value)
{
    char text[40];
    if (!isfinite(value))
        return ERR_INVALID;
    double size = fabs(value);
    bool exponent = size != 0 && (size < 1e-6 || size >= 1e21);
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*e", digits - 1, value);
        if (strtod(text, NULL) == value)
            break;
    }
    if (exponent) {
        /* Go drops the leading zero of a negative exponent: 1e-09 becomes 1e-9. */
        char *e = strchr(text, 'e');
        if (e[1] == '-' && e[2] == '0')
            memmove(e + 2, e + 3, strlen(e + 3) + 1);
        return buffer_append(b, slice_from(text));
    }
    char *e = strchr(text, 'e');
    int power = (int)strtol(e + 1, NULL, 10);
    int digits = (int)(e - text) - (text[0] == '-') - (strchr(text, '.') != NULL);
    int decimals = digits - 1 - power;
    if (decimals > 0)
        return buffer_append_f(b, "%.*f", decimals, value);
    for (const char *at = text; at < e; at++)
        if (*at != '.')
            buffer_append_byte(b, *at);
    for (; decimals < 0; decimals++)
        buffer_append_byte(b, '0');
    return b->full ? ERR_LIMIT : OK;
}

static void put_line(struct buffer *b, unsigned depth)
{
    buffer_append_byte(b, '\n');
    for (unsigned i = 0; i < depth; i++)
        buffer_append_byte(b, '\t');
}

static void put_value(struct buffer *b, const json_t *j, unsigned depth, bool pretty);

static void put_object(struct buffer *b, const json_t *j, unsigned depth, bool pretty)
{
    const char *key;
    json_t *value;
    bool first = true;
    buffer_append_byte(b, '{');
    json_object_foreach((json_t *)(uintptr_t)j, key, value) {
        if (!first)
            buffer_append_byte(b, ',');
        if (pretty)
            put_line(b, depth + 1);
        jsonx_put_string(b, slice_from(key));
        buffer_append(b, pretty ? SLICE(": ") : SLICE(":"));
        put_value(b, value, depth + 1, pretty);
        first = false;
    }
    if (pretty && !first)
        put_line(b, depth);
    buffer_append_byte(b, '}');
}

static void put_array(struct buffer *b, const json_t *j, unsigned depth, bool pretty)
{
    size_t n = json_array_size(j);
    buffer_append_byte(b, '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buffer_append_byte(b, ',');
        if (pretty)
            put_line(b, depth + 1);
        put_value(b, json_array_get(j, i), depth + 1, pretty);
    }
    if (pretty && n > 0)
        put_line(b, depth);
    buffer_append_byte(b, ']');
}

static void put_value(struct buffer *b, const json_t *j, unsigned depth, bool pretty)
{
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        put_object(b, j, depth, pretty);
        break;
    case JSON_ARRAY:
        put_array(b, j, depth, pretty);
        break;
    case JSON_STRING:
        jsonx_put_string(b, slice_of(json_string_value(j), json_string_length(j)));
        break;
    case JSON_INTEGER:
        buffer_append_f(b, "%lld", (long long)json_integer_value(j));
        break;
    case JSON_REAL:
        (void)jsonx_put_float(b, json_real_value(j));
        break;
    case JSON_TRUE:
        BUFFER_PUT(b, "true");
        break;
    case JSON_FALSE:
        BUFFER_PUT(b, "false");
        break;
    case JSON_NULL:
        BUFFER_PUT(b, "null");
    }
}

enum err jsonx_dump(struct buffer *b, const json_t *j)
{
    put_value(b, j, 0, false);
    return b->full ? ERR_LIMIT : OK;
}

enum err jsonx_dump_pretty(struct buffer *b, const json_t *j)
{
    put_value(b, j, 0, true);
    return b->full ? ERR_LIMIT : OK;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

json_t *jsonx_sorted_keys(const json_t *j)
{
    size_t n = 0, count = json_object_size(j);
    const char **keys = mem_resize(NULL, count + 1, sizeof *keys), *key;
    json_t *value, *out = json_object();
    json_object_foreach((json_t *)(uintptr_t)j, key, value)
        keys[n++] = key;
    qsort(keys, n, sizeof *keys, by_key);
    for (size_t i = 0; i < n; i++)
        json_object_set(out, keys[i], json_object_get(j, keys[i]));
    mem_free(keys);
    return out;
}

json_t *jsonx_sorted(const json_t *j)
{
    const char *key;
    json_t *value, *out;
    if (json_is_array(j)) {
        out = json_array();
        for (size_t i = 0; i < json_array_size(j); i++)
            json_array_append_new(out, jsonx_sorted(json_array_get(j, i)));
        return out;
    }
    if (!json_is_object(j))
        return json_incref((json_t *)(uintptr_t)j);
    out = jsonx_sorted_keys(j);
    json_object_foreach(out, key, value)
        json_object_set_new(out, key, jsonx_sorted(value));
    return out;
}
