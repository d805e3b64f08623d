/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   05 n methods…        → 05 method        00: nobody needs to be named; 02: by name and password
 *   01 n name n password → 01 00            where it was 02
 *   05 01 00 host port   → 05 00 00 host port
 *
 * A proxy says nothing that it was not asked for: bytes behind an answer are a fault, for they would be
 * taken for what the server says.
 */
#include "client/socks.h"

#include <stdio.h>

#include "net/ip_set.h"

enum {
    VERSION = 5,
    NO_NAME = 0, BY_NAME = 2, NO_METHOD = 0xff,
    IS_FOUR = 1, IS_NAME = 3, IS_SIX = 4,
    HOST_MAX = 255,
    REPLY_MAX = 4 + 1 + HOST_MAX + 2,
};

struct talk {
    struct link *link;
    uint64_t deadline_ns;
    char *why;
    size_t cap;
    unsigned char in[REPLY_MAX];
    size_t have;
};

static enum err fault(struct talk *t, const char *text)
{
    snprintf(t->why, t->cap, "%s", text);
    return ERR_DENIED;
}

static enum err say(struct talk *t, const unsigned char *bytes, size_t n)
{
    struct iovec part = {(void *)(uintptr_t)bytes, n};
    size_t sent;
    return stream_send(&t->link->stream, &part, 1, 0, t->deadline_ns, &sent);
}

/* Until there are so many bytes of an answer. */
static enum err hear(struct talk *t, size_t n)
{
    while (t->have < n) {
        struct slice bytes;
        TRY(await_link(t->link, t->deadline_ns, &bytes));
        if (bytes.len > sizeof t->in - t->have)
            return fault(t, "the proxy sends what nobody asked for");
        memcpy(t->in + t->have, bytes.ptr, bytes.len);
        t->have += bytes.len;
    }
    return OK;
}

static enum err hear_all(struct talk *t, size_t n)
{
    TRY(hear(t, n));
    if (t->have > n)
        return fault(t, "the proxy sends what nobody asked for");
    t->have = 0;
    return OK;
}

static enum err greet(struct talk *t, bool named, unsigned *method)
{
    const unsigned char hello[] = {VERSION, named ? 2 : 1, NO_NAME, BY_NAME};
    TRY(say(t, hello, named ? 4 : 3));
    TRY(hear_all(t, 2));
    if (t->in[0] != VERSION)
        return fault(t, "the proxy does not speak SOCKS 5");
    *method = t->in[1];
    if (*method == NO_METHOD)
        return fault(t, named ? "the proxy takes neither nobody nor a name and a password"
                              : "the proxy wants to know who asks");
    return *method == NO_NAME || (*method == BY_NAME && named)
               ? OK
               : fault(t, "the proxy chose a method that was not offered");
}

static enum err name_oneself(struct talk *t, const struct url *proxy)
{
    unsigned char out[3 + 2 * HOST_MAX], *at = out;
    if (proxy->user.len == 0 || proxy->user.len > HOST_MAX || proxy->password.len > HOST_MAX)
        return fault(t, "a name and a password for SOCKS have 1 to 255 bytes each");
    *at++ = 1;
    *at++ = (unsigned char)proxy->user.len;
    memcpy(at, proxy->user.ptr, proxy->user.len);
    at += proxy->user.len;
    *at++ = (unsigned char)proxy->password.len;
    if (proxy->password.len > 0)
        memcpy(at, proxy->password.ptr, proxy->password.len);
    TRY(say(t, out, (size_t)(at - out) + proxy->password.len));
    TRY(hear_all(t, 2));
    return t->in[1] == 0 ? OK : fault(t, "the proxy does not accept the name and the password");
}

static const char *refusal(unsigned code)
{
    static const char *const texts[] = {
        [1] = "the proxy answers: general failure",
        [2] = "the proxy answers: not allowed by its rules",
        [3] = "the proxy answers: network unreachable",
        [4] = "the proxy answers: host unreachable",
        [5] = "the proxy answers: connection refused",
        [6] = "the proxy answers: TTL expired",
        [7] = "the proxy answers: command not supported",
        [8] = "the proxy answers: address type not supported",
    };
    return code > 0 && code < sizeof texts / sizeof *texts ? texts[code]
                                                           : "the proxy answers: unknown error";
}

static enum err hear_verdict(struct talk *t)
{
    TRY(hear(t, 2)); /* who refuses may say no more */
    if (t->in[0] != VERSION)
        return fault(t, "the proxy does not speak SOCKS 5");
    if (t->in[1] != 0)
        return fault(t, refusal(t->in[1]));
    TRY(hear(t, 5));
    switch (t->in[3]) {
    case IS_FOUR:
        return hear_all(t, 4 + 4 + 2);
    case IS_SIX:
        return hear_all(t, 4 + 16 + 2);
    case IS_NAME:
        return hear_all(t, 4 + 1 + (size_t)t->in[4] + 2);
    default:
        return fault(t, "the proxy answers with an unknown type of address");
    }
}

static enum err ask(struct talk *t, struct slice host, uint16_t port)
{
    unsigned char out[REPLY_MAX] = {VERSION, 1, 0}, *at = out + 3;
    struct ip_address ip;
    struct slice address, zone;
    slice_cut(host, '%', &address, &zone);
    bool literal = ip_parse(address, &ip);
    size_t len = !literal ? host.len : ip.is_six ? 16 : 4;
    if (len == 0 || len > HOST_MAX)
        return fault(t, "the upstream's name is too long for SOCKS");
    *at++ = !literal ? IS_NAME : ip.is_six ? IS_SIX : IS_FOUR;
    if (!literal)
        *at++ = (unsigned char)len;
    memcpy(at, literal ? (const void *)ip.bytes : host.ptr, len);
    at += len;
    *at++ = (unsigned char)(port >> 8);
    *at++ = (unsigned char)port;
    TRY(say(t, out, (size_t)(at - out)));
    return hear_verdict(t);
}

enum err await_socks(struct link *l, const struct url *proxy, struct slice host, uint16_t port,
                     uint64_t deadline_ns, char *why, size_t cap)
{
    struct talk t = {.link = l, .deadline_ns = deadline_ns, .why = why, .cap = cap};
    unsigned method;
    enum err e = greet(&t, proxy->has_user, &method);
    if (e == OK && method == BY_NAME)
        e = name_oneself(&t, proxy);
    if (e == OK)
        e = ask(&t, host, port);
    if (e != OK && e != ERR_DENIED)
        snprintf(why, cap, "%s", e == ERR_CLOSED ? "the proxy closed the connection" : err_text(e));
    return e;
}
