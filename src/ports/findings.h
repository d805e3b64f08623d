/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is wrong with a table: findings.c has the list of names, docs/ports.md explains each. Pure
 * over the table and some facts of the kernel and of the last look.
 */
#pragma once

#include "ports/port.h"

struct port_interval {
    uint16_t first, last;
};

/* A port as it was at the last look (history.c). */
struct port_memory {
    uint16_t port;
    enum port_protocol protocol;
    struct slice owner; /* memory_owner() */
};

struct port_facts {
    struct port_interval local; /* where outgoing connections take their ports; 0–0: unknown */
    const struct port_interval *reserved; /* which of them the kernel leaves alone */
    size_t reserved_count;
    enum port_reach others;     /* of the policy; REACH_UNKNOWN: nothing was said */
    struct slice own;           /* this program's own name, where it is none of the usual ones */
    bool declares;              /* there is a configuration to judge by */
    const struct port_memory *memory;
    size_t memory_count;
};

/* Reads the kernel's part: /proc/sys/net/ipv4/ip_local_port_range, ip_local_reserved_ports; and
 * /proc/self/exe. */
void port_facts_read(struct port_facts *, struct arena *);

/* Portico itself: by its usual names, or by the one that this program has here. */
bool program_is_own(const struct port_facts *, struct slice program);

/* "80,443,8000-8010" of a list as the kernel writes it; what is no port is left out. Pure. */
size_t port_intervals_parse(struct slice, struct arena *, struct port_interval **);

/* Who has a port, in one text that stays the same when it is started again: "service simon",
 * "unit nginx.service", "nginx (www-data)"; empty: not known. In the arena. */
struct slice memory_owner(const struct port_entry *, struct arena *);

/* Adds the findings to each entry. */
void table_find(struct port_table *, const struct port_facts *);

struct finding_kind {
    const char *name;
    enum severity severity; /* the usual one */
    const char *help;       /* a sentence: what it means */
};
const struct finding_kind *finding_kinds(size_t *count);
