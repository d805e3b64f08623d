/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Declarations meet the table. Only entries of the machine's own namespace are told by them: what a
 * container binds is the container's. A listener's declaration is for the address that it names; one
 * of the app "ports" for every address; an upstream is whatever answers on loopback.
 */
#include <stdlib.h>

#include "ports/declared.h"
#include "ports/iana.h"

bool address_is_any(const struct ip_address *a)
{
    static const uint8_t none[16];
    return memcmp(a->bytes, none, sizeof none) == 0;
}

bool address_is_loopback(const struct ip_address *a)
{
    static const uint8_t six[16] = {[15] = 1};
    static const uint8_t mapped[13] = {[10] = 0xff, [11] = 0xff, [12] = 127};
    if (!a->is_six)
        return a->bytes[0] == 127;
    return memcmp(a->bytes, six, sizeof six) == 0 || memcmp(a->bytes, mapped, sizeof mapped) == 0;
}

/* A listener that names `host` is bound there; a name of another machine's address could be any. */
static bool bound_there(const struct port_declaration *d, const struct port_entry *e)
{
    struct ip_address ip;
    bool any = address_is_any(&e->address);
    if (d->host.len == 0)
        return any;
    if (slice_is(d->host, "localhost"))
        return address_is_loopback(&e->address);
    if (ip_parse(d->host, &ip))
        return memcmp(&ip, &e->address, sizeof ip) == 0;
    return !any;
}

/* Whether a connection to the upstream ends there. */
static bool answers(const struct port_declaration *d, const struct port_entry *e)
{
    struct ip_address ip;
    if (d->host.len == 0 || slice_is(d->host, "localhost"))
        return address_is_any(&e->address) || address_is_loopback(&e->address);
    if (!ip_parse(d->host, &ip))
        return true;
    bool any = address_is_any(&e->address);
    return any ? e->family == PORT_DUAL || ip.is_six == (e->family == PORT_IP6)
               : memcmp(&ip, &e->address, sizeof ip) == 0;
}

static bool owned_by(const struct port_entry *e, struct slice service)
{
    for (const struct port_owner *o = e->owners; o != NULL; o = o->next) {
        if (slice_eq(o->service, service))
            return true;
    }
    return false;
}

static bool fits(const struct port_declaration *d, const struct port_entry *e)
{
    if (d->by == DECLARED_SERVICE && d->first == 0)
        return owned_by(e, d->name) && bound_there(d, e) && e->protocol == d->protocol;
    if (e->port < d->first || e->port > d->last || (!d->any_protocol && e->protocol != d->protocol))
        return false;
    if (d->by == DECLARED_PORTS)
        return true;
    return d->by == DECLARED_UPSTREAM ? answers(d, e) : bound_there(d, e);
}

/* One of which the other keeps a listener away: every address, or the same one. */
static bool in_the_way(const struct port_declaration *d, const struct port_entry *e)
{
    struct ip_address ip;
    bool listener = d->by == DECLARED_SITE || (d->by == DECLARED_SERVICE && d->first != 0);
    if (!listener || e->port < d->first || e->port > d->last || e->protocol != d->protocol)
        return false;
    if (d->host.len == 0 || address_is_any(&e->address))
        return true;
    return ip_parse(d->host, &ip) && memcmp(&ip, &e->address, sizeof ip) == 0;
}

static void add(struct port_table *t, struct port_entry *e, const struct port_declaration *d)
{
    size_t n = e->declared_count;
    if ((n & (n - 1)) == 0) { /* full at each power of two, and when empty */
        const struct port_declaration **more =
            ARENA_ARRAY(t->arena, const struct port_declaration *, n > 0 ? 2 * n : 1);
        if (n > 0)
            memcpy(more, e->declared, n * sizeof *more);
        e->declared = more;
    }
    e->declared[e->declared_count++] = d;
}

/* The first entry with this port or above; entries are sorted by port. */
static size_t first_of(const struct port_table *t, uint16_t port)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->entries[middle].port < port)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

typedef bool does_fit(const struct port_declaration *, const struct port_entry *);

/* Whether an entry of its own stands for it in the table. */
static bool declare(struct port_table *t, const struct port_declaration *d, does_fit *fit)
{
    bool found = false;
    size_t count = t->count;
    uint16_t last = d->first == 0 ? 65535 : d->last;
    for (size_t i = first_of(t, d->first); i < count && t->entries[i].port <= last; i++) {
        struct port_entry *e = &t->entries[i];
        if (e->netns != t->netns || e->inode == 0 || !fit(d, e))
            continue;
        add(t, e, d);
        found = true;
    }
    return found;
}

/* The rows that were added, by their ports: numbers from 1, 0 for none. */
struct missing {
    size_t from;    /* the first such row */
    uint32_t *last; /* [65536]: the newest of the port */
    uint32_t *prev; /* the one before it, of each */
};

static void new_missing(struct port_table *t, struct missing *m, const struct port_entry *fresh,
                        const struct port_declaration *d)
{
    uint32_t number = (uint32_t)(t->count - m->from + 1);
    struct port_entry *e = table_add(t);
    *e = *fresh;
    add(t, e, d);
    m->prev[number] = m->last[e->port];
    m->last[e->port] = number;
}

/* A row for what is declared and not there; those of the same address share one. */
static void add_missing(struct port_table *t, struct missing *m, const struct port_declaration *d)
{
    struct port_entry fresh = {.port = d->first, .netns = t->netns, .reach = REACH_NOBODY,
                               .protocol = d->any_protocol ? PORT_TCP : d->protocol};
    struct slice host = slice_is(d->host, "localhost") ? SLICE("127.0.0.1") : d->host;
    fresh.family = PORT_DUAL;
    fresh.address.is_six = 1;
    if (ip_parse(host, &fresh.address))
        fresh.family = fresh.address.is_six ? PORT_IP6 : PORT_IP4;
    for (uint32_t at = m->last[fresh.port]; at != 0; at = m->prev[at]) {
        struct port_entry *e = &t->entries[m->from + at - 1];
        if (e->protocol == fresh.protocol &&
            memcmp(&e->address, &fresh.address, sizeof fresh.address) == 0) {
            add(t, e, d);
            return;
        }
    }
    new_missing(t, m, &fresh, d);
}

/* A range, or a port that is declared for nobody, need not have a listener, and the admin API has
 * one wherever a server runs at all; one of any protocol has it in either. */
static bool wants_listener(const struct port_declaration *d)
{
    if (d->first == 0 || d->reach == REACH_NOBODY || d->by == DECLARED_ADMIN)
        return false;
    return d->by != DECLARED_PORTS || d->first == d->last;
}

static int by_place(const void *x, const void *y)
{
    const struct port_entry *a = x, *b = y;
    if (a->port != b->port)
        return a->port < b->port ? -1 : 1;
    if (a->protocol != b->protocol)
        return a->protocol < b->protocol ? -1 : 1;
    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    int order = memcmp(&a->address, &b->address, sizeof a->address);
    if (order == 0)
        order = slice_cmp(a->namespace, b->namespace);
    if (order == 0 && a->netns != b->netns)
        order = a->netns < b->netns ? -1 : 1;
    return order != 0 ? order : (a->scope > b->scope) - (a->scope < b->scope);
}

void table_name(struct port_table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        struct port_entry *e = &t->entries[i];
        struct iana_entry known;
        e->class = iana_class_of(e->port);
        if (iana_find(e->port, e->protocol, &known)) {
            e->iana_name = known.name;
            e->iana_description = known.description;
        }
    }
}

static const struct port_declaration *one_of(struct port_table *t, const struct port_declaration *d,
                                             unsigned port)
{
    if (d->first == d->last)
        return d;
    struct port_declaration *one = ARENA_NEW(t->arena, struct port_declaration);
    *one = *d;
    one->first = one->last = (uint16_t)port;
    return one;
}

static void add_all_missing(struct port_table *t, const bool *found)
{
    struct missing m = {.from = t->count};
    size_t total = 1;
    for (size_t i = 0; i < t->declarations_count; i++)
        total += (size_t)(t->declarations[i].last - t->declarations[i].first) + 1;
    m.last = ARENA_ARRAY(t->arena, uint32_t, 65536);
    m.prev = ARENA_ARRAY(t->arena, uint32_t, total + 1);
    for (size_t i = 0; i < t->declarations_count; i++) {
        const struct port_declaration *d = &t->declarations[i];
        for (unsigned p = d->first; p <= d->last && !found[i] && wants_listener(d); p++)
            add_missing(t, &m, one_of(t, d, p));
    }
}

void table_declare(struct port_table *t, const struct port_declaration *list, size_t count)
{
    t->declarations = list;
    t->declarations_count = count;
    if (t->count > 1)
        qsort(t->entries, t->count, sizeof *t->entries, by_place);
    bool *found = ARENA_ARRAY(t->arena, bool, count + 1);
    for (size_t i = 0; i < count; i++)
        found[i] = declare(t, &list[i], fits) || declare(t, &list[i], in_the_way);
    add_all_missing(t, found);
    t->bound = NULL; /* rows move: what pointed to them is over */
    t->bound_count = 0;
    if (t->count > 1)
        qsort(t->entries, t->count, sizeof *t->entries, by_place);
}
