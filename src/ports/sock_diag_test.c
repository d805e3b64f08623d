/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of the socket diagnostics, whole and broken.
 */
#include "ports/sock_diag.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>

#include "base/test.h"

struct bytes {
    char data[4096];
    size_t len;
};

static void put(struct bytes *b, const void *from, size_t len)
{
    memcpy(b->data + b->len, from, len);
    b->len += len;
    while (b->len % 4 != 0)
        b->data[b->len++] = 0;
}

static size_t begin(struct bytes *b, uint16_t type, uint32_t sequence)
{
    struct nlmsghdr head = {.nlmsg_type = type, .nlmsg_seq = sequence, .nlmsg_flags = NLM_F_MULTI};
    size_t at = b->len;
    put(b, &head, sizeof head);
    return at;
}

static void end(struct bytes *b, size_t at)
{
    uint32_t len = (uint32_t)(b->len - at);
    memcpy(b->data + at, &len, sizeof len);
}

static void put_attribute(struct bytes *b, uint16_t type, const void *value, size_t len)
{
    struct nlattr a = {.nla_len = (uint16_t)(sizeof a + len), .nla_type = type};
    put(b, &a, sizeof a);
    put(b, value, len);
}

static void put_message(struct bytes *b, int family, const char *address, uint16_t port, uint8_t state)
{
    struct inet_diag_msg m = {.idiag_family = (uint8_t)family, .idiag_state = state,
                              .idiag_uid = 1000, .idiag_inode = 4711};
    inet_pton(family, address, m.id.idiag_src);
    m.id.idiag_sport = htons(port);
    m.id.idiag_if = 3;
    put(b, &m, sizeof m);
}

static void put_socket(struct bytes *b, int family, const char *address, uint16_t port, int v6only)
{
    uint8_t only = (uint8_t)v6only;
    size_t at = begin(b, SOCK_DIAG_BY_FAMILY, 7);
    put_message(b, family, address, port, STATE_LISTEN);
    put_attribute(b, INET_DIAG_SHUTDOWN, "", 1);
    if (v6only >= 0)
        put_attribute(b, INET_DIAG_SKV6ONLY, &only, 1);
    end(b, at);
}

static void put_status(struct bytes *b, uint16_t type, int32_t code)
{
    size_t at = begin(b, type, 7);
    put(b, &code, sizeof code);
    end(b, at);
}

static enum err parse(const struct bytes *b, struct diag_reply *r, struct socket_list *l)
{
    *r = (struct diag_reply){.sequence = 7, .protocol = PORT_TCP};
    return diag_parse(slice_of(b->data, b->len), r, l);
}

static const struct {
    int family, v6only;
    const char *address;
    enum port_family want;
    const char *text;
} kinds[] = {
    {AF_INET, -1, "127.0.0.1", PORT_IP4, "127.0.0.1"}, {AF_INET, -1, "0.0.0.0", PORT_IP4, "0.0.0.0"},
    {AF_INET6, 0, "::", PORT_DUAL, "::"},              {AF_INET6, 1, "::", PORT_IP6, "::"},
    {AF_INET6, 0, "2001:db8::1", PORT_IP6, "2001:db8::1"},
    {AF_INET6, 0, "::ffff:192.0.2.1", PORT_IP4, "192.0.2.1"},
};

TEST("sockets are read with family, address, port, user, inode and device")
{
    struct bytes b = {.len = 0};
    struct diag_reply r;
    struct socket_list l = {0};
    char text[IP_TEXT_MAX];
    size_t n = sizeof kinds / sizeof kinds[0];
    for (size_t i = 0; i < n; i++)
        put_socket(&b, kinds[i].family, kinds[i].address, (uint16_t)(8000 + i), kinds[i].v6only);
    put_status(&b, NLMSG_DONE, 0);
    CHECK_OK(parse(&b, &r, &l));
    CHECK(r.done && r.error == 0 && !r.torn);
    CHECK_INT(l.count, n);
    for (size_t i = 0; i < n; i++) {
        const struct bound_socket *s = &l.items[i];
        CHECK_INT(s->family, kinds[i].want);
        CHECK_SLICE(slice_of(text, ip_text(&s->address, text)), slice_from(kinds[i].text));
        CHECK_INT(s->port, 8000 + i);
        CHECK(s->uid == 1000 && s->inode == 4711 && s->device == 3 && s->state == STATE_LISTEN);
    }
    socket_list_deinit(&l);
}

TEST("an SCTP endpoint with three addresses is three sockets of one inode")
{
    struct bytes b = {.len = 0};
    struct diag_reply r;
    struct socket_list l = {0};
    struct sockaddr_storage locals[3] = {
        {.ss_family = AF_INET}, {.ss_family = AF_INET6}, {.ss_family = AF_UNIX}};
    inet_pton(AF_INET, "192.0.2.1", &((struct sockaddr_in *)&locals[0])->sin_addr);
    inet_pton(AF_INET6, "2001:db8::1", &((struct sockaddr_in6 *)&locals[1])->sin6_addr);
    size_t at = begin(&b, SOCK_DIAG_BY_FAMILY, 7);
    put_message(&b, AF_INET6, "::", 9899, STATE_LISTEN);
    put_attribute(&b, INET_DIAG_LOCALS, locals, sizeof locals);
    end(&b, at);
    CHECK_OK(parse(&b, &r, &l));
    CHECK_INT(l.count, 2); /* and the Unix one is none */
    CHECK(l.items[0].family == PORT_IP4 && l.items[1].family == PORT_IP6);
    CHECK(l.items[0].inode == 4711 && l.items[1].inode == 4711);
    socket_list_deinit(&l);
}

TEST("the kernel's refusal and its word that things changed are told")
{
    struct bytes b = {.len = 0};
    struct diag_reply r;
    struct socket_list l = {0};
    put_status(&b, NLMSG_ERROR, -2);
    CHECK_OK(parse(&b, &r, &l));
    CHECK(r.done);
    CHECK_INT(r.error, 2);
    b.len = 0;
    put_socket(&b, AF_INET, "0.0.0.0", 80, -1);
    ((struct nlmsghdr *)(void *)b.data)->nlmsg_flags |= NLM_F_DUMP_INTR;
    CHECK_OK(parse(&b, &r, &l));
    CHECK(r.torn && !r.done);
    socket_list_deinit(&l);
}

TEST("answers to another question are passed over, and what is behind the end")
{
    struct bytes b = {.len = 0};
    struct diag_reply r;
    struct socket_list l = {0};
    put_socket(&b, AF_INET, "0.0.0.0", 80, -1);
    ((struct nlmsghdr *)(void *)b.data)->nlmsg_seq = 6;
    put_status(&b, NLMSG_DONE, 0);
    put_socket(&b, AF_INET, "0.0.0.0", 81, -1);
    CHECK_OK(parse(&b, &r, &l));
    CHECK_INT(l.count, 0);
    socket_list_deinit(&l);
}

TEST("an answer cut anywhere is refused or gives what stood before the cut")
{
    struct bytes b = {.len = 0};
    put_socket(&b, AF_INET6, "::", 80, 1);
    size_t first = b.len;
    put_socket(&b, AF_INET, "0.0.0.0", 80, -1);
    for (size_t n = 0; n < b.len; n++) {
        struct socket_list l = {0};
        struct diag_reply r = {.sequence = 7};
        char *exact = malloc(n > 0 ? n : 1);
        memcpy(exact, b.data, n);
        enum err e = diag_parse(slice_of(exact, n), &r, &l);
        CHECK_INT(e, n == 0 || n == first ? OK : ERR_INVALID);
        CHECK_INT(l.count, n >= first);
        free(exact);
        socket_list_deinit(&l);
    }
}

TEST("a request has the length that it says, in both forms")
{
    char out[DIAG_REQUEST_MAX];
    uint32_t len;
    size_t n = diag_request(out, AF_INET6, IPPROTO_UDP, 1 << STATE_CLOSE, 3);
    memcpy(&len, out, sizeof len);
    CHECK_INT(len, n);
    CHECK_INT(out[16], AF_INET6);
    CHECK_INT(out[17], IPPROTO_UDP);
    n = diag_request(out, AF_UNSPEC, IPPROTO_TCP, 1 << STATE_BOUND_INACTIVE, 3);
    memcpy(&len, out, sizeof len);
    CHECK_INT(len, n);
    CHECK(n <= sizeof out);
}
