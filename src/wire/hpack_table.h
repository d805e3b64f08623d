/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hpack.c does with a dynamic table: add at its new end, look at the entry with an index, make
 * it smaller.
 */
#pragma once

#include "wire/hpack.h"

/* Frees all; the maximum stays. */
void hpack_table_deinit(struct hpack_table *);

/* Drops what does not fit any more. */
void hpack_table_resize(struct hpack_table *, uint32_t max);

/* Copies the field in, behind dropping what has to go for it; the field must not lie in this table.
 * An entry larger than the maximum empties the table (RFC 7541 §4.4) and gives NULL; else returns
 * where the copy begins. The name must be in small letters if it has no number. */
char *hpack_table_add(struct hpack_table *, const struct hpack_field *);

/* Gives memory back that is not in use. */
void hpack_table_trim(struct hpack_table *);

static inline uint32_t hpack_entry_bytes(const struct hpack_entry *e)
{
    return (e->id == NAME_OTHER ? e->name_len : 0u) + e->value_len;
}

/* The newest has index 0; `index` must be below `count`. */
static inline const struct hpack_entry *hpack_table_at(const struct hpack_table *t, uint32_t index)
{
    return &t->entries[(t->first + t->count - 1u - index) & (t->slots - 1u)];
}

/* Only while there is memory. */
static inline char *hpack_table_bytes(const struct hpack_table *t)
{
    return (char *)(t->entries + t->slots);
}

static inline struct slice hpack_entry_name(const struct hpack_table *t,
                                            const struct hpack_entry *e)
{
    return e->id != NAME_OTHER ? hpack_names[e->id]
                               : slice_of(hpack_table_bytes(t) + e->at, e->name_len);
}

static inline struct slice hpack_entry_value(const struct hpack_table *t,
                                             const struct hpack_entry *e)
{
    size_t skip = e->id == NAME_OTHER ? e->name_len : 0;
    return slice_of(hpack_table_bytes(t) + e->at + skip, e->value_len);
}
