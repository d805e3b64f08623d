/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server of the configuration that has the port answers by itself, and binding the port fails; so
 * the rule is certmagic's: bind if that is possible, else trust whoever is there. Each connection is
 * a fiber, has ten seconds and is closed after one answer.
 *
 * The server process may bind high ports only; app/ gives a function that asks the keeper.
 */
#include "certs/challenge_listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/uri.h"
#include "loop/await.h"
#include "net/ip_set.h"
#include "tls/challenge.h"

enum { HEAD_MAX = 4096, PATIENCE_S = 10, GUESTS_MAX = 64, BACKLOG = 64 };

#define PREFIX "/.well-known/acme-challenge/"

static const char logger[] = "tls.issuance.acme";

enum err (*challenge_bind_hook)(struct slice host, uint16_t port, int *fd, char *why, size_t cap);
void (*challenge_tls_hook)(int fd, uint64_t deadline_ns);

struct challenge_listener {
    struct list node;
    enum challenge_kind kind;
    char *host;
    uint16_t port;
    unsigned users;
    int fd; /* -1: somebody else has the port */
    struct op accept;
    bool closing;
};

struct guest {
    int fd;
    enum challenge_kind kind;
};

static _Thread_local struct list listeners;
static _Thread_local unsigned guests;

/* --- one connection --- */

/* "GET /.well-known/acme-challenge/TOKEN HTTP/1.1". */
static bool token_of(struct slice head, struct slice *token)
{
    struct slice line, rest, target;
    slice_cut(head, '\r', &line, &rest);
    if (!slice_starts(line, SLICE("GET " PREFIX)))
        return false;
    return slice_cut(slice_skip(line, sizeof "GET " PREFIX - 1), ' ', &target, &rest) &&
           (*token = target).len > 0 && slice_find(target, '/') == SIZE_MAX;
}

static enum err read_head(int fd, char *buf, uint64_t deadline, struct slice *head)
{
    size_t len = 0, n;
    while (len < HEAD_MAX) {
        TRY(await_recv(fd, buf + len, HEAD_MAX - len, deadline, &n));
        if (n == 0)
            return ERR_CLOSED;
        len += n;
        *head = slice_of(buf, len);
        if (slice_find_slice(*head, SLICE("\r\n\r\n")) != SIZE_MAX)
            return OK;
    }
    return ERR_LIMIT;
}

static void answer_http(int fd, uint64_t deadline)
{
    char buf[HEAD_MAX];
    struct slice head, token, value = SLICE("");
    struct arena a;
    size_t sent;
    if (read_head(fd, buf, deadline, &head) != OK)
        return;
    arena_init(&a, 1024);
    bool found = token_of(head, &token) && challenge_http_find(token, &a, &value);
    struct slice text = arena_printf(&a, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\n"
                                     "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                                     found ? "200 OK" : "404 Not Found", value.len);
    struct iovec out[] = {{(char *)text.ptr, text.len}, {(char *)value.ptr, value.len}};
    (void)await_send(fd, out, found ? 2 : 1, 0, deadline, &sent);
    if (found)
        LOG(LOG_INFO, logger, "served key authentication", LOG_CSTR("challenge", "http-01"),
            LOG_BOOLEAN("distributed", false));
    arena_deinit(&a);
}

static void serve_guest(void *arg)
{
    struct guest g = *(struct guest *)arg;
    uint64_t deadline = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    mem_free(arg);
    if (g.kind == CHALLENGE_HTTP)
        answer_http(g.fd, deadline);
    else if (challenge_tls_hook != NULL)
        challenge_tls_hook(g.fd, deadline);
    (void)shutdown(g.fd, SHUT_WR);
    loop_close(loop_self(), g.fd);
    guests--;
}

/* --- the listener --- */

static void free_listener(struct challenge_listener *l)
{
    if (l->fd >= 0)
        loop_close(loop_self(), l->fd);
    mem_free(l->host);
    mem_free(l);
}

static void on_accept(struct op *op, int result)
{
    struct challenge_listener *l = CONTAINER_OF(op, struct challenge_listener, accept);
    if (result >= 0) {
        struct guest *g = NEW(struct guest);
        *g = (struct guest){result, l->kind};
        guests++;
        if (guests > GUESTS_MAX || fiber_start(loop_self(), serve_guest, g) != OK) {
            guests--;
            mem_free(g);
            loop_close(loop_self(), result);
        }
    }
    if (l->closing && !op->armed)
        free_listener(l);
}

static void fill_address(struct slice host, uint16_t port, struct sockaddr_in6 *six,
                         struct sockaddr_in *four, bool *is_six)
{
    struct ip_address ip = {.is_six = true};
    bool given = host.len > 0 && ip_parse(host, &ip);
    *is_six = !given || ip.is_six;
    *six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port),
                                 .sin6_addr = IN6ADDR_ANY_INIT};
    *four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    if (given && ip.is_six)
        memcpy(&six->sin6_addr, ip.bytes, 16);
    else if (given)
        memcpy(&four->sin_addr, ip.bytes, 4);
}

static enum err bind_directly(struct slice host, uint16_t port, int *fd, char *why, size_t cap)
{
    struct sockaddr_in6 six;
    struct sockaddr_in four;
    bool is_six;
    int one = 1;
    fill_address(host, port, &six, &four, &is_six);
    *fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0 && is_six && errno == EAFNOSUPPORT) { /* a machine without IPv6 */
        is_six = false;
        *fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (*fd < 0)
        return err_from_errno(errno);
    (void)setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    const struct sockaddr *address = is_six ? (struct sockaddr *)&six : (struct sockaddr *)&four;
    if (bind(*fd, address, is_six ? sizeof six : sizeof four) == 0 && listen(*fd, BACKLOG) == 0)
        return OK;
    int error = errno;
    (void)close(*fd);
    *fd = -1;
    snprintf(why, cap, "could not start listener for challenge server at " SLICE_FMT ":%u: %s",
             SLICE_ARG(host), port, strerror(error));
    return err_from_errno(error);
}

static enum err bind_port(struct slice host, uint16_t port, int *fd, char *why, size_t cap)
{
    enum err e = bind_directly(host, port, fd, why, cap);
    if (e == ERR_DENIED && challenge_bind_hook != NULL)
        e = challenge_bind_hook(host, port, fd, why, cap);
    return e == ERR_EXISTS ? OK : e;
}

static struct challenge_listener *find(enum challenge_kind kind, struct slice host, uint16_t port)
{
    if (listeners.next == NULL)
        list_init(&listeners);
    LIST_FOR (it, &listeners) {
        struct challenge_listener *l = CONTAINER_OF(it, struct challenge_listener, node);
        if (l->kind == kind && l->port == port && slice_is(host, l->host))
            return l;
    }
    return NULL;
}

enum err challenge_listener_open(enum challenge_kind kind, struct slice host, uint16_t port, char *why,
                                 size_t cap)
{
    struct challenge_listener *l = find(kind, host, port);
    int fd = -1;
    if (l != NULL) {
        l->users++;
        return OK;
    }
    TRY(bind_port(host, port, &fd, why, cap));
    l = find(kind, host, port); /* another fiber may have been faster, if that waited */
    if (l == NULL) {
        l = NEW(struct challenge_listener);
        *l = (struct challenge_listener){.kind = kind, .host = slice_dup(host), .port = port, .fd = fd,
                                         .accept = {.on_done = on_accept}};
        list_append(&listeners, &l->node);
        if (fd >= 0)
            op_accept(loop_self(), &l->accept, fd);
    } else if (fd >= 0) {
        (void)close(fd);
    }
    l->users++;
    return OK;
}

void challenge_listener_close(enum challenge_kind kind, struct slice host, uint16_t port)
{
    struct challenge_listener *l = find(kind, host, port);
    ASSERT(l != NULL && l->users > 0);
    if (--l->users > 0)
        return;
    list_remove(&l->node);
    l->closing = true;
    if (l->accept.armed)
        op_cancel(loop_self(), &l->accept); /* the rest at its completion */
    else
        free_listener(l);
}
