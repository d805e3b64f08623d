/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A datagram holds netlink messages one behind the other, each padded to four bytes: a header with
 * its length, then struct inet_diag_msg, then attributes, likewise padded. Every length is checked
 * against what is left before anything is read, and structures are copied out, since nothing
 * promises their alignment. Two attributes matter: INET_DIAG_SKV6ONLY (does [::] take IPv4 too?) and
 * INET_DIAG_LOCALS (the addresses of an SCTP endpoint, which may have many).
 */
#include "ports/sock_diag.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>


struct message {
    struct nlmsghdr head;
    struct slice body; /* behind the header */
};

struct attributes {
    bool v6only;
    struct slice locals; /* an array of struct sockaddr_storage */
};

size_t diag_request(char out[DIAG_REQUEST_MAX], int family, int protocol, uint32_t states,
                    uint32_t sequence)
{
    struct nlmsghdr head = {.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = sequence};
    struct inet_diag_req_v2 request = {
        .sdiag_family = (uint8_t)family,
        .sdiag_protocol = (uint8_t)protocol,
        .idiag_states = states,
    };
    struct inet_diag_req every = {.idiag_states = states};
    bool old = family == AF_UNSPEC;
    size_t len = old ? sizeof every : sizeof request;
    head.nlmsg_type = old ? TCPDIAG_GETSOCK : SOCK_DIAG_BY_FAMILY;
    head.nlmsg_len = (uint32_t)(sizeof head + len);
    memcpy(out, &head, sizeof head);
    memcpy(out + sizeof head, old ? (void *)&every : (void *)&request, len);
    return sizeof head + len;
}

static size_t padded(size_t n)
{
    return (n + 3) & ~(size_t)3;
}

static bool next_message(struct slice *rest, struct message *m)
{
    if (rest->len < sizeof m->head)
        return false;
    memcpy(&m->head, rest->ptr, sizeof m->head);
    if (m->head.nlmsg_len < sizeof m->head || m->head.nlmsg_len > rest->len)
        return false;
    m->body = slice_of(rest->ptr + sizeof m->head, m->head.nlmsg_len - sizeof m->head);
    *rest = slice_skip(*rest, padded(m->head.nlmsg_len));
    return true;
}

static bool read_attributes(struct slice rest, struct attributes *out)
{
    while (rest.len > 0) {
        struct nlattr a;
        if (rest.len < sizeof a)
            return false;
        memcpy(&a, rest.ptr, sizeof a);
        if (a.nla_len < sizeof a || a.nla_len > rest.len)
            return false;
        struct slice value = slice_of(rest.ptr + sizeof a, a.nla_len - sizeof a);
        switch (a.nla_type & NLA_TYPE_MASK) {
        case INET_DIAG_SKV6ONLY:
            out->v6only = value.len > 0 && value.ptr[0] != 0;
            break;
        case INET_DIAG_LOCALS:
            out->locals = value;
            break;
        }
        rest = slice_skip(rest, padded(a.nla_len));
    }
    return true;
}

/* An address of an SCTP endpoint. False: of another family. */
static bool set_local(struct bound_socket *s, const struct sockaddr_storage *local, bool v6only)
{
    const struct sockaddr_in *four = (const void *)local;
    const struct sockaddr_in6 *six = (const void *)local;
    if (local->ss_family == AF_INET)
        bound_set_four(s, (const uint8_t *)&four->sin_addr);
    else if (local->ss_family == AF_INET6)
        bound_set_six(s, six->sin6_addr.s6_addr, v6only);
    return local->ss_family == AF_INET || local->ss_family == AF_INET6;
}

static enum err add_locals(const struct bound_socket *model, const struct attributes *a,
                           struct socket_list *list)
{
    struct sockaddr_storage local;
    for (struct slice rest = a->locals; rest.len >= sizeof local;
         rest = slice_skip(rest, sizeof local)) {
        struct bound_socket one = *model;
        memcpy(&local, rest.ptr, sizeof local);
        if (!set_local(&one, &local, a->v6only))
            continue;
        struct bound_socket *s = socket_list_add(list);
        if (s == NULL)
            return ERR_LIMIT;
        *s = one;
    }
    return OK;
}

static enum err read_socket(struct slice body, enum port_protocol protocol,
                            struct socket_list *list)
{
    struct inet_diag_msg m;
    struct attributes a = {0};
    if (body.len < sizeof m)
        return ERR_INVALID;
    memcpy(&m, body.ptr, sizeof m);
    if (!read_attributes(slice_skip(body, sizeof m), &a))
        return ERR_INVALID;
    if ((m.idiag_family != AF_INET && m.idiag_family != AF_INET6) || m.id.idiag_sport == 0)
        return OK;
    struct bound_socket one = {
        .inode = m.idiag_inode,
        .device = m.id.idiag_if,
        .uid = m.idiag_uid,
        .port = ntohs(m.id.idiag_sport),
        .protocol = (uint8_t)protocol,
        .state = m.idiag_state,
    };
    if (a.locals.len > 0)
        return add_locals(&one, &a, list);
    if (m.idiag_family == AF_INET)
        bound_set_four(&one, (const uint8_t *)m.id.idiag_src);
    else
        bound_set_six(&one, (const uint8_t *)m.id.idiag_src, a.v6only);
    struct bound_socket *s = socket_list_add(list);
    if (s == NULL)
        return ERR_LIMIT;
    *s = one;
    return OK;
}

/* NLMSG_ERROR and NLMSG_DONE begin with a negative errno, or 0. */
static void read_status(struct slice body, struct diag_reply *r)
{
    int32_t code = 0;
    if (body.len >= sizeof code)
        memcpy(&code, body.ptr, sizeof code);
    r->done = true;
    if (code < 0 && code > -4096)
        r->error = -code;
}

enum err diag_parse(struct slice rest, struct diag_reply *r, struct socket_list *list)
{
    while (rest.len > 0 && !r->done) {
        struct message m;
        if (!next_message(&rest, &m))
            return ERR_INVALID;
        if (m.head.nlmsg_seq != r->sequence)
            continue;
        if (m.head.nlmsg_flags & NLM_F_DUMP_INTR)
            r->torn = true;
        if (m.head.nlmsg_type == SOCK_DIAG_BY_FAMILY || m.head.nlmsg_type == TCPDIAG_GETSOCK)
            TRY(read_socket(m.body, r->protocol, list));
        else if (m.head.nlmsg_type == NLMSG_DONE || m.head.nlmsg_type == NLMSG_ERROR)
            read_status(m.body, r);
    }
    return OK;
}
