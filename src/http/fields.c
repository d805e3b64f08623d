/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flat array of fields, searched in order: a head has some twenty fields, and comparing length
 * first makes a linear search cheaper than any map; a filter of one word answers most questions
 * for what is not there. Growing moves the array inside the arena; the
 * old one stays until the arena's reset.
 */
#include "http/fields.h"

#include <string.h>

void fields_init(struct fields *fs, struct arena *arena)
{
    *fs = (struct fields){.arena = arena};
}

struct field *fields_find(const struct fields *fs, struct slice name, uint32_t *at)
{
    uint32_t count = (fs->seen & field_bit(name)) != 0 ? fs->count : 0;
    for (uint32_t i = *at; i < count; i++) {
        if (fs->items[i].name.len == name.len && slice_eq_nocase(fs->items[i].name, name)) {
            *at = i + 1;
            return &fs->items[i];
        }
    }
    *at = fs->count;
    return NULL;
}

bool fields_lookup(const struct fields *fs, struct slice name, struct slice *value)
{
    uint32_t at = 0;
    struct field *f = fields_find(fs, name, &at);
    *value = f != NULL ? f->value : SLICE_NONE;
    return f != NULL;
}

static bool is_token_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

bool field_name_ok(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (!is_token_byte(name.ptr[i]))
            return false;
    }
    return name.len > 0;
}

struct slice field_canonical(struct slice name, struct arena *arena)
{
    bool upper = true, changes = false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!is_token_byte(c))
            return name;
        changes |= upper ? c >= 'a' && c <= 'z' : c >= 'A' && c <= 'Z';
        upper = c == '-';
    }
    if (!changes)
        return name;
    char *text = arena_str(arena, name);
    upper = true;
    for (size_t i = 0; i < name.len; i++) {
        text[i] = ascii_lower(text[i]);
        if (upper && text[i] >= 'a' && text[i] <= 'z')
            text[i] = (char)(text[i] & ~0x20);
        upper = text[i] == '-';
    }
    return slice_of(text, name.len);
}

struct slice fields_joined(const struct fields *fs, struct slice name, struct arena *arena)
{
    uint32_t at = 0;
    struct field *f = fields_find(fs, name, &at);
    if (f == NULL)
        return SLICE_NONE;
    struct slice all = f->value;
    while ((f = fields_find(fs, name, &at)) != NULL)
        all = arena_join(arena, (struct slice[]){all, SLICE(", "), f->value}, 3);
    return all;
}

static bool find_cookie(struct slice list, struct slice wanted, bool any_case, struct slice *value)
{
    struct slice pair, name;
    while (list.len > 0) {
        slice_cut(list, ';', &pair, &list);
        slice_cut(slice_trim(pair), '=', &name, value);
        if (any_case ? !slice_eq_nocase(name, wanted) : !slice_eq(name, wanted))
            continue;
        if (value->len >= 2 && value->ptr[0] == '"' && value->ptr[value->len - 1] == '"')
            *value = slice_of(value->ptr + 1, value->len - 2);
        return true;
    }
    return false;
}

bool fields_cookie(const struct fields *fs, struct slice name, bool any_case, struct slice *value)
{
    uint32_t at = 0;
    struct field *f;
    *value = SLICE_NONE;
    while ((f = fields_find(fs, SLICE("Cookie"), &at)) != NULL) {
        if (find_cookie(f->value, name, any_case, value))
            return true;
    }
    return false;
}

void fields_grow(struct fields *fs)
{
    uint32_t cap = fs->cap > 0 ? fs->cap * 2 : 16;
    struct field *items = arena_alloc(fs->arena, cap * sizeof *items);
    if (fs->count > 0)
        memcpy(items, fs->items, fs->count * sizeof *items);
    fs->items = items;
    fs->cap = cap;
}

void fields_remove_at(struct fields *fs, uint32_t index)
{
    fs->count--;
    memmove(fs->items + index, fs->items + index + 1, (fs->count - index) * sizeof *fs->items);
}

static uint32_t remove_from(struct fields *fs, struct slice name, uint32_t at)
{
    uint32_t removed = 0;
    while (fields_find(fs, name, &at) != NULL) {
        fields_remove_at(fs, --at);
        removed++;
    }
    return removed;
}

uint32_t fields_remove(struct fields *fs, struct slice name)
{
    return remove_from(fs, name, 0);
}

void fields_set(struct fields *fs, struct slice name, struct slice value)
{
    uint32_t at = 0;
    struct field *f = fields_find(fs, name, &at);
    if (f == NULL) {
        fields_add(fs, name, value);
        return;
    }
    f->value = value;
    remove_from(fs, name, at);
}
