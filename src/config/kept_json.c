/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text is the library's to the byte, which tells whole numbers from others and gives every digit,
 * so that it reads back as the same tree; written here, since that takes a fraction of its time. Two
 * texts of one value are equally long, in whatever order their members stand: only then are they read
 * to be compared.
 */
#include "config/kept_json.h"

#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "config/jsonx.h"

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c != '"' && c != '\\';
}

static void put_escaped(struct buffer *b, unsigned char c)
{
    static const char letters[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* what stands for what */
    for (size_t i = 0; i + 1 < sizeof letters; i += 2) {
        if ((unsigned char)letters[i] == c) {
            buffer_append_byte(b, '\\');
            buffer_append_byte(b, letters[i + 1]);
            return;
        }
    }
    buffer_append_f(b, "\\u%04X", c);
}

static void put_string(struct buffer *b, struct slice s)
{
    buffer_append_byte(b, '"');
    for (size_t from = 0, i = 0; i <= s.len; i++) {
        if (i < s.len && is_plain((unsigned char)s.ptr[i]))
            continue;
        buffer_append(b, slice_of(s.ptr + from, i - from));
        if (i < s.len)
            put_escaped(b, (unsigned char)s.ptr[i]);
        from = i + 1;
    }
    buffer_append_byte(b, '"');
}

static void put_value(struct buffer *b, const json_t *v);

static void put_object(struct buffer *b, const json_t *v)
{
    const char *key;
    json_t *value;
    char before = '{';
    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        buffer_append_byte(b, before);
        put_string(b, slice_from(key));
        buffer_append_byte(b, ':');
        put_value(b, value);
        before = ',';
    }
    buffer_append(b, before == '{' ? SLICE("{}") : SLICE("}"));
}

static void put_array(struct buffer *b, const json_t *v)
{
    size_t n = json_array_size(v);
    buffer_append_byte(b, '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buffer_append_byte(b, ',');
        put_value(b, json_array_get(v, i));
    }
    buffer_append_byte(b, ']');
}

/* Numbers and the three words, as the library writes them; it cannot but write them. */
static void put_other(struct buffer *b, const json_t *v)
{
    char text[64];
    size_t n = json_dumpb(v, text, sizeof text, JSON_ENCODE_ANY);
    ASSERT(n > 0 && n <= sizeof text);
    buffer_append(b, slice_of(text, n));
}

static void put_value(struct buffer *b, const json_t *v)
{
    if (json_is_object(v))
        put_object(b, v);
    else if (json_is_array(v))
        put_array(b, v);
    else if (json_is_string(v))
        put_string(b, slice_of(json_string_value(v), json_string_length(v)));
    else
        put_other(b, v);
}

enum err kept_json_set(struct kept_json *k, const json_t *v)
{
    struct buffer b;
    kept_json_clear(k);
    buffer_init(&b, SIZE_MAX);
    put_value(&b, v);
    k->len = b.len;
    buffer_append_byte(&b, '\0');
    k->text = mem_realloc(buffer_steal(&b), k->len + 1);
    if (!jsonx_too_deep(kept_json_text(k), JSONX_MAX_DEPTH))
        return OK;
    kept_json_clear(k);
    return ERR_LIMIT;
}

void kept_json_copy(struct kept_json *k, const struct kept_json *from)
{
    kept_json_clear(k);
    if (from->text == NULL)
        return;
    k->text = mem_alloc(from->len + 1);
    memcpy(k->text, from->text, from->len + 1);
    k->len = from->len;
}

json_t *kept_json_tree(const struct kept_json *k)
{
    if (k->text == NULL)
        return json_null();
    json_t *v = json_loadb(k->text, k->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (v == NULL)
        fatal("out of memory"); /* it was written here */
    return v;
}

bool kept_json_same(const struct kept_json *a, const struct kept_json *b)
{
    if (a->text == NULL || b->text == NULL || a->len != b->len)
        return false;
    if (memcmp(a->text, b->text, a->len) == 0)
        return true;
    json_t *one = kept_json_tree(a), *other = kept_json_tree(b);
    bool same = json_equal(one, other);
    json_decref(one);
    json_decref(other);
    return same;
}

bool kept_json_is(const struct kept_json *k, const json_t *v)
{
    struct kept_json other = {0};
    bool same = kept_json_set(&other, v) == OK && kept_json_same(k, &other);
    kept_json_clear(&other);
    return same;
}

void kept_json_clear(struct kept_json *k)
{
    mem_free(k->text);
    *k = (struct kept_json){0};
}
