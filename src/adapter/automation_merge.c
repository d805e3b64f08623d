/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How thousands of automation policies become few. The outcome is what comparing each with each behind
 * it gives, over and over. Whether one behind covers all names of another, which is what keeps a policy
 * that says nothing alive, is looked up by name: a policy keeps its place while it is asked, and one
 * that has gone leaves a hole there.
 */
#include "adapter/automation_merge.h"

#include "adapter/conn_policy.h"
#include "pki/subject.h"

struct named { /* the place of a policy that has a name */
    size_t place;
    struct named *next;
};

struct merging {
    struct adapt *a;
    struct policy **policies; /* NULL: gone */
    size_t count;
    struct map by_name;  /* struct named, in no order */
    struct named *all;   /* places of policies without names: they cover every one */
    bool wild;           /* some name has a "*" */
};

bool policy_same_issuers(const json_t *x, const json_t *y)
{
    size_t n = json_array_size(x);
    return n == json_array_size(y) && (n == 0 || json_equal(x, y));
}

bool policy_is_public(const struct policy *p, struct slice name)
{
    size_t stars = 0;
    for (size_t i = 0; i + 1 < name.len; i++)
        stars += name.ptr[i] == '*' && name.ptr[i + 1] == '.';
    return !subject_is_ip(name) && !subject_is_internal(name) && (stars < 2 || p->on_demand);
}

/* --- the order --- */

/* Whether all of x's names are covered by y. */
static bool is_subset(const struct policy *x, const struct policy *y, struct arena *arena)
{
    if (y->count == 0)
        return true;
    if (x->count == 0)
        return false;
    for (size_t i = 0; i < x->count; i++) {
        size_t k = 0;
        while (k < y->count && !wildcard_matches(x->subjects[i], y->subjects[k], arena))
            k++;
        if (k == y->count)
            return false;
    }
    return true;
}

static bool more_specific(const void *first, const void *second, const void *context)
{
    const struct policy *x = *(struct policy *const *)first;
    const struct policy *y = *(struct policy *const *)second;
    struct arena *arena = ((const struct adapt *)context)->arena;
    if (is_subset(x, y, arena))
        return true;
    if (is_subset(y, x, arena))
        return false;
    return x->count > y->count;
}

/* --- who covers whom --- */

static void index_name(struct merging *m, struct slice name, size_t place)
{
    struct named *n = ARENA_NEW(m->a->arena, struct named);
    struct named *head = map_get(&m->by_name, name);
    m->wild |= slice_find(name, '*') != SIZE_MAX;
    if (head == NULL) {
        *n = (struct named){place, NULL};
        map_put(&m->by_name, name, n);
    } else {
        *n = (struct named){place, head->next};
        head->next = n;
    }
}

static void index_all(struct merging *m)
{
    for (size_t i = 0; i < m->count; i++) {
        const struct policy *p = m->policies[i];
        for (size_t k = 0; k < p->count; k++)
            index_name(m, p->subjects[k], i);
        if (p->count > 0)
            continue;
        struct named *n = ARENA_NEW(m->a->arena, struct named);
        *n = (struct named){i, m->all};
        m->all = n;
    }
}

/* Those that have the name as it stands (n = 0), or with its first n labels starred. */
static const struct named *who_has(const struct merging *m, struct slice name, size_t n, bool *end)
{
    char text[SUBJECT_MAX + 1];
    struct slice pattern;
    *end = n > 0 && (!m->wild || !subject_wildcard(name, n, text, &pattern));
    return *end ? NULL : map_get(&m->by_name, n == 0 ? name : pattern);
}

static bool covers(const struct merging *m, size_t place, struct slice name)
{
    bool end = false;
    for (size_t n = 0; !end; n++)
        for (const struct named *h = who_has(m, name, n, &end); h != NULL; h = h->next)
            if (h->place == place)
                return true;
    return false;
}

static bool covers_all(const struct merging *m, size_t place, const struct policy *p)
{
    for (size_t k = 1; k < p->count; k++) /* the first name is how it was found */
        if (!covers(m, place, p->subjects[k]))
            return false;
    return true;
}

/* The first policy behind the one at `i` that covers all of its names, or SIZE_MAX. */
static size_t shadowed(const struct merging *m, size_t i)
{
    const struct policy *p = m->policies[i];
    size_t found = SIZE_MAX;
    bool end = p->count == 0;
    for (const struct named *h = m->all; h != NULL; h = h->next)
        if (h->place > i && h->place < found && m->policies[h->place] != NULL &&
            m->policies[h->place]->count == 0)
            found = h->place;
    for (size_t n = 0; !end; n++)
        for (const struct named *h = who_has(m, p->subjects[0], n, &end); h != NULL; h = h->next)
            if (h->place > i && h->place < found && m->policies[h->place] != NULL &&
                covers_all(m, h->place, p))
                found = h->place;
    return found;
}

/* --- those that say nothing --- */

static bool is_empty(const struct policy *p, bool managers_too)
{
    return json_array_size(p->issuers) == 0 && json_array_size(p->finished) == 0 &&
           (!managers_too || json_array_size(p->managers) == 0) && p->key_type.len == 0 &&
           p->ratio == 0 && !p->on_demand && !p->reuse_private_keys && !p->stapling_off;
}

/* Policies that say nothing go, unless they keep names away from one that does. */
static void drop_empty(struct merging *m)
{
    size_t end = m->count; /* behind the last that is there */
    for (size_t i = 0; i < end; i++) {
        if (!is_empty(m->policies[i], true))
            continue;
        size_t k = shadowed(m, i);
        if (i + 1 == end || (k != SIZE_MAX && is_empty(m->policies[k], false)))
            m->policies[i] = NULL;
    }
}

/* --- those that are alike --- */

static enum names names_of(const struct policy *p)
{
    bool outside = false, inside = false;
    for (size_t i = 0; i < p->count; i++)
        *(policy_is_public(p, p->subjects[i]) ? &outside : &inside) = true;
    return p->count == 0 ? NAMES_NONE : outside && inside ? NAMES_MIXED
                                        : outside         ? NAMES_PUBLIC
                                                          : NAMES_INTERNAL;
}

static bool has_issuers(const struct policy *p)
{
    return json_array_size(p->finished) > 0 || json_array_size(p->issuers) > 0;
}

static bool is_default_internal(const struct policy *p)
{
    if (!has_issuers(p))
        return p->names == NAMES_INTERNAL;
    const json_t *only = json_array_get(p->finished, 0);
    const char *module = json_string_value(json_object_get(only, "module"));
    return json_array_size(p->finished) == 1 && json_array_size(p->issuers) == 0 &&
           json_object_size(only) == 1 && module != NULL && strcmp(module, "internal") == 0;
}

static bool like_issuers(const struct policy *x, const struct policy *y)
{
    if (!policy_same_issuers(x->finished, y->finished))
        return is_default_internal(x) && is_default_internal(y);
    if (has_issuers(x) || has_issuers(y))
        return true;
    return x->names == NAMES_NONE || y->names == NAMES_NONE || x->names == y->names;
}

static bool like(const struct policy *x, const struct policy *y)
{
    return like_issuers(x, y) && policy_same_issuers(x->managers, y->managers) &&
           slice_eq(x->key_type, y->key_type) && x->on_demand == y->on_demand &&
           x->reuse_private_keys == y->reuse_private_keys && x->ratio == y->ratio;
}

static bool equal(const struct policy *x, const struct policy *y)
{
    if (x->count != y->count || !policy_same_issuers(x->issuers, y->issuers) ||
        !policy_same_issuers(x->finished, y->finished) || x->stapling_off != y->stapling_off ||
        !like(x, y))
        return false;
    for (size_t i = 0; i < x->count; i++)
        if (!slice_eq(x->subjects[i], y->subjects[i]))
            return false;
    return true;
}

/* What a policy has that others are joined to: tens of thousands of sites may become one. */
struct joined {
    const struct policy *of;
    struct map names;
};

static void begin_joining(struct joined *j, const struct policy *x)
{
    if (j->of == x)
        return;
    map_deinit(&j->names);
    map_init(&j->names, false);
    for (size_t i = 0; i < x->count; i++)
        map_put(&j->names, x->subjects[i], j);
    j->of = x;
}

/* The policy at `i` gets the names of another. */
static void join(struct merging *m, size_t i, const struct policy *y, struct joined *j)
{
    struct policy *x = m->policies[i];
    begin_joining(j, x);
    if (x->count + y->count > x->cap) {
        x->cap = 2 * (x->count + y->count);
        struct slice *all = ARENA_ARRAY(m->a->arena, struct slice, x->cap);
        if (x->count > 0)
            memcpy(all, x->subjects, x->count * sizeof *all);
        x->subjects = all;
    }
    for (size_t k = 0; k < y->count; k++)
        if (map_put(&j->names, y->subjects[k], j) == NULL) {
            index_name(m, y->subjects[k], i);
            x->subjects[x->count++] = y->subjects[k];
        }
    if (x->names == NAMES_NONE)
        x->names = y->names;
    else if (y->names != NAMES_NONE && y->names != x->names)
        x->names = NAMES_MIXED;
}

/* Whether the policy at `i` is to be looked at again: it, or one behind it, has gone. */
static bool combine_with(struct merging *m, size_t i, size_t k, struct joined *j)
{
    struct policy *x = m->policies[i], *y = m->policies[k];
    if (x == y || equal(x, y)) {
        m->policies[k] = NULL;
        return true;
    }
    if (!like(x, y))
        return false;
    if (x->count > 0 && y->count == 0) {
        if (shadowed(m, i) < k)
            return false;
        m->policies[i] = NULL;
        return true;
    }
    join(m, i, y, j);
    m->policies[k] = NULL;
    return false;
}

static void combine(struct merging *m)
{
    struct joined joined = {.of = NULL};
    map_init(&joined.names, false);
    for (size_t i = 0; i < m->count; i++)
        if (m->policies[i] != NULL)
            m->policies[i]->names = names_of(m->policies[i]);
    for (size_t i = 0; i < m->count; i++)
        for (size_t k = i + 1; k < m->count && m->policies[i] != NULL; k++)
            if (m->policies[k] != NULL && combine_with(m, i, k, &joined))
                k = i; /* from the front */
    map_deinit(&joined.names);
}

static bool all_empty(struct policy *const *policies, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!is_empty(policies[i], true))
            return false;
    return true;
}

void policies_merge(struct adapt *a, struct policy **policies, size_t *count)
{
    struct merging m = {.a = a, .policies = policies, .count = *count};
    *count = 0;
    if (all_empty(policies, m.count)) /* as they mostly are, be there tens of thousands of sites */
        return;
    sort_stable(policies, m.count, sizeof *policies, more_specific, a);
    map_init(&m.by_name, true);
    index_all(&m);
    drop_empty(&m);
    combine(&m);
    map_deinit(&m.by_name);
    for (size_t i = 0; i < m.count; i++)
        if (policies[i] != NULL)
            policies[(*count)++] = policies[i];
}
