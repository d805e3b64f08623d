/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each name or pattern of a policy stands in a map, with the numbers of all policies that have it, in
 * order. A hello's name can only be meant by itself and by itself with its first labels starred, so few
 * lookups give all policies of its name; together with those without names they are asked in the order
 * of their numbers. Ten thousand sites with a policy each cost a handshake no more than one.
 */
#include "tls/policy_index.h"

#include "base/check.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/text.h"
#include "pki/subject.h"

enum { STARS_MAX = SUBJECT_MAX / 2 + 1 };

struct entry { /* a row of policies */
    const struct tls_policy *policy;
    struct entry *next;
};

struct row {
    struct entry *first, **last;
};

struct policy_index {
    struct arena arena;
    struct map by_name; /* struct row */
    struct row nameless;
    size_t stars; /* that a pattern has, at most */
};

static void add(struct policy_index *x, struct row *r, const struct tls_policy *p)
{
    struct entry *e = ARENA_NEW(&x->arena, struct entry);
    e->policy = p;
    *r->last = e;
    r->last = &e->next;
}

static size_t count_stars(struct slice name)
{
    size_t n = 0;
    while (slice_starts(name, SLICE("*"))) {
        n++;
        name = slice_skip(name, name.len > 1 ? 2 : 1);
    }
    return n < STARS_MAX ? n : STARS_MAX;
}

static void add_name(struct policy_index *x, struct slice name, const struct tls_policy *p)
{
    struct row *r = map_get(&x->by_name, name);
    if (r == NULL) {
        r = ARENA_NEW(&x->arena, struct row);
        r->last = &r->first;
        map_put(&x->by_name, name, r);
    }
    size_t stars = count_stars(name);
    x->stars = stars > x->stars ? stars : x->stars;
    add(x, r, p);
}

struct policy_index *policy_index_create(const struct tls_policy *policies, size_t count)
{
    struct policy_index *x = NEW(struct policy_index);
    arena_init(&x->arena, 4096);
    map_init(&x->by_name, true);
    x->nameless.last = &x->nameless.first;
    for (size_t i = 0; i < count; i++) {
        const struct tls_policy *p = &policies[i];
        if (!p->by_name)
            add(x, &x->nameless, p);
        for (size_t n = 0; n < p->names_count; n++)
            add_name(x, p->names[n], p);
    }
    return x;
}

void policy_index_free(struct policy_index *x)
{
    if (x == NULL)
        return;
    map_deinit(&x->by_name);
    arena_deinit(&x->arena);
    mem_free(x);
}

bool policy_agrees(const struct tls_policy *p, const struct tls_hello *h)
{
    for (size_t i = 0; i < p->matchers_count; i++) {
        if (!p->matchers[i].matches(p->matchers[i].cfg, h))
            return false;
    }
    return true;
}

/* Rows whose next one is to be asked. */
struct places {
    const struct entry *at[STARS_MAX + 2];
    size_t count;
};

static void begin_row(struct places *all, const struct row *r)
{
    if (r != NULL && r->first != NULL)
        all->at[all->count++] = r->first;
}

/* The foremost policy of all rows, which go on behind it. */
static const struct tls_policy *next_policy(struct places *all)
{
    size_t left = 0;
    const struct tls_policy *p = all->at[0]->policy;
    for (size_t i = 1; i < all->count; i++)
        p = all->at[i]->policy < p ? all->at[i]->policy : p;
    for (size_t i = 0; i < all->count; i++) {
        const struct entry *e = all->at[i];
        while (e != NULL && e->policy == p) /* one may name the same twice */
            e = e->next;
        if (e != NULL)
            all->at[left++] = e;
    }
    all->count = left;
    return p;
}

const struct tls_policy *policy_index_find(const struct policy_index *x, const struct tls_hello *h)
{
    char text[SUBJECT_MAX + 1];
    struct slice pattern;
    struct places all = {.count = 0};
    begin_row(&all, &x->nameless);
    if (x->by_name.count > 0)
        begin_row(&all, map_get(&x->by_name, h->server_name));
    for (size_t n = 1; n <= x->stars && subject_wildcard(h->server_name, n, text, &pattern); n++)
        begin_row(&all, map_get(&x->by_name, pattern));
    while (all.count > 0) {
        const struct tls_policy *p = next_policy(&all);
        if (policy_agrees(p, h))
            return p;
    }
    return NULL;
}
