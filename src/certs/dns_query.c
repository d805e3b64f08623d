/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The resolver of net/ answers with addresses and remembers them; here an answer must be fresh, from
 * one server, and of other types. A question goes out from a socket of its own, connected, with a
 * number and a port that nobody can guess.
 */
#include "certs/dns_query.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/uri.h"
#include "loop/await.h"
#include "net/dial.h"

enum { UDP_MS = 5000, TCP_MS = 10000, PORT = 53, UDP_REPLY_MAX = 4096, RESOLV_CONF_MAX = 64 << 10 };

/* --- servers --- */

static const char *const well_known[] = {"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1"};

static size_t take_servers(struct slice text, struct arena *a, struct slice *servers, size_t max)
{
    struct slice line;
    size_t count = 0;
    while (text.len > 0 && count < max) {
        slice_cut(text, '\n', &line, &text);
        line = slice_trim(line);
        if (slice_starts(line, SLICE("nameserver")) && line.len > 10 &&
            (line.ptr[10] == ' ' || line.ptr[10] == '\t'))
            servers[count++] = arena_copy(a, slice_trim(slice_skip(line, 10)));
    }
    return count;
}

size_t dns_system_servers(struct arena *a, struct slice *servers, size_t max)
{
    size_t count = 0;
    FILE *f = fopen("/etc/resolv.conf", "re");
    if (f != NULL) {
        char *text = arena_alloc(a, RESOLV_CONF_MAX);
        count = take_servers(slice_of(text, fread(text, 1, RESOLV_CONF_MAX, f)), a, servers, max);
        (void)fclose(f);
    }
    if (count > 0)
        return count;
    for (; count < max && count < sizeof well_known / sizeof well_known[0]; count++)
        servers[count] = slice_from(well_known[count]);
    return count;
}

static enum err find_server(struct slice server, uint64_t deadline, struct resolved *r, char *why,
                            size_t cap)
{
    struct slice host, port;
    uint64_t number = PORT;
    size_t colon = slice_find(server, ':');
    bool bare_six = colon != SIZE_MAX && server.ptr[0] != '[' &&
                    slice_find(slice_skip(server, colon + 1), ':') != SIZE_MAX;
    if (bare_six) {
        host = server;
        port = SLICE("");
    } else {
        host_split(server, &host, &port);
    }
    if (host.len > 0 && host.ptr[host.len - 1] == '.')
        host.len--;
    if (port.len > 0 && !slice_to_u64(port, 65535, &number)) {
        snprintf(why, cap, "'" SLICE_FMT "' has no good port", SLICE_ARG(server));
        return ERR_INVALID;
    }
    enum err e = await_resolve(host, (uint16_t)number, deadline, r);
    if (e != OK)
        snprintf(why, cap, "looking up '" SLICE_FMT "': %s", SLICE_ARG(host),
                 r->why != NULL ? r->why : err_text(e));
    return e;
}

/* --- one exchange --- */

struct question {
    struct slice name;
    enum dns_type type;
    uint16_t id;
    struct buffer bytes;
};

static enum err ask_udp(const struct question *q, const struct resolved *r, struct arena *a,
                        struct dns_reply *reply)
{
    uint64_t deadline = clock_mono_ns() + UDP_MS * NS_PER_MS;
    int fd = socket(r->addresses[0].ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_from_errno(errno);
    char *in = arena_alloc(a, UDP_REPLY_MAX);
    struct iovec out = {q->bytes.ptr, q->bytes.len};
    size_t n;
    enum err e = connect(fd, (const struct sockaddr *)&r->addresses[0], r->lengths[0]) == 0 ?
                     await_send(fd, &out, 1, 0, deadline, &n) : err_from_errno(errno);
    while (e == OK) { /* what is no reply to this is not listened to */
        e = await_recv(fd, in, UDP_REPLY_MAX, deadline, &n);
        if (e == OK && dns_reply_read(slice_of(in, n), q->id, q->name, q->type, a, reply) == OK)
            break;
    }
    loop_close(loop_self(), fd);
    return e;
}

static enum err recv_all(int fd, char *buf, size_t len, uint64_t deadline)
{
    while (len > 0) {
        size_t n;
        TRY(await_recv(fd, buf, len, deadline, &n));
        if (n == 0)
            return ERR_CLOSED;
        buf += n;
        len -= n;
    }
    return OK;
}

static enum err exchange_tcp(const struct question *q, int fd, uint64_t deadline, struct arena *a,
                             struct dns_reply *reply)
{
    unsigned char head[2] = {(unsigned char)(q->bytes.len >> 8), (unsigned char)q->bytes.len};
    struct iovec out[] = {{head, 2}, {q->bytes.ptr, q->bytes.len}};
    size_t n;
    TRY(await_send(fd, out, 2, 0, deadline, &n));
    TRY(recv_all(fd, (char *)head, 2, deadline));
    size_t len = (size_t)head[0] << 8 | head[1];
    char *in = arena_alloc(a, len);
    TRY(recv_all(fd, in, len, deadline));
    return dns_reply_read(slice_of(in, len), q->id, q->name, q->type, a, reply);
}

static enum err ask_tcp(const struct question *q, const struct resolved *r, struct arena *a,
                        struct dns_reply *reply)
{
    struct dial_options options = {.deadline_ns = clock_mono_ns() + TCP_MS * NS_PER_MS};
    struct dialed d;
    TRY(await_dial(r, &options, &d));
    enum err e = exchange_tcp(q, d.fd, options.deadline_ns, a, reply);
    loop_close(loop_self(), d.fd);
    return e;
}

static enum err ask(struct slice server, const struct question *q, struct arena *a,
                    struct dns_reply *reply, char *why, size_t cap)
{
    struct resolved *r = ARENA_NEW(a, struct resolved);
    TRY(find_server(server, clock_mono_ns() + TCP_MS * NS_PER_MS, r, why, cap));
    enum err e = ask_udp(q, r, a, reply);
    if (e == ERR_TIMEOUT || (e == OK && reply->truncated))
        e = ask_tcp(q, r, a, reply);
    if (e != OK)
        snprintf(why, cap, "asking " SLICE_FMT ": %s", SLICE_ARG(server), err_text(e));
    return e;
}

enum err dns_query(const struct slice *servers, size_t count, struct slice name, enum dns_type type,
                   struct arena *a, struct dns_reply **out, char *why, size_t cap)
{
    struct question q = {.name = name, .type = type};
    struct dns_reply *reply = ARENA_NEW(a, struct dns_reply);
    enum err e = ERR_NOT_FOUND;
    snprintf(why, cap, "no DNS server to ask");
    (void)!getrandom(&q.id, sizeof q.id, 0);
    buffer_init(&q.bytes, 512);
    if (dns_question_put(&q.bytes, q.id, name, type) != OK) {
        buffer_deinit(&q.bytes);
        snprintf(why, cap, "'" SLICE_FMT "' is not a DNS name", SLICE_ARG(slice_take(name, 200)));
        return ERR_INVALID;
    }
    for (size_t i = 0; i < count; i++) {
        e = ask(servers[i], &q, a, reply, why, cap);
        if (e == OK && reply->count > 0)
            break;
        if (fiber_self()->cancelled != OK)
            break;
    }
    buffer_deinit(&q.bytes);
    *out = reply;
    return e;
}
