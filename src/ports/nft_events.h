/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel tells of changes to nftables: only whether our own table has been taken away by
 * somebody else, as a `flush ruleset` does. What we take away ourselves gets the chain
 * NFT_UNAPPLIED in the same transaction, by which the two are told apart.
 */
#pragma once

#include "base/slice.h"

#define NFT_UNAPPLIED "unapplied"

struct nft_events {
    bool gone, unapplied; /* in the transaction that is being told */
};

/* A socket that does not block; -1 with errno: EPERM without CAP_NET_ADMIN. */
int nft_events_open(void);

/* What waits there, one message of it. True: our table is, or may be, gone, and shall not be. */
bool nft_events_read(int fd, struct nft_events *);

/* Pure: bytes of netlink messages. */
bool nft_events_parse(struct slice bytes, struct nft_events *);
