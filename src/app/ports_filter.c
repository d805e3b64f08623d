/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each word is of one kind; a row has to fit some word of every kind that was named.
 */
#include "app/ports_filter.h"

enum kind { KIND_PORT, KIND_PROTOCOL, KIND_REACH, KIND_NAME, KINDS };

bool port_word_parse(struct slice word, uint16_t *first, uint16_t *last, enum port_protocol *protocol,
                     bool *any)
{
    struct slice numbers, name, from, to;
    uint64_t low, high;
    *any = !slice_cut(word, '/', &numbers, &name);
    if (!*any && !port_protocol_parse(name, protocol))
        return false;
    bool range = slice_cut(numbers, '-', &from, &to);
    if (!slice_to_u64(from, 65535, &low) || (range && !slice_to_u64(to, 65535, &high)))
        return false;
    *first = (uint16_t)low;
    *last = (uint16_t)(range ? high : low);
    return *first <= *last;
}

static bool is_reach(struct slice word, enum port_reach *reach)
{
    for (unsigned r = 0; r <= REACH_WORLD; r++) {
        *reach = (enum port_reach)r;
        if (slice_is(word, port_reach_name(*reach)))
            return true;
    }
    return false;
}

static bool has(struct slice text, struct slice word)
{
    for (size_t i = 0; i + word.len <= text.len; i++) {
        if (slice_eq_nocase(slice_of(text.ptr + i, word.len), word))
            return true;
    }
    return false;
}

static bool name_fits(const struct port_entry *e, struct slice word)
{
    for (const struct port_owner *o = e->owners; o != NULL; o = o->next) {
        if (has(o->program, word) || has(o->unit, word) || has(o->container, word) ||
            has(o->service, word) || slice_eq(o->user, word))
            return true;
    }
    for (size_t i = 0; i < e->declared_count; i++) {
        if (has(e->declared[i]->name, word))
            return true;
    }
    return has(e->namespace, word) || slice_eq_nocase(e->iana_name, word);
}

static bool word_fits(const struct port_entry *e, struct slice word, enum kind *kind)
{
    uint16_t first, last;
    enum port_protocol protocol;
    enum port_reach reach;
    bool any;
    *kind = KIND_PORT;
    if (port_word_parse(word, &first, &last, &protocol, &any))
        return e->port >= first && e->port <= last && (any || e->protocol == protocol);
    *kind = KIND_PROTOCOL;
    if (port_protocol_parse(word, &protocol))
        return e->protocol == protocol;
    *kind = KIND_REACH;
    if (is_reach(word, &reach))
        return e->reach == reach;
    *kind = KIND_NAME;
    return name_fits(e, word);
}

bool filter_fits(const struct ports_filter *f, const struct port_entry *e)
{
    bool named[KINDS] = {false}, fits[KINDS] = {false};
    for (size_t i = 0; i < f->count; i++) {
        enum kind kind;
        bool good = word_fits(e, slice_from(f->words[i]), &kind);
        named[kind] = true;
        fits[kind] = fits[kind] || good;
    }
    for (int k = 0; k < KINDS; k++) {
        if (named[k] && !fits[k])
            return false;
    }
    return true;
}

void filter_apply(const struct ports_filter *f, struct port_table *t)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (filter_fits(f, &t->entries[i]))
            t->entries[kept++] = t->entries[i];
    }
    t->count = kept;
}
