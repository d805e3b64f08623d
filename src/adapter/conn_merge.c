/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection policies melt together: equal ones, neighbours that differ in their names only, and those
 * that match the same. Which of two goes into the other depends on the order, and is what it would be if
 * each were compared with each other one, from the front, over and over. Of ten thousand sites with a
 * certificate each none melts, so a policy is compared with its neighbour and with those of the same
 * hash of what they match; no others can be meant.
 */
#include "adapter/conn_policy.h"

#include <stdlib.h>

#include "base/hash.h"
#include "base/map.h"

struct item { /* a policy that has not gone */
    json_t *policy;
    struct item *before, *next; /* in the list */
    struct item *same;          /* the next one with this hash */
    size_t place;               /* in the list, when it began */
    uint64_t hash;              /* of what it matches */
    bool own_names;             /* the list of names is nobody else's: it may grow */
};

struct merging {
    struct adapt *a;
    struct item *first, *last;
    struct map by_hash; /* struct item, the head of those with one hash */
};

/* --- two policies --- */

static bool same(const json_t *x, const json_t *y)
{
    return x == y || (x != NULL && y != NULL && json_equal(x, y));
}

static bool same_settings(struct adapt *a, json_t *x, json_t *y)
{
    json_t *p = keep(a, json_copy(x)), *q = keep(a, json_copy(y));
    json_object_del(p, "match");
    json_object_del(q, "match");
    return json_equal(p, q);
}

/* Their names, where those are all that it matches. */
static json_t *only_sni(const json_t *policy)
{
    json_t *match = json_object_get(policy, "match");
    return json_object_size(match) == 1 ? json_object_get(match, "sni") : NULL;
}

static const struct {
    const char *key, *name;
} merged[] = {
    {"alpn", "ALPN"},
    {"cipher_suites", "cipher suites"},
    {"client_authentication", "client auth configuration"},
    {"curves", "curves"},
    {"default_sni", "default SNI"},
    {"fallback_sni", "fallback SNI"},
    {"protocol_min", "min protocol"},
    {"protocol_max", "max protocol"},
};

static char *dumped(struct adapt *a, const json_t *j)
{
    char *text = json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT);
    char *copy = arena_str(a->arena, slice_from(text));
    free(text);
    return copy;
}

/* The tags of certificates join; all else about their choice must be equal. */
static enum err merge_selection(struct adapt *a, json_t *x, const json_t *y)
{
    json_t *p = json_object_get(x, "certificate_selection");
    json_t *q = json_object_get(y, "certificate_selection");
    if (p == NULL && q != NULL)
        j_set(a, x, "certificate_selection", q);
    if (p == NULL || q == NULL)
        return OK;
    json_t *tags = keep(a, json_copy(json_object_get(p, "any_tag")));
    for (size_t i = 0; i < json_array_size(json_object_get(q, "any_tag")); i++) {
        json_t *tag = json_array_get(json_object_get(q, "any_tag"), i);
        bool known = false;
        for (size_t k = 0; k < json_array_size(tags); k++)
            known = known || json_equal(json_array_get(tags, k), tag);
        if (!known)
            j_append(tags, tag);
    }
    json_t *both = keep(a, json_copy(p));
    j_set(a, both, "any_tag", tags);
    j_set(a, x, "certificate_selection", both);
    return OK;
}

/* Two policies with the same matcher become one, or contradict each other. */
static enum err merge(struct adapt *a, json_t *x, const json_t *y)
{
    for (size_t i = 0; i < sizeof merged / sizeof *merged; i++) {
        json_t *p = json_object_get(x, merged[i].key), *q = json_object_get(y, merged[i].key);
        if (p != NULL && q != NULL && !json_equal(p, q))
            return diag_fail(a->diag,
                             "two policies with same match criteria have conflicting %s: %s vs. %s",
                             merged[i].name, dumped(a, p), dumped(a, q));
    }
    for (size_t i = 0; i < sizeof merged / sizeof *merged; i++) {
        json_t *q = json_object_get(y, merged[i].key);
        if (json_object_get(x, merged[i].key) == NULL && q != NULL)
            j_set(a, x, merged[i].key, q);
    }
    return merge_selection(a, x, y);
}


/* --- the list --- */

static struct slice key_of(const struct item *x)
{
    return slice_of((const char *)&x->hash, sizeof x->hash);
}

static uint64_t add_names(uint64_t hash, const json_t *names)
{
    for (size_t i = 0; i < json_array_size(names); i++) {
        const json_t *name = json_array_get(names, i);
        hash = hash * 0x9e3779b97f4a7c15U + hash_bytes(slice_of(json_string_value(name),
                                                               json_string_length(name)));
    }
    return hash;
}

static uint64_t hash_of(const json_t *policy)
{
    const json_t *match = json_object_get(policy, "match"), *names = only_sni(policy);
    if (names != NULL || match == NULL)
        return add_names(0, names);
    char *text = json_dumps(match, JSON_COMPACT | JSON_SORT_KEYS);
    uint64_t hash = hash_bytes(slice_from(text));
    free(text);
    return hash;
}

/* The map's key is the head's hash: a head that goes takes its entry along. */
static void put_head(struct merging *m, struct item *was, struct item *is)
{
    if (was != NULL)
        map_remove(&m->by_hash, key_of(was));
    if (is != NULL)
        map_put(&m->by_hash, key_of(is), is);
}

static void enter(struct merging *m, struct item *x)
{
    struct item *head = map_get(&m->by_hash, key_of(x));
    x->same = head;
    put_head(m, head, x);
}

static void leave(struct merging *m, struct item *x)
{
    struct item *head = map_get(&m->by_hash, key_of(x));
    if (head == x) {
        put_head(m, x, x->same);
        return;
    }
    while (head->same != x)
        head = head->same;
    head->same = x->same;
}

static void append(struct merging *m, json_t *policy, size_t place)
{
    struct item *x = ARENA_NEW(m->a->arena, struct item);
    *x = (struct item){.policy = policy, .before = m->last, .place = place,
                       .hash = hash_of(policy)};
    *(m->last != NULL ? &m->last->next : &m->first) = x;
    m->last = x;
    enter(m, x);
}

static void take_out(struct merging *m, struct item *x)
{
    leave(m, x);
    *(x->before != NULL ? &x->before->next : &m->first) = x->next;
    *(x->next != NULL ? &x->next->before : &m->last) = x->before;
}

/* The foremost that matches what x does. */
static struct item *find_same(const struct merging *m, const struct item *x)
{
    struct item *found = NULL;
    const json_t *match = json_object_get(x->policy, "match");
    for (struct item *y = map_get(&m->by_hash, key_of(x)); y != NULL; y = y->same)
        if (y != x && (found == NULL || y->place < found->place) &&
            same(match, json_object_get(y->policy, "match")))
            found = y;
    return found;
}

static bool joins(struct adapt *a, const struct item *x, const struct item *y)
{
    return only_sni(x->policy) != NULL && only_sni(y->policy) != NULL &&
           same_settings(a, x->policy, y->policy);
}

static void join(struct merging *m, struct item *x, const struct item *y)
{
    const json_t *more = only_sni(y->policy);
    leave(m, x);
    if (!x->own_names) {
        json_t *names = keep(m->a, json_copy(only_sni(x->policy))), *match = j_object(m->a);
        j_set(m->a, match, "sni", names);
        j_set(m->a, x->policy, "match", match);
        x->own_names = true;
    }
    json_array_extend(only_sni(x->policy), (json_t *)(uintptr_t)more);
    x->hash = add_names(x->hash, more);
    enter(m, x);
}

/* One policy that goes into x; NULL: there is none any more. */
static enum err absorb(struct merging *m, struct item *x, struct item **gone)
{
    struct item *y = find_same(m, x), *next = x->next;
    bool equal = y != NULL && json_equal(x->policy, y->policy);
    if (next != NULL && (y == NULL || next->place < y->place || (y == next && !equal)) &&
        joins(m->a, x, next)) {
        join(m, x, next);
        *gone = next;
        return OK;
    }
    *gone = y;
    return y == NULL || equal ? OK : merge(m->a, x->policy, y->policy);
}

enum err conn_policies_merge(struct adapt *a, struct conn_policies *c)
{
    struct merging m = {.a = a};
    enum err e = OK;
    size_t count = json_array_size(c->list), place = 0;
    map_init(&m.by_hash, false);
    for (int pass = 0; pass < 2; pass++) /* what matches all comes last */
        for (size_t i = 0; i < count; i++) {
            json_t *policy = json_array_get(c->list, i);
            if ((json_object_get(policy, "match") == NULL) == (pass == 1))
                append(&m, keep(a, json_copy(policy)), place++);
        }
    for (struct item *x = m.first, *gone; x != NULL && e == OK;) {
        e = absorb(&m, x, &gone);
        bool again = gone != NULL && gone->place > x->place;
        if (gone != NULL)
            take_out(&m, gone);
        x = again ? x : x->next;
    }
    map_deinit(&m.by_hash);
    c->list = j_array(a);
    for (struct item *x = m.first; x != NULL; x = x->next)
        j_append(c->list, j_ordered(a, x->policy, conn_policy_keys));
    return e;
}
