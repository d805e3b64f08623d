/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header and trailer fields of one message, in the order in which they came (RFC 9110 §5). Names
 * compare without ASCII case. Names and values are borrowed: they live as long as the exchange's
 * arena, or longer. No bytes are checked here; wire/ refuses what must not be sent.
 */
#pragma once

#include "base/arena.h"

struct field {
    struct slice name, value;
};

struct fields {
    struct field *items;
    uint32_t count, cap;
    uint64_t seen;       /* a bit (field_bit) of every name that was ever added: absence at a glance */
    struct arena *arena; /* where `items` grows */
};

/* The same for names that differ in ASCII case only; of a constant name a constant. */
static inline __attribute__((always_inline)) uint64_t field_bit(struct slice name)
{
    if (name.len == 0)
        return 0;
    unsigned first = (unsigned char)name.ptr[0] | 0x20u;
    unsigned last = (unsigned char)name.ptr[name.len - 1] | 0x20u;
    return UINT64_C(1) << ((name.len + first * 3 + last * 7) & 63);
}

void fields_init(struct fields *, struct arena *);

bool fields_lookup(const struct fields *, struct slice name, struct slice *value);

/* The first value; false (and an empty slice) when there is none. */
static inline __attribute__((always_inline)) bool
fields_get(const struct fields *fs, struct slice name, struct slice *value)
{
    *value = SLICE_NONE;
    return (fs->seen & field_bit(name)) != 0 && fields_lookup(fs, name, value);
}

static inline bool fields_has(const struct fields *fs, struct slice name)
{
    struct slice ignored;
    return fields_get(fs, name, &ignored);
}

/* The first field at or behind index *at with that name, advancing *at behind it; NULL at the end. */
struct field *fields_find(const struct fields *, struct slice name, uint32_t *at);

/* Whether it is a token, RFC 9110 §5.6.2, as every name of a field must be. */
bool field_name_ok(struct slice name);

/* The usual form of a name, "Content-Type"; itself when it holds what no name may hold. */
struct slice field_canonical(struct slice name, struct arena *);

/* All values joined with ", ", as one list (RFC 9110 §5.3); empty when there is none. */
struct slice fields_joined(const struct fields *, struct slice name, struct arena *);

/* The first cookie of that name in all Cookie fields, without its quotes (RFC 6265 §4.2, RFC 9113
 * §8.2.3); false when there is none. */
bool fields_cookie(const struct fields *, struct slice name, bool any_case, struct slice *value);

void fields_grow(struct fields *);

/* Inline, as fields_get is: of a constant name the bit is a constant. */
static inline __attribute__((always_inline)) void
fields_add(struct fields *fs, struct slice name, struct slice value)
{
    if (__builtin_expect(fs->count == fs->cap, 0))
        fields_grow(fs);
    fs->items[fs->count++] = (struct field){name, value};
    fs->seen |= field_bit(name);
}

/* Replaces the first field of that name, drops the others, or appends. */
void fields_set(struct fields *, struct slice name, struct slice value);

/* Drops every field of that name; returns how many. */
uint32_t fields_remove(struct fields *, struct slice name);
void fields_remove_at(struct fields *, uint32_t index);
