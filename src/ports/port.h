/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger's vocabulary: what a port of this machine is, and the table of all of them. The parts
 * fill it one after the other: sockets.c (what is bound), owners.c (whose), iana.c (what the number
 * is for), declared.c (what the configuration says), reach.c (who can get there), findings.c (what
 * is wrong). Writers (port_text.c, port_json.c, port_csv.c, port_sarif.c) only read it.
 * `ledger_read` (ledger.h) does all of it in order.
 */
#pragma once

#include <sys/types.h>

#include "base/arena.h"
#include "net/ip_set.h"

enum port_protocol { PORT_TCP, PORT_UDP, PORT_UDPLITE, PORT_SCTP, PORT_DCCP, PORT_PROTOCOLS };
enum port_family { PORT_IP4, PORT_IP6, PORT_DUAL }; /* dual: [::] without IPV6_V6ONLY */

/* Who can reach it, least first. */
enum port_reach {
    REACH_UNKNOWN,   /* rules could not be followed: reach_why says which */
    REACH_NOBODY,
    REACH_NAMESPACE, /* only programs of a network namespace that is not the machine's own */
    REACH_DEVICE,    /* only programs of this machine */
    REACH_NETWORK,   /* the prefixes of reach_from */
    REACH_WORLD,
};

enum iana_class { IANA_SYSTEM, IANA_USER, IANA_DYNAMIC }; /* 0–1023, 1024–49151, 49152–65535 */
enum severity { SEVERITY_INFO, SEVERITY_WARNING, SEVERITY_ERROR };

struct port_owner {
    pid_t pid;             /* in our pid namespace; 0: unknown */
    struct slice program;  /* the executable's last part, or comm; empty: not to be seen */
    uid_t uid;
    struct slice user;     /* its name, or the number as text */
    struct slice unit;     /* systemd unit: "nginx.service"; or empty */
    struct slice container; /* name by its runtime's labels, else short id; or empty */
    struct slice service;  /* portico's service; or empty */
    uint16_t inner_port;   /* of one that publishes a port: the container's own; 0: not known */
    struct port_owner *next;
};

enum declared_by { DECLARED_SITE, DECLARED_SERVICE, DECLARED_PORTS, DECLARED_UPSTREAM, DECLARED_ADMIN };

/* What the configuration says of a port. An upstream is a use, not a listener. */
struct port_declaration {
    enum declared_by by;
    enum port_protocol protocol;
    bool any_protocol;          /* of the ports app without tcp or udp: both */
    uint16_t first, last;       /* ports */
    struct slice host;          /* the address as written; empty: all */
    struct slice name;          /* "example.com", "simon", "ssh" */
    struct slice file;          /* empty: not known */
    uint32_t line;
    bool plain;                 /* a site on HTTP's port that answers more than a redirect */
    bool used;                  /* a service to which a site hands requests */
    bool on_demand;             /* a service that starts when it is asked */
    struct slice trouble;       /* of a service: why no replica answers; empty: it does, or is not known */
    enum port_reach reach;      /* wanted; REACH_UNKNOWN: nothing was said */
    const struct ip_range *from; /* of REACH_NETWORK (or more than the device) */
    size_t from_count;
};

struct port_finding {
    const char *name; /* "open-to-world"; findings.c has the list, docs/ports.md explains each */
    enum severity severity;
    struct slice text, advice; /* a sentence each */
    struct port_finding *next;
};

/* A row: a bound or listening socket address, all sockets of the same address, port and namespace
 * (SO_REUSEPORT) in one; or (listening false, inode 0) a declared port on which nobody listens. */
struct port_entry {
    uint16_t port;
    enum port_protocol protocol;
    enum port_family family;
    struct ip_address address;  /* all zero: every address */
    uint32_t scope;             /* interface index of a bound device or a link-local address; 0 */
    uint64_t netns;             /* inode number of its namespace */
    struct slice namespace;     /* "" : the machine's own; else its name, or a container's */
    bool listening;             /* TCP, SCTP, DCCP: in LISTEN; UDP: bound and not connected */
    uint32_t sockets;           /* how many stand in this row */
    uint64_t inode;             /* of the first */
    uid_t uid;                  /* of the socket */
    struct port_owner *owners;
    struct slice iana_name, iana_description; /* empty: not assigned */
    enum iana_class class;
    const struct port_declaration **declared;
    size_t declared_count;
    enum port_reach reach;
    const struct ip_range *reach_from; /* of REACH_NETWORK */
    size_t reach_from_count;
    struct slice reach_why;     /* "filtered by table inet filter": of REACH_UNKNOWN */
    struct port_finding *findings;
    bool is_counted;            /* its port is one that our firewall's table counts */
    uint64_t tried;             /* new connections, let in or not, since its rules are in force */
};

/* What our firewall's table has counted for neighbouring ports of one rule. */
struct port_count {
    char generation; /* of rules: 'a' or 'b' (enforce.h) */
    enum port_protocol protocol;
    uint16_t first, last;
    uint64_t packets, bytes;
};

/* All memory is the arena's. */
struct port_table {
    struct arena *arena;
    struct slice host;          /* the machine's name */
    int64_t time_ns;            /* since 1970 */
    uint64_t netns;             /* the namespace that we call the machine's own */
    struct port_entry *entries; /* sorted: port, protocol, family, address, namespace */
    size_t count, cap;
    struct slice *unseen;       /* sentences: what could not be seen and why; none: complete */
    size_t unseen_count;
    const struct port_declaration *declarations;
    size_t declarations_count;
    const struct port_namespace *namespaces; /* namespaces.h; our own first */
    size_t namespaces_count;
    struct bound_socket *bound; /* bound.h: the sockets behind the rows, by inode */
    size_t bound_count;
    struct port_count *counts; /* none: no ports are kept shut, or the rules cannot be read */
    size_t counts_count;
};

const char *port_protocol_name(enum port_protocol); /* "tcp" */
const char *port_family_name(enum port_family);     /* "ip4", "ip6", "dual" */
const char *port_reach_name(enum port_reach);       /* "world" */
const char *severity_name(enum severity);
bool port_protocol_parse(struct slice, enum port_protocol *);
bool severity_parse(struct slice, enum severity *);

/* Adds a sentence to `unseen`, once. */
void table_unseen(struct port_table *, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Room for so many more entries at once: a table that grows by itself is copied. */
void table_reserve(struct port_table *, size_t more);

/* A new zeroed entry at the end; valid until the next one. */
struct port_entry *table_add(struct port_table *);
void finding_add(struct port_table *, struct port_entry *, const char *name, enum severity,
                 struct slice text, struct slice advice);
