/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table itself: its growth, and the names of its values in every output.
 */
#include "ports/port.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const protocols[PORT_PROTOCOLS] = {"tcp", "udp", "udplite", "sctp", "dccp"};
static const char *const families[] = {"ip4", "ip6", "dual"};
static const char *const reaches[] = {"unknown", "nobody", "namespace", "device", "network", "world"};
static const char *const severities[] = {"info", "warning", "error"};

enum { SENTENCE_MAX = 512, STEP = 64 };

const char *port_protocol_name(enum port_protocol p)
{
    return protocols[p];
}

const char *port_family_name(enum port_family f)
{
    return families[f];
}

const char *port_reach_name(enum port_reach r)
{
    return reaches[r];
}

const char *severity_name(enum severity s)
{
    return severities[s];
}

static bool find_name(struct slice text, const char *const *names, unsigned count, unsigned *found)
{
    for (*found = 0; *found < count; ++*found) {
        if (slice_eq(text, slice_from(names[*found])))
            return true;
    }
    return false;
}

bool port_protocol_parse(struct slice text, enum port_protocol *out)
{
    unsigned found;
    bool known = find_name(text, protocols, PORT_PROTOCOLS, &found);
    *out = known ? (enum port_protocol)found : PORT_TCP;
    return known;
}

bool severity_parse(struct slice text, enum severity *out)
{
    unsigned found;
    bool known = find_name(text, severities, 3, &found);
    *out = known ? (enum severity)found : SEVERITY_INFO;
    return known;
}

void table_unseen(struct port_table *t, const char *format, ...)
{
    char text[SENTENCE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (size_t i = 0; i < t->unseen_count; i++) {
        if (slice_eq(t->unseen[i], slice_from(text)))
            return;
    }
    if (t->unseen_count % STEP == 0) {
        struct slice *more = ARENA_ARRAY(t->arena, struct slice, t->unseen_count + STEP);
        if (t->unseen_count > 0)
            memcpy(more, t->unseen, t->unseen_count * sizeof *more);
        t->unseen = more;
    }
    t->unseen[t->unseen_count++] = arena_copy(t->arena, slice_from(text));
}

void table_reserve(struct port_table *t, size_t more)
{
    if (t->cap - t->count >= more)
        return;
    struct port_entry *moved = ARENA_ARRAY(t->arena, struct port_entry, t->count + more);
    if (t->count > 0)
        memcpy(moved, t->entries, t->count * sizeof *moved);
    t->entries = moved;
    t->cap = t->count + more;
}

struct port_entry *table_add(struct port_table *t)
{
    if (t->count == t->cap)
        table_reserve(t, t->count + STEP);
    return &t->entries[t->count++];
}

void finding_add(struct port_table *t, struct port_entry *e, const char *name, enum severity s,
                 struct slice text, struct slice advice)
{
    struct port_finding *f = ARENA_NEW(t->arena, struct port_finding);
    struct port_finding **last = &e->findings;
    *f = (struct port_finding){name, s, text, advice, NULL};
    while (*last != NULL)
        last = &(*last)->next;
    *last = f;
}
