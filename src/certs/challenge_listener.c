/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server of the configuration that has the port answers by itself, and binding the port fails; so
 * the rule is certmagic's: bind if that is possible, else trust whoever is there. Each connection is
 * a fiber, has ten seconds and is closed after one answer. The one that is trusted may be another
 * instance with the same storage, so what lies there is answered as well.
 *
 * The server process may bind high ports only; app/ gives a function that asks the keeper.
 */
#include "certs/challenge_listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/uri.h"
#include "loop/await.h"
#include "certs/solver.h"
#include "net/ip_set.h"
#include "tls/challenge.h"
#include "tls/stream.h"
#include "tls/tls_server.h"

enum { HEAD_MAX = 4096, PATIENCE_S = 10, GUESTS_MAX = 64, BACKLOG = 64, IN_MAX = HELLO_MAX + 4096,
       STORAGES_MAX = 8 };


static const char logger[] = "tls.issuance.acme";

enum err (*challenge_bind_hook)(struct slice host, uint16_t port, int *fd, char *why, size_t cap);

struct challenge_listener {
    struct list node;
    enum challenge_kind kind;
    char *host;
    uint16_t port;
    struct list users; /* struct challenge_user */
    unsigned guests;   /* fibers that use it */
    int fd; /* -1: somebody else has the port */
    struct op accept;
    bool closing;
};

struct guest {
    int fd;
    struct challenge_listener *listener;
};

static _Thread_local struct list listeners;

/* --- one connection --- */

/* "GET /.well-known/acme-challenge/TOKEN HTTP/1.1"; ZeroSSL's API has a folder of its own. */
static bool token_of(struct slice head, struct slice *token)
{
    static const char *const folders[] = {"GET /.well-known/acme-challenge/",
                                          "GET /.well-known/pki-validation/"};
    struct slice line, rest, target;
    slice_cut(head, '\r', &line, &rest);
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
        if (slice_starts(line, slice_from(folders[i])))
            return slice_cut(slice_skip(line, strlen(folders[i])), ' ', &target, &rest) &&
                   (*token = target).len > 0 && slice_find(target, '/') == SIZE_MAX;
    return false;
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

static struct slice host_of(struct slice head)
{
    struct slice line, host, port;
    while (slice_cut(head, '\n', &line, &head))
        if (slice_starts_nocase(line, SLICE("Host:"))) {
            host_split(slice_trim(slice_skip(line, 5)), &host, &port);
            return host;
        }
    return SLICE("");
}

/* What this process has presented, or another one that shares a storage with a user of the port. */
static bool find_answer(struct challenge_listener *l, struct slice head, struct slice token,
                        struct arena *a, struct slice *value, bool *distributed)
{
    struct challenge_user seen[STORAGES_MAX]; /* users may leave while a storage is read */
    size_t count = 0;
    *distributed = false;
    if (challenge_http_find(token, a, value))
        return true;
    LIST_FOR (it, &l->users)
        if (count < STORAGES_MAX)
            seen[count++] = *CONTAINER_OF(it, struct challenge_user, node);
    for (size_t i = 0; i < count; i++)
        seen[i].issuer_key = arena_copy(a, seen[i].issuer_key);
    *distributed = true;
    for (size_t i = 0; i < count; i++)
        if (seen[i].storage != NULL && challenge_load(seen[i].storage, seen[i].issuer_key,
                                                      host_of(head), token, a, value) == OK)
            return true;
    return false;
}

static void answer_http(struct challenge_listener *l, int fd, uint64_t deadline)
{
    char buf[HEAD_MAX];
    struct slice head, token, value = SLICE("");
    struct arena a;
    bool distributed;
    size_t sent;
    if (read_head(fd, buf, deadline, &head) != OK)
        return;
    arena_init(&a, 1024);
    bool found = token_of(head, &token) && find_answer(l, head, token, &a, &value, &distributed);
    struct slice text = arena_printf(&a, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\n"
                                     "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                                     found ? "200 OK" : "404 Not Found", value.len);
    struct iovec out[] = {{(char *)text.ptr, text.len}, {(char *)value.ptr, value.len}};
    (void)await_send(fd, out, found ? 2 : 1, 0, deadline, &sent);
    if (found)
        LOG(LOG_INFO, logger, "served key authentication", LOG_STR("identifier", host_of(head)),
            LOG_CSTR("challenge", "http-01"), LOG_BOOLEAN("distributed", distributed));
    arena_deinit(&a);
}

/* --- a handshake --- */

static enum err read_hello(int fd, struct buffer *in, struct buffer *joined, struct hello *hello,
                           uint64_t deadline)
{
    for (;;) {
        size_t n;
        TRY(buffer_reserve(in, 1024));
        TRY(await_recv(fd, in->ptr + in->len, 1024, deadline, &n));
        if (n == 0)
            return ERR_CLOSED;
        in->len += n;
        buffer_clear(joined);
        enum hello_result r = hello_parse(buffer_slice(in), joined, hello);
        if (r != HELLO_MORE)
            return r == HELLO_DONE ? OK : ERR_INVALID;
    }
}

struct accepting {
    struct tls_accepting accepting;
    enum tls_accept result;
};

static void accept_on_loop(void *arg)
{
    struct accepting *a = arg;
    a->result = tls_accept(&a->accepting);
}

/* Of hellos for challenges only: there is nothing else here. */
static void answer_tls(int fd, uint64_t deadline)
{
    struct buffer in, joined;
    struct hello hello;
    struct tls_policy policy = {.min_version = TLS_1_2};
    struct tls_server server = {.policies = &policy, .count = 1, .h1 = true, .no_tickets = true};
    struct accepting a = {.accepting = {.server = &server, .hello = &hello,
                                        .now_s = clock_wall_ns() / (int64_t)NS_PER_S}};
    char why[256];
    if (tls_server_finish(&server, why, sizeof why) != OK)
        return;
    buffer_init(&in, IN_MAX);
    buffer_init(&joined, IN_MAX);
    enum err e = read_hello(fd, &in, &joined, &hello, deadline);
    if (e == OK && hello_alpn_only(&hello, SLICE("acme-tls/1"))) {
        await_on_loop(accept_on_loop, &a);
        if (a.result == TLS_ACCEPTED) {
            struct stream stream = {fd, a.accepting.stream};
            tls_stream_feed(stream.tls, buffer_slice(&in));
            if (stream_handshake(&stream, deadline) == OK)
                LOG(LOG_INFO, logger, "served key authentication certificate",
                    LOG_STR("server_name", hello.server_name),
                    LOG_CSTR("challenge", "tls-alpn-01"));
            stream_shutdown(&stream);
            tls_stream_free(stream.tls);
        }
    }
    buffer_deinit(&in);
    buffer_deinit(&joined);
    tls_server_release(&server);
}

/* --- guests --- */

static void free_listener(struct challenge_listener *l);

static void serve_guest(void *arg)
{
    struct guest g = *(struct guest *)arg;
    uint64_t deadline = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    mem_free(arg);
    if (g.listener->kind == CHALLENGE_HTTP)
        answer_http(g.listener, g.fd, deadline);
    else
        answer_tls(g.fd, deadline);
    (void)shutdown(g.fd, SHUT_WR);
    loop_close(loop_self(), g.fd);
    g.listener->guests--;
    free_listener(g.listener);
}

/* --- the listener --- */

/* Once nobody needs it any more. */
static void free_listener(struct challenge_listener *l)
{
    if (!l->closing || l->guests > 0 || l->accept.armed)
        return;
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
        *g = (struct guest){result, l};
        l->guests++;
        if (l->guests > GUESTS_MAX || fiber_start(loop_self(), serve_guest, g) != OK) {
            l->guests--;
            mem_free(g);
            loop_close(loop_self(), result);
        }
    }
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

static struct challenge_listener *add_listener(const struct challenge_user *u, int fd)
{
    struct challenge_listener *l = NEW(struct challenge_listener);
    *l = (struct challenge_listener){.kind = u->kind, .host = slice_dup(u->host), .port = u->port,
                                     .fd = fd, .accept = {.on_done = on_accept}};
    list_init(&l->users);
    list_append(&listeners, &l->node);
    if (fd >= 0)
        op_accept(loop_self(), &l->accept, fd);
    return l;
}

enum err challenge_listener_open(struct challenge_user *u, char *why, size_t cap)
{
    struct challenge_listener *l = find(u->kind, u->host, u->port);
    int fd = -1;
    if (l == NULL) {
        TRY(bind_port(u->host, u->port, &fd, why, cap));
        l = find(u->kind, u->host, u->port); /* another fiber may have been faster, if that waited */
        if (l != NULL && fd >= 0)
            (void)close(fd);
        if (l == NULL)
            l = add_listener(u, fd);
    }
    u->listener = l;
    list_append(&l->users, &u->node);
    return OK;
}

void challenge_listener_close(struct challenge_user *u)
{
    struct challenge_listener *l = u->listener;
    if (l == NULL)
        return;
    u->listener = NULL;
    list_remove(&u->node);
    if (!list_empty(&l->users))
        return;
    list_remove(&l->node);
    l->closing = true;
    op_cancel(loop_self(), &l->accept); /* if it is armed: the rest at its completion */
    free_listener(l);
}
