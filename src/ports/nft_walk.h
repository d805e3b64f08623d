/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which sources get a first packet through a ruleset: not one packet is walked, but all sources at
 * once, as a set that conditions cut in two.
 */
#pragma once

#include "ports/nft_ruleset.h"

enum { NFT_TO_MAX = 64 };

/* A rule that decided something for some sources; `rule` NULL: the chain's policy. */
struct nft_step {
    const struct nft_chain *chain;
    const struct nft_rule *rule;
    struct nft_verdict verdict;
    bool moved;   /* its destination was changed: to `to`, `to_port` */
    const struct nft_statement *statement;
    bool certain;
    struct slice what; /* not certain: what was not followed */
    struct ranges from;
};

struct nft_packet {
    bool six;
    const char *l4; /* "tcp" */
    unsigned l4_number;
    uint16_t port;
    struct slice iif;
    unsigned iif_index;
    bool bridge;              /* it comes in by a bridge */
    struct ranges from;       /* the sources that are asked about, of its family */
    const struct ip_address *to; /* at most NFT_TO_MAX */
    size_t to_count;
    /* Where a packet goes whose destination was changed: true: here; else the interface's name. */
    bool (*goes_here)(void *, const struct ip_address *, struct slice *oif);
    /* May be NULL. */
    void (*trace)(void *, const struct nft_step *);
    void *context;
};

struct nft_outcome {
    struct ranges sure;    /* get through to the port, at one of the addresses at least */
    struct ranges unsure;  /* some more that may */
    struct slice why;      /* of unsure: "table inet filter" */
    struct ranges carried; /* of sure and unsure: handed on to another address (a container) */
};

/* `wanted`: the port on which the socket listens, which a rule may have changed `port` to. */
void nft_walk(const struct nft_ruleset *, const struct nft_packet *, uint16_t wanted, struct arena *,
              struct nft_outcome *);
