/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logs to a socket: tcp, udp, unix, unixgram. The name is looked up when the configuration is
 * loaded; later only the addresses that it gave are tried again, for the log thread must not wait.
 * While there is no connection, lines are kept as for any writer that takes nothing. A line that
 * broke off with a connection is sent again from its start on the next.
 *
 *     {"output": "net", "address": "udp/10.0.0.1:514", "dial_timeout": "5s", "soft_start": true}
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "logs/writers.h"
#include "net/address.h"

enum { TARGETS_MAX = 8 };
#define REDIAL_MIN_NS NS_PER_S
#define REDIAL_MAX_NS (10 * NS_PER_S)
#define DIAL_DEFAULT_NS (10 * NS_PER_S)

struct net_options {
    struct network_address address;
    struct slice text, key;
    uint64_t dial_timeout_ns;
    bool soft_start, packets;
};

struct target {
    struct sockaddr_storage address;
    socklen_t len;
};

struct net_writer {
    struct log_writer writer;
    char *name;
    struct target targets[TARGETS_MAX];
    unsigned count, next;
    int type, fd;
    bool connecting;
    size_t ahead;       /* bytes sent of a line that is not yet reported as taken */
    uint64_t redial_ns, pause_ns, dial_by_ns, dial_timeout_ns;
};

/* --- options --- */

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"output", "address", "dial_timeout", "soft_start", NULL};
    struct net_options *o = cfg;
    struct address_error why;
    int64_t ns;
    TRY(provision_members(p, json, members));
    TRY(log_text(p, json, "address", &o->text));
    TRY(provision_duration(p, json, "dial_timeout", 0, &ns));
    TRY(provision_bool(p, json, "soft_start", false, &o->soft_start));
    if (ns < 0)
        return provision_fail(p, "timeout cannot be less than 0");
    o->dial_timeout_ns = ns > 0 ? (uint64_t)ns : DIAL_DEFAULT_NS;
    if (address_parse(o->text, SLICE("tcp"), 0, &o->address, p->arena, &why) != OK)
        return provision_fail(p, "parsing network address '" SLICE_FMT "': %s", SLICE_ARG(o->text),
                              why.text);
    if (o->address.first_port != o->address.last_port)
        return provision_fail(p, "multiple ports not supported");
    struct slice network = o->address.network;
    bool udp = slice_starts(network, SLICE("udp"));
    o->packets = udp || slice_is(network, "unixgram");
    if (!udp && !slice_starts(network, SLICE("tcp")) && !network_is_unix(network))
        return provision_fail(p, "cannot log to the network '" SLICE_FMT "'", SLICE_ARG(network));
    o->key = arena_join(p->arena, (struct slice[]){SLICE("net:"), address_text(&o->address,
                                                                               p->arena)}, 2);
    return OK;
}

/* --- addresses --- */

static void add_target(struct net_writer *n, const void *address, socklen_t len)
{
    if (n->count == TARGETS_MAX || len > sizeof n->targets[0].address)
        return;
    memcpy(&n->targets[n->count].address, address, len);
    n->targets[n->count++].len = len;
}

static enum err find_unix(struct net_writer *n, const struct net_options *o)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct slice path = o->address.host;
    if (path.len >= sizeof a.sun_path)
        return ERR_LIMIT;
    memcpy(a.sun_path, path.ptr, path.len);
    if (path.len > 0 && path.ptr[0] == '@')
        a.sun_path[0] = '\0';
    add_target(n, &a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len +
                                  (a.sun_path[0] != '\0')));
    return OK;
}

static enum err find_targets(struct net_writer *n, const struct net_options *o, char *error,
                             size_t cap)
{
    char port[8];
    struct addrinfo hints = {.ai_socktype = n->type}, *list;
    struct slice network = o->address.network;
    if (network_is_unix(network))
        return find_unix(n, o);
    char last = network.ptr[network.len - 1];
    hints.ai_family = last == '4' ? AF_INET : last == '6' ? AF_INET6 : AF_UNSPEC;
    snprintf(port, sizeof port, "%u", o->address.first_port);
    char *host = slice_dup(o->address.host.len > 0 ? o->address.host : SLICE("localhost"));
    int failed = getaddrinfo(host, port, &hints, &list);
    mem_free(host);
    if (failed != 0) {
        snprintf(error, cap, "lookup " SLICE_FMT ": %s", SLICE_ARG(o->address.host),
                 gai_strerror(failed));
        return ERR_NOT_FOUND;
    }
    for (struct addrinfo *a = list; a != NULL; a = a->ai_next)
        add_target(n, a->ai_addr, a->ai_addrlen);
    freeaddrinfo(list);
    return n->count > 0 ? OK : ERR_NOT_FOUND;
}

/* --- connecting --- */

static void hang_up(struct net_writer *n)
{
    if (n->fd >= 0)
        close(n->fd);
    n->fd = -1;
    n->connecting = false;
    n->ahead = 0;
}

/* Begins with the next address; on failure errno tells. */
static bool begin_dial(struct net_writer *n, uint64_t now)
{
    const struct target *t = &n->targets[n->next++ % n->count];
    n->fd = socket(t->address.ss_family, n->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (n->fd < 0)
        return false;
    n->dial_by_ns = now + n->dial_timeout_ns;
    n->connecting = connect(n->fd, (const struct sockaddr *)&t->address, t->len) != 0;
    if (!n->connecting || errno == EINPROGRESS)
        return true;
    int kept = errno;
    hang_up(n);
    errno = kept;
    return false;
}

/* OK when connected; ERR_TIMEOUT while it goes on. */
static enum err look_dial(struct net_writer *n, uint64_t now, int wait_ms)
{
    struct pollfd p = {.fd = n->fd, .events = POLLOUT};
    int failed = 0;
    socklen_t len = sizeof failed;
    if (!n->connecting)
        return OK;
    if (poll(&p, 1, wait_ms) <= 0 && now < n->dial_by_ns)
        return ERR_TIMEOUT;
    if (p.revents != 0 && getsockopt(n->fd, SOL_SOCKET, SO_ERROR, &failed, &len) == 0 &&
        failed == 0) {
        n->connecting = false;
        n->pause_ns = 0;
        return OK;
    }
    hang_up(n);
    errno = failed != 0 ? failed : ETIMEDOUT;
    return ERR_IO;
}

/* At load: each address in turn, waiting. */
static bool dial_now(struct net_writer *n)
{
    for (unsigned i = 0; i < n->count; i++) {
        uint64_t now = clock_mono_ns();
        if (!begin_dial(n, now))
            continue;
        if (look_dial(n, n->dial_by_ns, (int)(n->dial_timeout_ns / NS_PER_MS)) == OK)
            return true;
    }
    return false;
}

static enum err redial(struct net_writer *n, uint64_t now)
{
    if (n->fd >= 0)
        return look_dial(n, now, 0);
    if (now < n->redial_ns)
        return ERR_TIMEOUT;
    n->pause_ns = n->pause_ns == 0 ? REDIAL_MIN_NS
                                   : n->pause_ns * 2 > REDIAL_MAX_NS ? REDIAL_MAX_NS
                                                                     : n->pause_ns * 2;
    n->redial_ns = now + n->pause_ns;
    return begin_dial(n, now) ? look_dial(n, now, 0) : err_from_errno(errno);
}

/* --- writing --- */

static enum err send_packet(struct net_writer *n, struct slice line, size_t *taken)
{
    ssize_t sent = send(n->fd, line.ptr, line.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == ECONNREFUSED) /* tells of an earlier one; nobody was there */
        sent = send(n->fd, line.ptr, line.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS))
        return ERR_TIMEOUT;
    if (sent < 0 && errno != ECONNREFUSED && errno != EMSGSIZE) {
        int kept = errno;
        hang_up(n);
        return err_from_errno(kept);
    }
    if (sent < 0) {
        atomic_fetch_add(&n->writer.dropped, 1);
    }
    *taken = line.len;
    return OK;
}

/* Reports whole lines only as taken, so that a broken one can begin again. */
static enum err send_stream(struct net_writer *n, struct slice bytes, size_t *taken)
{
    struct slice rest = slice_skip(bytes, n->ahead);
    ssize_t sent = send(n->fd, rest.ptr, rest.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN)
        return ERR_TIMEOUT;
    if (sent <= 0) {
        int kept = errno;
        hang_up(n);
        return err_from_errno(kept);
    }
    n->ahead += (size_t)sent;
    size_t end = slice_find_last(slice_take(bytes, n->ahead), '\n');
    *taken = end == SIZE_MAX ? (n->ahead == bytes.len ? bytes.len : 0) : end + 1;
    n->ahead -= *taken;
    return OK;
}

static enum err on_write(struct log_writer *w, struct slice bytes, size_t *taken)
{
    struct net_writer *n = CONTAINER_OF(w, struct net_writer, writer);
    enum err e = n->fd < 0 || n->connecting ? redial(n, clock_mono_ns()) : OK;
    if (e != OK)
        return e;
    return w->packets ? send_packet(n, bytes, taken) : send_stream(n, bytes, taken);
}

static int on_poll_fd(struct log_writer *w)
{
    struct net_writer *n = CONTAINER_OF(w, struct net_writer, writer);
    return n->connecting ? -1 : n->fd;
}

static void free_net(struct net_writer *n)
{
    hang_up(n);
    mem_free(n->name);
    mem_free(n);
}

static void on_close(struct log_writer *w)
{
    free_net(CONTAINER_OF(w, struct net_writer, writer));
}

static const struct log_writer_type net_type = {on_write, on_poll_fd, NULL, on_close, NULL};

static enum err open_net(const void *cfg, struct log_writer **out, char *error, size_t cap)
{
    const struct net_options *o = cfg;
    struct net_writer *n = NEW(struct net_writer);
    n->name = slice_dup(o->text);
    n->fd = -1;
    n->type = o->packets ? SOCK_DGRAM : SOCK_STREAM;
    n->dial_timeout_ns = o->dial_timeout_ns;
    n->writer.type = &net_type;
    n->writer.name = n->name;
    n->writer.packets = o->packets;
    snprintf(error, cap, "looking up " SLICE_FMT, SLICE_ARG(o->text));
    enum err e = find_targets(n, o, error, cap);
    if (e == OK && !dial_now(n)) {
        snprintf(error, cap, "dial " SLICE_FMT ": %s", SLICE_ARG(o->text), strerror(errno));
        e = o->soft_start ? OK : ERR_IO;
        if (e == OK)
            log_complain("portico: net log writer failed to connect: %s; trying again\n", error);
    }
    if (e != OK) {
        free_net(n);
        return e;
    }
    *out = &n->writer;
    return OK;
}

static struct slice key_of(const void *cfg)
{
    return ((const struct net_options *)cfg)->key;
}

static const struct log_writer_face face = {key_of, open_net, NULL, false, false};

const struct module log_writer_net = {
    .id = "caddy.logging.writers.net",
    .cfg_size = sizeof(struct net_options),
    .provision = provision,
    .face = &face,
};
