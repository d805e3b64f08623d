/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transaction comes as a message for each change and then one of the new generation: only behind
 * that it is said, since our own scripts delete the table and make it anew. Where messages were lost,
 * it may be gone: who is told looks.
 */
#include "ports/nft_events.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DESTROY_TABLE = 26 }; /* NFT_MSG_DESTROYTABLE, which older headers do not have */

int nft_events_open(void)
{
    struct sockaddr_nl all = {.nl_family = AF_NETLINK, .nl_groups = 1U << (NFNLGRP_NFTABLES - 1)};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&all, sizeof all) != 0) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

static bool attribute_is(struct slice attributes, uint16_t type, const char *wanted)
{
    while (attributes.len >= sizeof(struct nlattr)) {
        struct nlattr a;
        memcpy(&a, attributes.ptr, sizeof a);
        if (a.nla_len < sizeof a || a.nla_len > attributes.len)
            return false;
        struct slice value = slice_of(attributes.ptr + sizeof a, a.nla_len - sizeof a);
        if ((a.nla_type & NLA_TYPE_MASK) == type)
            return slice_is(slice_take(value, slice_find(value, '\0')), wanted);
        attributes = slice_skip(attributes, NLA_ALIGN(a.nla_len));
    }
    return false;
}

/* NFTA_TABLE_NAME and NFTA_CHAIN_TABLE are one number. */
static bool is_ours(struct slice body)
{
    size_t head = NLMSG_ALIGN(sizeof(struct nfgenmsg));
    return body.len >= head && body.ptr[0] == NFPROTO_INET &&
           attribute_is(slice_skip(body, head), NFTA_TABLE_NAME, "portico");
}

static bool take(unsigned type, struct slice body, struct nft_events *e)
{
    struct slice attributes = slice_skip(body, NLMSG_ALIGN(sizeof(struct nfgenmsg)));
    if (type == NFT_MSG_NEWGEN) {
        bool lost = e->gone && !e->unapplied;
        *e = (struct nft_events){0};
        return lost;
    }
    if (type == NFT_MSG_NEWTABLE && is_ours(body))
        *e = (struct nft_events){0};
    else if (type == NFT_MSG_NEWCHAIN && is_ours(body))
        e->unapplied |= attribute_is(attributes, NFTA_CHAIN_NAME, NFT_UNAPPLIED);
    else if ((type == NFT_MSG_DELTABLE || type == DESTROY_TABLE) && is_ours(body))
        e->gone = true;
    return false;
}

bool nft_events_parse(struct slice bytes, struct nft_events *e)
{
    bool lost = false;
    while (bytes.len >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr h;
        memcpy(&h, bytes.ptr, sizeof h);
        if (h.nlmsg_len < sizeof h || h.nlmsg_len > bytes.len)
            return lost;
        struct slice body = slice_of(bytes.ptr + sizeof h, h.nlmsg_len - sizeof h);
        if (h.nlmsg_type >> 8 == NFNL_SUBSYS_NFTABLES && body.len >= sizeof(struct nfgenmsg))
            lost |= take(h.nlmsg_type & 0xff, body, e);
        bytes = slice_skip(bytes, NLMSG_ALIGN(h.nlmsg_len));
    }
    return lost;
}

bool nft_events_read(int fd, struct nft_events *e)
{
    static char bytes[65536];
    struct sockaddr_nl from = {0};
    socklen_t size = sizeof from;
    ssize_t n = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &size);
    if (n < 0)
        return errno == ENOBUFS;
    return from.nl_pid == 0 && nft_events_parse(slice_of(bytes, (size_t)n), e);
}
