/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which transactions take our table away for good.
 */
#include "ports/nft_events.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include "base/buffer.h"
#include "base/test.h"

static struct buffer told;

static void put_attribute(uint16_t type, const char *text)
{
    struct nlattr a = {.nla_len = (uint16_t)(sizeof a + strlen(text) + 1), .nla_type = type};
    static const char zero[4];
    buffer_append(&told, slice_of((const char *)&a, sizeof a));
    buffer_append(&told, slice_of(text, strlen(text) + 1));
    buffer_append(&told, slice_of(zero, NLA_ALIGN(a.nla_len) - a.nla_len));
}

static void tell(unsigned type, uint8_t family, const char *table, const char *chain)
{
    size_t at = told.len;
    struct nlmsghdr h = {.nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type)};
    struct nfgenmsg g = {.nfgen_family = family};
    buffer_append(&told, slice_of((const char *)&h, sizeof h));
    buffer_append(&told, slice_of((const char *)&g, sizeof g));
    if (table != NULL)
        put_attribute(NFTA_TABLE_NAME, table);
    if (chain != NULL)
        put_attribute(NFTA_CHAIN_NAME, chain);
    h.nlmsg_len = (uint32_t)(told.len - at);
    memcpy(told.ptr + at, &h, sizeof h);
}

static bool lost(void)
{
    struct nft_events e = {0};
    tell(NFT_MSG_NEWGEN, 0, NULL, NULL);
    bool is = nft_events_parse(buffer_slice(&told), &e);
    CHECK(!e.gone && !e.unapplied);
    for (size_t len = 0; len < told.len; len++) { /* half a message is none */
        struct nft_events half = {0};
        (void)nft_events_parse(slice_of(told.ptr, len), &half);
    }
    buffer_deinit(&told);
    buffer_init(&told, 4096);
    return is;
}

TEST("our table is gone when somebody else deleted it, and not when it is made anew or unapplied")
{
    buffer_init(&told, 4096);
    CHECK(!lost());
    tell(NFT_MSG_DELTABLE, NFPROTO_INET, "portico", NULL);
    CHECK(lost());
    tell(26, NFPROTO_INET, "portico", NULL);
    CHECK(lost());
    tell(NFT_MSG_DELTABLE, NFPROTO_INET, "portico2", NULL);
    tell(NFT_MSG_DELTABLE, NFPROTO_IPV4, "portico", NULL);
    tell(NFT_MSG_NEWTABLE, NFPROTO_INET, "portico", NULL);
    CHECK(!lost());
    tell(NFT_MSG_DELTABLE, NFPROTO_INET, "portico", NULL);
    tell(NFT_MSG_NEWTABLE, NFPROTO_INET, "portico", NULL);
    CHECK(!lost());
    tell(NFT_MSG_NEWTABLE, NFPROTO_INET, "portico", NULL);
    tell(NFT_MSG_DELTABLE, NFPROTO_INET, "portico", NULL);
    CHECK(lost());
    tell(NFT_MSG_NEWCHAIN, NFPROTO_INET, "portico", NFT_UNAPPLIED);
    tell(NFT_MSG_DELTABLE, NFPROTO_INET, "portico", NULL);
    CHECK(!lost());
    tell(NFT_MSG_NEWCHAIN, NFPROTO_INET, "other", NFT_UNAPPLIED);
    tell(NFT_MSG_DELTABLE, NFPROTO_INET, "portico", NULL);
    CHECK(lost());
    buffer_deinit(&told);
}
