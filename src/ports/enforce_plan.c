/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Declarations become a number per port and protocol, the number of a group: who may come. Of what
 * sites and services say by themselves the widest wins, as one of them needs it; the app "ports" wins
 * over all of them, since it is written to say just that, and of several of its words the narrowest
 * holds. Then runs of one number are intervals.
 */
#include "ports/enforce.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"
#include "ports/ranges.h"

enum { PORTS = 65536, GROUPS_MAX = 4096, NONE = 0 };

struct making {
    struct arena *arena;
    struct enforce_group *groups; /* [0]: nothing was said */
    size_t count;
    struct map numbers;           /* a group's networks → the group */
    uint16_t (*of)[PORTS];        /* [protocol][port] */
    uint16_t *joined; /* of the declaration that is taken, with each group; NONE: not yet */
};

static bool is_loopback(struct slice host)
{
    struct ip_address a;
    if (slice_eq_nocase(host, SLICE("localhost")) || slice_ends(host, SLICE(".localhost")))
        return true;
    if (host.len > 2 && host.ptr[0] == '[')
        host = slice_of(host.ptr + 1, host.len - 2);
    if (!ip_parse(host, &a))
        return false;
    return a.is_six ? memcmp(a.bytes, (const uint8_t[16]){[15] = 1}, 16) == 0 : a.bytes[0] == 127;
}

static enum enforce_verdict verdict_of(const struct port_declaration *d)
{
    if (d->reach == REACH_WORLD)
        return ENFORCE_PASS;
    if (d->from_count > 0)
        return ENFORCE_FROM;
    if (d->reach == REACH_UNKNOWN)
        return is_loopback(d->host) ? ENFORCE_SHUT : ENFORCE_PASS;
    return ENFORCE_SHUT;
}

/* Groups are equal when these bytes are: networks are sorted and joined. A word is no network. */
static struct slice key_of(const struct enforce_group *g)
{
    if (g->verdict == ENFORCE_FROM)
        return slice_of((const char *)g->from, g->from_count * sizeof *g->from);
    return g->verdict == ENFORCE_PASS ? SLICE("pass") : SLICE("shut");
}

/* 0: there are too many. */
static uint16_t group_of(struct making *m, const struct enforce_group *wanted)
{
    struct enforce_group *g = map_get(&m->numbers, key_of(wanted));
    if (g == NULL && m->count < GROUPS_MAX) {
        g = &m->groups[m->count++];
        *g = *wanted;
        map_put(&m->numbers, key_of(g), g);
    }
    return g != NULL ? (uint16_t)(g - m->groups) : NONE;
}

/* Both words hold: what the one and the other let in. */
static uint16_t narrower(struct making *m, uint16_t a, uint16_t b)
{
    const struct enforce_group *x = &m->groups[a], *y = &m->groups[b];
    if (a == NONE || a == b || x->verdict == ENFORCE_PASS)
        return b;
    if (x->verdict == ENFORCE_SHUT || y->verdict == ENFORCE_PASS)
        return a;
    if (y->verdict == ENFORCE_SHUT)
        return b;
    struct ranges both = ranges_and(m->arena, (struct ranges){x->from, x->from_count},
                                    (struct ranges){y->from, y->from_count});
    struct enforce_group g = {both.count > 0 ? ENFORCE_FROM : ENFORCE_SHUT, both.items, both.count};
    return group_of(m, &g);
}

/* Whom the one or the other lets in. */
static uint16_t wider(struct making *m, uint16_t a, uint16_t b)
{
    const struct enforce_group *x = &m->groups[a], *y = &m->groups[b];
    if (a == NONE || a == b || x->verdict == ENFORCE_SHUT || y->verdict == ENFORCE_PASS)
        return b;
    if (x->verdict == ENFORCE_PASS || y->verdict == ENFORCE_SHUT)
        return a;
    struct ranges any = ranges_or(m->arena, (struct ranges){x->from, x->from_count},
                                  (struct ranges){y->from, y->from_count});
    return group_of(m, &(struct enforce_group){ENFORCE_FROM, any.items, any.count});
}

/* Many ports have the same group: what it becomes is worked out once. */
static bool put(struct making *m, uint16_t *at, uint16_t number,
                uint16_t (*join)(struct making *, uint16_t, uint16_t))
{
    uint16_t *becomes = &m->joined[*at];
    if (*becomes == NONE)
        *becomes = join(m, *at, number);
    *at = *becomes;
    return *at != NONE; /* without a group a port would stand open */
}

static bool take(struct making *m, const struct port_declaration *d,
                 uint16_t (*join)(struct making *, uint16_t, uint16_t))
{
    struct ranges from = ranges_of(m->arena, d->from, d->from_count);
    struct enforce_group g = {.verdict = verdict_of(d)};
    if (g.verdict == ENFORCE_FROM) {
        g.from = from.items;
        g.from_count = from.count;
    }
    uint16_t number = group_of(m, &g);
    bool good = number != NONE;
    memset(m->joined, 0, GROUPS_MAX * sizeof *m->joined);
    for (unsigned p = 0; p < PORT_PROTOCOLS && good; p++) {
        if (d->any_protocol ? p > PORT_UDP : p != d->protocol)
            continue;
        for (uint32_t port = d->first; port <= d->last && good; port++)
            good = put(m, &m->of[p][port], number, join);
    }
    return good;
}

/* Ports that the app names are forgotten first, so that several of its words still narrow each other. */
static void clear(struct making *m, const struct port_declaration *d)
{
    for (unsigned p = 0; p < PORT_PROTOCOLS; p++) {
        if (d->any_protocol ? p > PORT_UDP : p != d->protocol)
            continue;
        for (uint32_t port = d->first; port <= d->last; port++)
            m->of[p][port] = NONE;
    }
}

static bool take_all(struct making *m, const struct enforce_rules *r)
{
    bool good = true;
    for (size_t i = 0; i < r->count; i++) {
        const struct port_declaration *d = &r->items[i];
        if (d->by != DECLARED_UPSTREAM && d->by != DECLARED_PORTS)
            good = take(m, d, wider) && good;
    }
    for (size_t i = 0; i < r->count; i++) {
        if (r->items[i].by == DECLARED_PORTS && r->items[i].reach != REACH_UNKNOWN)
            clear(m, &r->items[i]);
    }
    for (size_t i = 0; i < r->count; i++) {
        if (r->items[i].by == DECLARED_PORTS && r->items[i].reach != REACH_UNKNOWN)
            good = take(m, &r->items[i], narrower) && good;
    }
    return good;
}

static void runs(struct making *m, unsigned p, struct enforce_plan *plan)
{
    size_t count = 0;
    const uint16_t *of = m->of[p];
    for (uint32_t i = 0; i < PORTS; i++)
        count += of[i] != NONE && (i == 0 || of[i - 1] != of[i]);
    struct enforce_interval *out = ARENA_ARRAY(m->arena, struct enforce_interval, count + 1);
    size_t n = 0;
    for (uint32_t i = 0; i < PORTS; i++) {
        if (of[i] == NONE)
            continue;
        if (i == 0 || of[i - 1] != of[i])
            out[n++] = (struct enforce_interval){(uint16_t)i, (uint16_t)i, of[i]};
        out[n - 1].last = (uint16_t)i;
    }
    plan->intervals[p] = out;
    plan->intervals_count[p] = n;
}

/* Counted, then dealt out: the order of ports stays within a group. */
static void sort_by_group(struct making *m, unsigned p, struct enforce_plan *plan)
{
    size_t count = plan->intervals_count[p];
    struct enforce_interval *out = ARENA_ARRAY(m->arena, struct enforce_interval, count + 1);
    uint32_t *starts = ARENA_ARRAY(m->arena, uint32_t, m->count + 2); /* one further on, for now */
    memset(starts, 0, (m->count + 2) * sizeof *starts);
    for (size_t i = 0; i < count; i++)
        starts[plan->intervals[p][i].group + 2]++;
    for (size_t g = 2; g < m->count + 2; g++)
        starts[g] += starts[g - 1];
    for (size_t i = 0; i < count; i++)
        out[starts[plan->intervals[p][i].group + 1]++] = plan->intervals[p][i];
    plan->by_group[p] = out;
    plan->group_starts[p] = starts;
}

enum err enforce_plan_make(const struct enforce_rules *r, struct arena *arena, struct enforce_plan *plan,
                           char *error, size_t cap)
{
    struct making m = {.arena = arena, .count = 1};
    map_init(&m.numbers, false);
    m.of = mem_zalloc(sizeof *m.of * PORT_PROTOCOLS);
    m.joined = mem_alloc(GROUPS_MAX * sizeof *m.joined);
    m.groups = ARENA_ARRAY(arena, struct enforce_group, GROUPS_MAX);
    *plan = (struct enforce_plan){.others = ENFORCE_PASS};
    bool good = take_all(&m, r);
    for (unsigned p = 0; p < PORT_PROTOCOLS; p++) {
        runs(&m, p, plan);
        sort_by_group(&m, p, plan);
    }
    map_deinit(&m.numbers);
    mem_free(m.joined);
    mem_free(m.of);
    plan->groups = m.groups;
    plan->groups_count = m.count;
    if (r->others == REACH_DEVICE || r->others == REACH_NOBODY || r->others == REACH_NAMESPACE)
        plan->others = ENFORCE_SHUT;
    if (!good)
        snprintf(error, cap, "the declarations name more than %d different sets of networks",
                 GROUPS_MAX - 1);
    return good ? OK : ERR_LIMIT;
}

static const struct enforce_interval *find(const struct enforce_plan *plan, enum port_protocol p,
                                           uint16_t port)
{
    size_t low = 0, high = plan->intervals_count[p];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (plan->intervals[p][middle].last < port)
            low = middle + 1;
        else
            high = middle;
    }
    bool in = low < plan->intervals_count[p] && plan->intervals[p][low].first <= port;
    return in ? &plan->intervals[p][low] : NULL;
}

bool enforce_allows(const struct enforce_plan *plan, enum port_protocol p, uint16_t port,
                    const struct ip_address *from)
{
    const struct enforce_interval *i = find(plan, p, port);
    if (i == NULL)
        return plan->others == ENFORCE_PASS;
    const struct enforce_group *g = &plan->groups[i->group];
    struct ip_set set = {(struct ip_range *)(uintptr_t)g->from, g->from_count};
    return g->verdict == ENFORCE_PASS || (g->verdict == ENFORCE_FROM && ip_set_has(&set, from));
}
