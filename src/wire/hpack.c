/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding of header blocks. Strings go straight to where they stay: decoded or copied into pieces
 * of the message's arena. An entry of the table is copied at each use, since other messages may drop
 * it while this one lives; names with a number are constant and never copied.
 *
 * A list beyond its limit is decoded to its end, for the table's sake, into the same few bytes again
 * and again: a bomb of one byte per field costs a table look-up each and no memory.
 */
#include "wire/hpack.h"

#include "base/check.h"
#include "wire/h1_scan.h"
#include "wire/hpack_table.h"
#include "wire/huffman.h"

enum { TEXT_PIECE = 512 };

enum { NAME_CHAR = 1, ODD_CHAR = 2 };

/* tchar, RFC 9110 §5.6.2, without capitals; '_' and '.' are marked. */
static const uint8_t name_chars[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1,
    ['-'] = 1, ['.'] = 3, ['^'] = 1, ['_'] = 3, ['`'] = 1, ['|'] = 1, ['~'] = 1,
    ['0' ... '9'] = 1, ['a' ... 'z'] = 1,
};

void hpack_decoder_init(struct hpack_decoder *d)
{
    *d = (struct hpack_decoder){.limit = HPACK_TABLE_DEFAULT};
    d->table.max = HPACK_TABLE_DEFAULT;
}

void hpack_decoder_deinit(struct hpack_decoder *d)
{
    hpack_table_deinit(&d->table);
}

void hpack_decoder_limit(struct hpack_decoder *d, uint32_t limit)
{
    ASSERT(limit <= HPACK_TABLE_MAX);
    d->limit = limit;
    d->update_due = limit < d->table.max;
}

void hpack_decoder_trim(struct hpack_decoder *d)
{
    hpack_table_trim(&d->table);
}

void hpack_read(struct hpack_reader *r, struct hpack_decoder *d, struct slice block,
                struct arena *arena, uint32_t size_max)
{
    *r = (struct hpack_reader){.decoder = d, .arena = arena, .size_max = size_max};
    r->at = (const uint8_t *)block.ptr;
    r->end = block.len > 0 ? r->at + block.len : r->at;
}

static enum hpack_event bad(struct hpack_reader *r, const char *why)
{
    r->bad = why;
    return HPACK_BAD;
}

/* --- strings --- */

static char *take_text(struct hpack_reader *r, size_t most)
{
    if (r->text == NULL || most > (size_t)(r->text_end - r->text)) {
        size_t size = most > TEXT_PIECE ? most : TEXT_PIECE;
        r->text = r->text_floor = arena_alloc(r->arena, size);
        r->text_end = r->text + size;
    }
    return r->text;
}

static struct slice keep_text(struct hpack_reader *r, size_t len)
{
    struct slice text = slice_of(r->text, len);
    r->text += len;
    return text;
}

static struct slice copy_text(struct hpack_reader *r, struct slice from)
{
    char *to = take_text(r, from.len);
    if (from.len > 0)
        memcpy(to, from.ptr, from.len);
    return keep_text(r, from.len);
}

/* RFC 7541 §5.1; the first byte is there. At most 32 bits are taken. */
static bool take_number(struct hpack_reader *r, unsigned prefix, uint32_t *number)
{
    uint32_t mask = (1u << prefix) - 1, n = *r->at++ & mask;
    if (n == mask) {
        uint8_t byte = 0x80;
        for (unsigned shift = 0; (byte & 0x80) != 0; shift += 7) {
            if (r->at == r->end || shift > 28)
                return false;
            byte = *r->at++;
            uint64_t sum = n + ((uint64_t)(byte & 0x7f) << shift);
            if (sum > UINT32_MAX)
                return false;
            n = (uint32_t)sum;
        }
    }
    *number = n;
    return true;
}

static bool take_string(struct hpack_reader *r, struct slice *text)
{
    uint32_t len;
    if (r->at == r->end)
        return false;
    bool huffman = (*r->at & 0x80) != 0;
    if (!take_number(r, 7, &len) || len > (size_t)(r->end - r->at))
        return false;
    struct slice raw = slice_of((const char *)r->at, len);
    r->at += len;
    if (!huffman) {
        *text = copy_text(r, raw);
        return true;
    }
    size_t n = huffman_decode(take_text(r, huffman_room(len)), raw);
    if (n == SIZE_MAX)
        return false;
    *text = keep_text(r, n);
    return true;
}

/* --- what a field is --- */

static uint8_t name_marks(struct slice name)
{
    uint8_t all = NAME_CHAR, seen = 0;
    size_t i = name.len > 1 && name.ptr[0] == ':'; /* of a pseudo-header field */
    for (; i < name.len; i++) {
        uint8_t kind = name_chars[(unsigned char)name.ptr[i]];
        all &= kind;
        seen |= kind;
    }
    return (all & NAME_CHAR) == 0 || name.len == 0 ? HPACK_NAME_BAD
           : (seen & ODD_CHAR) != 0                ? HPACK_NAME_ODD
                                                   : 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static uint8_t value_marks(struct slice value)
{
    const char *end = value.ptr + value.len;
    if (value.len == 0)
        return 0;
    if (is_blank(value.ptr[0]) || is_blank(end[-1]) || h1_scan_value(value.ptr, end) != end)
        return HPACK_VALUE_BAD;
    return 0;
}

/* --- representations, RFC 7541 §6 --- */

static bool index_ok(const struct hpack_reader *r, uint32_t index)
{
    return index > 0 && index <= HPACK_STATIC + (uint32_t)r->decoder->table.count;
}

static bool count_field(struct hpack_reader *r, size_t name_len, size_t value_len)
{
    uint64_t size = (uint64_t)r->size + name_len + value_len + HPACK_ENTRY_OVERHEAD;
    if (size > r->size_max && !r->too_large) {
        r->too_large = true;
        r->text_floor = r->text;
    }
    if (!r->too_large)
        r->size = (uint32_t)size;
    return !r->too_large;
}

static void take_name_at(struct hpack_reader *r, uint32_t index, struct hpack_field *f)
{
    const struct hpack_table *t = &r->decoder->table;
    if (index <= HPACK_STATIC) {
        f->id = hpack_static[index].id;
        f->name = hpack_static[index].name;
        f->marks = 0;
        return;
    }
    const struct hpack_entry *e = hpack_table_at(t, index - HPACK_STATIC - 1);
    f->id = e->id;
    f->marks = e->marks & (HPACK_NAME_BAD | HPACK_NAME_ODD);
    f->name = hpack_entry_name(t, e);
    if (e->id == NAME_OTHER)
        f->name = copy_text(r, f->name);
}

/* True when the field is to be given out. */
static bool take_indexed(struct hpack_reader *r, uint32_t index, struct hpack_field *f)
{
    const struct hpack_table *t = &r->decoder->table;
    if (index <= HPACK_STATIC) {
        const struct hpack_static *s = &hpack_static[index];
        *f = (struct hpack_field){s->name, s->value, s->id, 0};
        return count_field(r, s->name.len, s->value.len);
    }
    const struct hpack_entry *e = hpack_table_at(t, index - HPACK_STATIC - 1);
    if (!count_field(r, e->name_len, e->value_len))
        return false;
    take_name_at(r, index, f);
    f->marks = e->marks;
    f->value = copy_text(r, hpack_entry_value(t, e));
    return true;
}

static bool take_new_name(struct hpack_reader *r, struct hpack_field *f)
{
    if (!take_string(r, &f->name))
        return false;
    f->marks = name_marks(f->name);
    f->id = (f->marks & HPACK_NAME_BAD) != 0 ? NAME_OTHER : (uint8_t)hpack_name_of(f->name);
    if (f->id != NAME_OTHER)
        f->name = hpack_names[f->id];
    return true;
}

static enum hpack_event take_literal(struct hpack_reader *r, unsigned prefix,
                                     struct hpack_field *f)
{
    uint32_t index;
    bool adds = prefix == 6, never = prefix == 4 && (*r->at & 0x10) != 0;
    if (!take_number(r, prefix, &index))
        return bad(r, "a number is cut off or too large");
    if (index > 0 && !index_ok(r, index))
        return bad(r, "an index that is in no table");
    if (index > 0)
        take_name_at(r, index, f);
    else if (!take_new_name(r, f))
        return bad(r, "a name is cut off, or its Huffman code is wrong");
    if (!take_string(r, &f->value))
        return bad(r, "a value is cut off, or its Huffman code is wrong");
    f->marks |= value_marks(f->value);
    if (adds)
        hpack_table_add(&r->decoder->table, f);
    if (never)
        f->marks |= HPACK_NEVER;
    return count_field(r, f->name.len, f->value.len) ? HPACK_FIELD : HPACK_TOO_LARGE;
}

static bool take_size_update(struct hpack_reader *r)
{
    struct hpack_decoder *d = r->decoder;
    uint32_t size;
    if (r->begun || !take_number(r, 5, &size) || size > d->limit)
        return false;
    d->update_due = false;
    hpack_table_resize(&d->table, size);
    return true;
}

enum hpack_event hpack_next(struct hpack_reader *r, struct hpack_field *f)
{
    while (r->at < r->end) {
        uint8_t first = *r->at;
        uint32_t index;
        bool wanted;
        if ((first & 0xe0) == 0x20) {
            if (!take_size_update(r))
                return bad(r, "a table size update that is late, cut off or above the limit");
            continue;
        }
        if (r->decoder->update_due)
            return bad(r, "no table size update behind a lower limit");
        r->begun = true;
        if (first & 0x80) {
            if (!take_number(r, 7, &index) || !index_ok(r, index))
                return bad(r, "an index that is in no table");
            wanted = take_indexed(r, index, f);
        } else {
            enum hpack_event e = take_literal(r, first & 0x40 ? 6 : 4, f);
            if (e == HPACK_BAD)
                return e;
            wanted = e == HPACK_FIELD;
        }
        if (wanted)
            return HPACK_FIELD;
        r->text = r->text_floor;
    }
    return r->too_large ? HPACK_TOO_LARGE : HPACK_DONE;
}
