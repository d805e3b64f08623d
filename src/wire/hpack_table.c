/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dynamic table of RFC 7541 §2.3.2, of a decoder or an encoder. Entries are dropped at the old
 * end and added at the new one, so the bytes move through their memory like a caterpillar: when the
 * end is reached, what lives is moved to the front, or to larger memory when that would happen too
 * often. A name that has a number is not stored, though its length counts as the RFC says. Memory is
 * taken at the first entry, in one piece; hpack_table_trim gives back what is not in use.
 */
#include "wire/hpack_table.h"

#include "base/check.h"
#include "base/mem.h"

enum { SLOTS_MIN = 2, BYTES_MIN = 32 };

void hpack_table_deinit(struct hpack_table *t)
{
    mem_free(t->entries);
    *t = (struct hpack_table){.max = t->max};
}

static void drop_oldest(struct hpack_table *t)
{
    const struct hpack_entry *e = &t->entries[t->first];
    t->size -= (uint32_t)e->name_len + e->value_len + HPACK_ENTRY_OVERHEAD;
    t->begin += hpack_entry_bytes(e);
    t->first = (uint16_t)((t->first + 1) & (t->slots - 1));
    if (--t->count == 0)
        t->begin = t->end = 0;
}

/* Into memory of that size, where all must have room. */
static void resize(struct hpack_table *t, uint32_t cap, unsigned slots)
{
    uint32_t live = t->end - t->begin;
    struct hpack_entry *entries = mem_alloc(slots * sizeof *entries + cap);
    if (live > 0)
        memcpy(entries + slots, hpack_table_bytes(t) + t->begin, live);
    for (unsigned i = 0; i < t->count; i++) {
        entries[i] = t->entries[(t->first + i) & (t->slots - 1)];
        entries[i].at -= t->begin;
    }
    mem_free(t->entries);
    t->entries = entries;
    t->first = 0;
    t->slots = (uint16_t)slots;
    t->begin = 0;
    t->end = live;
    t->cap = cap;
}

static void slide(struct hpack_table *t)
{
    memmove(hpack_table_bytes(t), hpack_table_bytes(t) + t->begin, t->end - t->begin);
    for (unsigned i = 0; i < t->count; i++)
        t->entries[(t->first + i) & (t->slots - 1)].at -= t->begin;
    t->end -= t->begin;
    t->begin = 0;
}

static void make_room(struct hpack_table *t, uint32_t more)
{
    uint32_t need = t->end - t->begin + more, cap = t->cap;
    unsigned slots = t->slots > 0 ? t->slots : SLOTS_MIN;
    if (t->count == slots)
        slots *= 2;
    if (cap == 0 || need > cap - cap / 4)
        cap = need < BYTES_MIN / 2 ? BYTES_MIN : need * 2;
    if (cap != t->cap || slots != t->slots)
        resize(t, cap, slots);
    else if (t->end + more > cap)
        slide(t);
}

void hpack_table_resize(struct hpack_table *t, uint32_t max)
{
    t->max = max;
    while (t->size > max)
        drop_oldest(t);
}

char *hpack_table_add(struct hpack_table *t, const struct hpack_field *f)
{
    size_t size = f->name.len + f->value.len + HPACK_ENTRY_OVERHEAD;
    while (t->count > 0 && t->size + size > t->max)
        drop_oldest(t);
    if (size > t->max)
        return NULL;
    struct hpack_entry e = {.name_len = (uint16_t)f->name.len, .value_len = (uint16_t)f->value.len,
                            .id = f->id, .marks = f->marks};
    uint32_t need = hpack_entry_bytes(&e);
    if (t->end + need > t->cap || t->count == t->slots)
        make_room(t, need);
    e.at = t->end;
    char *at = hpack_table_bytes(t) + e.at;
    if (f->id == NAME_OTHER)
        memcpy(at, f->name.ptr, f->name.len);
    if (f->value.len > 0)
        memcpy(at + need - f->value.len, f->value.ptr, f->value.len);
    t->entries[(t->first + t->count++) & (t->slots - 1)] = e;
    t->end += need;
    t->size += (uint32_t)size;
    return at;
}

void hpack_table_trim(struct hpack_table *t)
{
    unsigned slots = 1;
    uint32_t cap = t->end - t->begin;
    if (t->count == 0) {
        hpack_table_deinit(t);
        return;
    }
    while (slots < t->count)
        slots *= 2;
    if (slots < t->slots || cap < t->cap)
        resize(t, cap, slots);
}
