/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An empty host means every address of the machine: one IPv6 socket that takes IPv4 too, or IPv4
 * alone where the kernel has no IPv6. Before sockets are shared with SO_REUSEPORT the address is
 * bound once without: a second server of the same user would otherwise join silently and take half
 * of the connections.
 *
 * TCP_DEFER_ACCEPT is set, fast open and BPF are not: docs/decisions/0004-listening-sockets.md.
 */
#include "net/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/holder.h"

struct target {
    struct sockaddr_storage address;
    socklen_t len;
    bool dual; /* an IPv6 wildcard that takes IPv4 too */
};

struct complaint {
    char *text;
    size_t cap;
};

static enum err complain(struct complaint *c, const struct listen_request *r, int error)
{
    char holder[400] = "";
    int n = snprintf(c->text, c->cap, "listen tcp " SLICE_FMT ":%u: %s", SLICE_ARG(r->host), r->port,
                     error == EADDRINUSE ? "address already in use" : strerror(error));
    if (n < 0 || (size_t)n >= c->cap)
        return err_from_errno(error);
    if (error == EADDRINUSE) {
        port_holder(r->host, r->port, holder, sizeof holder);
        snprintf(c->text + n, c->cap - (size_t)n,
                 "; port %u is held by %s: stop it, or choose another port", r->port,
                 holder[0] != '\0' ? holder : "a process that is just ending");
    } else if (error == EACCES || error == EPERM) {
        snprintf(c->text + n, c->cap - (size_t)n,
                 "; port %u is below 1024: start as root, give the binary the capability with "
                 "setcap cap_net_bind_service=+ep, or choose a higher port", r->port);
    }
    return error == EADDRINUSE ? ERR_EXISTS : err_from_errno(error);
}

static void any_address(struct target *t, uint16_t port, bool six)
{
    struct sockaddr_in *in = (void *)&t->address;
    struct sockaddr_in6 *in6 = (void *)&t->address;
    memset(t, 0, sizeof *t);
    if (six) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        t->len = sizeof *in6;
    } else {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        t->len = sizeof *in;
    }
    t->dual = six;
}

static bool has_ipv6(void)
{
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    bool works = fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof any) == 0;
    if (fd >= 0)
        close(fd);
    return works;
}

/* The address to bind: a host's first, IPv4 before IPv6, as Go chooses. */
static enum err resolve(const struct listen_request *r, struct target *t, struct complaint *c)
{
    char host[256], port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL, *best = NULL;
    bool only4 = slice_is(r->network, "tcp4"), only6 = slice_is(r->network, "tcp6");
    if (r->host.len == 0) {
        any_address(t, r->port, !only4 && (only6 || has_ipv6()));
        t->dual = t->dual && !only6;
        return OK;
    }
    snprintf(host, sizeof host, SLICE_FMT, SLICE_ARG(r->host));
    snprintf(port, sizeof port, "%u", r->port);
    hints.ai_family = only4 ? AF_INET : only6 ? AF_INET6 : AF_UNSPEC;
    int e = getaddrinfo(host, port, &hints, &found);
    if (e != 0) {
        snprintf(c->text, c->cap, "listen tcp: lookup %s: %s", host, gai_strerror(e));
        return ERR_NOT_FOUND;
    }
    for (struct addrinfo *a = found; a != NULL; a = a->ai_next) {
        if (best == NULL || (a->ai_family == AF_INET && best->ai_family != AF_INET))
            best = a;
    }
    memset(t, 0, sizeof *t);
    memcpy(&t->address, best->ai_addr, best->ai_addrlen);
    t->len = best->ai_addrlen;
    freeaddrinfo(found);
    return OK;
}

/* A bound socket, not yet listening, or a negative errno. */
static int bind_one(const struct target *t, bool share)
{
    int yes = 1, no = 0;
    int fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (share)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
    if (t->address.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, t->dual ? &no : &yes, sizeof yes);
    if (bind(fd, (const struct sockaddr *)&t->address, t->len) == 0)
        return fd;
    int e = errno;
    close(fd);
    return -e;
}

/* Asks, without sharing, whether anybody else listens there already. */
static int probe(const struct target *t, const struct listen_request *r)
{
    int fd = bind_one(t, false);
    int e = fd < 0 ? -fd : listen(fd, 1) == 0 ? 0 : errno;
    if (fd >= 0)
        close(fd);
    if (e == EADDRINUSE && r->own_count > 0 && !port_foreign(r->port, r->own, r->own_count))
        return 0;
    return e;
}

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&a)->sin6_port
                                         : ((struct sockaddr_in *)(void *)&a)->sin_port);
}

static void set_port(struct target *t, uint16_t port)
{
    if (t->address.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&t->address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)(void *)&t->address)->sin_port = htons(port);
}

static void close_all(int *fds, unsigned count)
{
    while (count > 0)
        close(fds[--count]);
}

static enum err open_tcp(const struct listen_request *r, int *fds, uint16_t *port,
                         struct complaint *c)
{
    struct target t;
    int wait_s = 30, yes = 1;
    TRY(resolve(r, &t, c));
    int e = r->port != 0 ? probe(&t, r) : 0;
    if (e != 0)
        return complain(c, r, e);
    for (unsigned i = 0; i < r->count; i++) {
        fds[i] = bind_one(&t, true);
        e = fds[i] < 0 ? -fds[i] : 0;
        if (e == 0) {
            /* Accepted sockets inherit it: answers leave when they are written. */
            setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            setsockopt(fds[i], IPPROTO_TCP, TCP_DEFER_ACCEPT, &wait_s, sizeof wait_s);
            e = listen(fds[i], LISTEN_BACKLOG) == 0 ? 0 : errno;
        }
        if (e != 0) {
            close_all(fds, fds[i] < 0 ? i : i + 1);
            return complain(c, r, e);
        }
        *port = bound_port(fds[i]);
        set_port(&t, *port);
    }
    return OK;
}

/* Bound; with a file, that has its mode and owner. */
static int bind_unix(const struct listen_request *r, const struct sockaddr_un *a, socklen_t len,
                     mode_t mode, int fd)
{
    struct socket_place place = {-1, NULL};
    bool abstract = a->sun_path[0] == '\0', alive = false;
    struct socket_file file = {0};
    int e = abstract ? 0 : socket_place_open(&place, a->sun_path);
    if (e == 0 && !abstract)
        e = socket_place_clear(&place, &alive);
    mode_t old = umask(0777 & ~mode);
    if (e == 0 && bind(fd, (const struct sockaddr *)a, len) != 0)
        e = errno;
    umask(old);
    if (e == 0 && !abstract)
        e = socket_place_settle(&place, mode & 07777, r->uid, r->gid, r->file != NULL ? r->file : &file);
    socket_place_close(&place);
    return alive ? EALREADY : e;
}

static enum err open_unix(const struct listen_request *r, int *fds, struct complaint *c)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct slice path;
    uint32_t mode;
    struct address_error bad;
    if (unix_permissions(r->host, &path, &mode, &bad) != OK) {
        snprintf(c->text, c->cap, "%s", bad.text);
        return ERR_INVALID;
    }
    if (path.len == 0 || path.len >= sizeof a.sun_path) {
        snprintf(c->text, c->cap, "listen unix " SLICE_FMT ": a path has 1 to %zu bytes",
                 SLICE_ARG(path), sizeof a.sun_path - 1);
        return ERR_INVALID;
    }
    bool abstract = path.ptr[0] == '@';
    memcpy(a.sun_path, path.ptr, path.len);
    if (abstract)
        a.sun_path[0] = '\0';
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + !abstract);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int e = fd < 0 ? errno : bind_unix(r, &a, len, mode, fd);
    if (e == 0 && listen(fd, LISTEN_BACKLOG) != 0)
        e = errno;
    if (e == 0) {
        fds[0] = fd;
        return OK;
    }
    if (fd >= 0)
        close(fd);
    if (e == EALREADY) {
        snprintf(c->text, c->cap, "listen unix %s: address already in use; another process "
                 "answers on this socket: stop it, or choose another path", a.sun_path);
        return ERR_EXISTS;
    }
    snprintf(c->text, c->cap, "listen unix " SLICE_FMT ": %s", SLICE_ARG(path), strerror(e));
    return err_from_errno(e);
}

/* An inherited descriptor stays the keeper's: the caller gets a copy. */
static enum err open_fd(const struct listen_request *r, int *fds, uint16_t *port,
                        struct complaint *c)
{
    uint64_t n;
    int listens = 0, type = 0;
    socklen_t len = sizeof listens;
    if (r->no_descriptor || !slice_to_u64(r->host, 1 << 20, &n) ||
        getsockopt((int)n, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0 || !listens ||
        getsockopt((int)n, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM) {
        snprintf(c->text, c->cap, "listen fd/" SLICE_FMT ": no listening stream socket was handed "
                 "over under this number: name it in the socket unit (the first is fd/3)",
                 SLICE_ARG(slice_take(r->host, 60)));
        return ERR_INVALID;
    }
    fcntl((int)n, F_SETFD, FD_CLOEXEC); /* no child shall hold it */
    fds[0] = fcntl((int)n, F_DUPFD_CLOEXEC, 10);
    if (fds[0] < 0)
        return err_from_errno(errno);
    fcntl(fds[0], F_SETFL, fcntl(fds[0], F_GETFL) | O_NONBLOCK);
    *port = bound_port(fds[0]);
    return OK;
}

enum err listen_open(const struct listen_request *r, int *fds, uint16_t *port, char *error,
                     size_t error_cap)
{
    struct complaint c = {error, error_cap};
    *port = 0;
    error[0] = '\0';
    if (slice_is(r->network, "fd"))
        return open_fd(r, fds, port, &c);
    if (slice_is(r->network, "unix") || slice_is(r->network, "unix+h2c"))
        return open_unix(r, fds, &c);
    if (slice_is(r->network, "tcp") || slice_is(r->network, "tcp4") || slice_is(r->network, "tcp6"))
        return open_tcp(r, fds, port, &c);
    snprintf(error, error_cap, "listen " SLICE_FMT ": this network is not supported: use tcp, tcp4, "
             "tcp6, unix or fd", SLICE_ARG(slice_take(r->network, 60)));
    return ERR_UNSUPPORTED;
}
