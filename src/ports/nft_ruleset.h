/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's nftables ruleset as `nft -j list ruleset` tells it, made ready to be walked: tables
 * and chains by name, rules as statements, conditions as fields with the values that they take. What
 * is not understood stays in its place as a statement of kind NFT_MAYBE, with its name.
 */
#pragma once

#include <jansson.h>

#include "base/map.h"
#include "ports/ranges.h"

/* What a condition looks at. */
enum nft_field {
    NFT_SADDR,
    NFT_DADDR,
    NFT_DPORT,
    NFT_L4PROTO,
    NFT_NFPROTO,
    NFT_PROTOCOL, /* meta protocol: ip, ip6 */
    NFT_IIF,
    NFT_OIF,
    NFT_CT_STATE,
    NFT_CT_DIRECTION,
    NFT_CT_STATUS, /* "dnat", or nothing */
    NFT_PKTTYPE,
    NFT_TCP_FLAGS,
    NFT_FIB_DADDR_TYPE,
    NFT_FIB_SADDR_TYPE,
    NFT_FIB_SADDR_OIF, /* is there a way back by the interface it came in by: a boolean */
    NFT_OTHER,         /* not followed */
    NFT_FIELDS,
};

struct nft_number_range {
    uint64_t first, last;
};

/* Values of one field: it takes any of them. */
struct nft_values {
    bool any;     /* "*" */
    bool strange; /* something among them was not understood */
    struct ranges addresses;
    const struct nft_number_range *numbers;
    size_t numbers_count;
    const struct slice *names; /* "tcp", "eth0", "eth*" */
    size_t names_count;
};

enum nft_verdict_kind {
    NFT_NO_VERDICT, /* continue */
    NFT_ACCEPT,
    NFT_DROP, /* and reject */
    NFT_RETURN,
    NFT_JUMP,
    NFT_GOTO,
    NFT_QUEUE, /* a program decides */
};

struct nft_chain;

struct nft_verdict {
    enum nft_verdict_kind kind;
    bool reject;
    const struct nft_chain *target; /* of jump and goto */
    struct slice target_name;
};

/* A key of a condition or of a map: a value for each of its fields. */
struct nft_key {
    const struct nft_values *values;
    struct nft_verdict verdict; /* of a verdict map */
};

/* A set by name, or one in place. Plain sets of one field have one key with all values. */
struct nft_keys {
    struct nft_key *items;
    size_t count;
    size_t fields;
    bool strange;
};

enum nft_kind {
    NFT_MATCH,   /* goes on only where the fields have one of the keys */
    NFT_VMAP,    /* the verdict of the key */
    NFT_VERDICT,
    NFT_NEVER,   /* does not go on, for a first packet: "limit rate over", "quota over" */
    NFT_MAYBE,   /* may go on or not */
    NFT_PERHAPS, /* may end the packet, or send it elsewhere; or go on */
    NFT_NOTRACK,
    NFT_DNAT,    /* to `address` and `port`; both may be missing */
};

struct nft_statement {
    enum nft_kind kind;
    bool negate;
    bool four, six;           /* the families that the fields imply; both: none */
    struct slice l4;          /* "tcp", "udp", implied by a field; empty: none */
    const enum nft_field *fields;
    size_t fields_count;
    const struct nft_keys *keys;
    struct nft_verdict verdict;
    bool to_self;             /* redirect */
    struct nft_values to;     /* addresses of a dnat */
    uint16_t to_port;         /* 0: as it was */
    bool to_unknown;
    struct slice what;        /* of what is not followed: "xt DNAT", "meta mark" */
};

struct nft_rule {
    uint64_t handle;
    unsigned number; /* from 1, in its chain */
    const struct nft_statement *statements;
    size_t count;
};

struct nft_table {
    struct slice family, name;
};

struct nft_chain {
    const struct nft_table *table;
    struct slice name;
    struct slice hook; /* "input"; empty: not a base chain */
    struct slice type; /* "filter", "nat" */
    struct slice device;
    int64_t priority;
    bool drop; /* policy */
    struct nft_rule *rules;
    size_t count;
};

struct nft_ruleset {
    struct nft_table **tables;
    size_t tables_count;
    struct nft_chain **chains;
    size_t chains_count;
    bool has_dnat; /* some rule sends packets elsewhere */
    /* Sorted numbers at which the meaning of a destination port may change: two ports between two
     * neighbours are treated alike by every rule. */
    const uint32_t *cuts;
    size_t cuts_count;
    struct port_count *counts; /* of our own table */
    size_t counts_count;
};

/* `root` is what nft prints; it may be let go afterwards. A sentence in `error`. */
enum err nft_ruleset_make(struct arena *, const json_t *root, struct nft_ruleset **, char *error,
                          size_t cap);

/* From text: bounded in size and depth before it is parsed. */
enum err nft_ruleset_parse(struct arena *, struct slice text, struct nft_ruleset **, char *error,
                           size_t cap);

/* ---- nft_values.c ---- */

/* A chain of a table, and the sets and maps by "family table name". */
struct nft_names {
    struct arena *arena;
    struct map sets;
    struct map chains;
    struct nft_ruleset *ruleset;
    uint32_t *cuts;
    size_t cuts_count, cuts_room;
};

/* The fields of a condition's left side or a map's key. */
void nft_fields_read(struct nft_names *, const json_t *left, struct nft_statement *);

/* The right side: a value, {"set": […]}, a list, "@name". */
const struct nft_keys *nft_keys_read(struct nft_names *, const struct nft_table *, const json_t *right,
                                     size_t fields, bool verdicts);
struct nft_keys *nft_elements_read(struct nft_names *, const struct nft_table *, const json_t *elements,
                                   size_t fields, bool verdicts);
void nft_values_read(struct nft_names *, const json_t *, struct nft_values *);

/* Finds chains by name; a chain that is not there makes it NFT_QUEUE (unknown). */
bool nft_verdict_read(struct nft_names *, const struct nft_table *, const json_t *,
                      struct nft_verdict *);
struct slice nft_text(const json_t *);
