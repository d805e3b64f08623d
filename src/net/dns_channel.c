/* SPDX-License-Identifier: Apache-2.0 */
/*
 * c-ares tells which of its sockets it waits for; each is watched with one op_poll at a time, and a
 * timer stands at its next time-out. The one difficulty is the end of a socket: c-ares closes when it
 * likes, but a descriptor must stay until the loop has no operation on it. So the socket functions are
 * ours: closing marks the watch, cancels its poll, and the descriptor goes at the completion. A
 * watch therefore outlives its question, and even its channel.
 *
 * c-ares 1.18 knows resolv.conf's options only under names of its own ("retrans", "retry"); those of
 * resolv.conf(5), "timeout" and "attempts", are read here.
 */
#include "net/dns_channel.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"

enum { TIMEOUT_MS = 2000, TRIES = 3, EDNS_SIZE = 1232 };

struct dns_channel {
    ares_channel ares;
    struct loop *loop;
    struct list watches;
    struct timer timer; /* c-ares' next time-out */
};

struct watch {
    struct op op;
    struct list node; /* of the channel, until c-ares has closed it */
    struct dns_channel *channel;
    struct loop *loop;
    int fd;
    unsigned want; /* POLLIN, POLLOUT */
    bool closed;   /* by c-ares: ends with its operation */
    bool busy;     /* c-ares is working on it */
};

struct question {
    dns_answer *answer;
    void *arg;
};

struct bytes_question {
    dns_bytes *answer;
    void *arg;
};

/* --- sockets --- */

static void end_watch(struct watch *w)
{
    loop_close(w->loop, w->fd);
    mem_free(w);
}

static void settle(struct dns_channel *c);
static void on_ready(struct op *op, int result);

static void arm(struct watch *w)
{
    if (w->want == 0 || w->op.armed || w->busy)
        return;
    w->op.on_done = on_ready;
    op_poll(w->loop, &w->op, w->fd, w->want);
}

static void process(struct watch *w, unsigned ready)
{
    struct dns_channel *c = w->channel;
    bool broken = (ready & (POLLERR | POLLHUP | POLLNVAL)) != 0;
    w->busy = true;
    ares_process_fd(c->ares, broken || (ready & POLLIN) != 0 ? w->fd : ARES_SOCKET_BAD,
                    broken || (ready & POLLOUT) != 0 ? w->fd : ARES_SOCKET_BAD);
    w->busy = false;
    settle(c);
}

static void on_ready(struct op *op, int result)
{
    struct watch *w = CONTAINER_OF(op, struct watch, op);
    if (!w->closed && result != -ECANCELED)
        process(w, result >= 0 ? (unsigned)result : POLLERR);
    if (w->closed)
        end_watch(w);
    else
        arm(w);
}

static struct watch *find_watch(struct dns_channel *c, int fd)
{
    LIST_FOR(n, &c->watches)
    {
        struct watch *w = CONTAINER_OF(n, struct watch, node);
        if (w->fd == fd)
            return w;
    }
    return NULL;
}

/* c-ares tells what it waits for. */
static void on_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct dns_channel *c = arg;
    struct watch *w = find_watch(c, fd);
    unsigned want = (readable ? POLLIN : 0u) | (writable ? POLLOUT : 0u);
    if (w == NULL) {
        if (want == 0)
            return;
        w = NEW(struct watch);
        *w = (struct watch){.channel = c, .loop = c->loop, .fd = fd};
        list_append(&c->watches, &w->node);
    }
    if (w->want == want)
        return;
    w->want = want;
    if (w->op.armed)
        op_cancel(w->loop, &w->op); /* on_ready starts the new one */
    else
        arm(w);
}

static ares_socket_t on_socket(int family, int type, int protocol, void *arg)
{
    int on = 1;
    (void)arg;
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (fd >= 0 && type == SOCK_STREAM)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static int on_close(ares_socket_t fd, void *arg)
{
    struct dns_channel *c = arg;
    struct watch *w = find_watch(c, fd);
    if (w == NULL) {
        loop_close(c->loop, fd);
        return 0;
    }
    list_remove(&w->node);
    w->closed = true;
    if (w->op.armed)
        op_cancel(w->loop, &w->op);
    else if (!w->busy)
        end_watch(w);
    return 0;
}

static int on_connect(ares_socket_t fd, const struct sockaddr *address, ares_socklen_t len, void *arg)
{
    (void)arg;
    return connect(fd, address, len);
}

static ares_ssize_t on_recv(ares_socket_t fd, void *buf, size_t len, int flags, struct sockaddr *from,
                            ares_socklen_t *from_len, void *arg)
{
    (void)arg;
    return recvfrom(fd, buf, len, flags, from, from_len);
}

static ares_ssize_t on_send(ares_socket_t fd, const struct iovec *parts, int count, void *arg)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = (size_t)count};
    (void)arg;
    return sendmsg(fd, &m, MSG_NOSIGNAL);
}

static const struct ares_socket_functions socket_functions = {
    .asocket = on_socket,
    .aclose = on_close,
    .aconnect = on_connect,
    .arecvfrom = on_recv,
    .asendv = on_send,
};

/* --- time --- */

static void on_timeout(struct timer *t)
{
    struct dns_channel *c = CONTAINER_OF(t, struct dns_channel, timer);
    ares_process_fd(c->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    settle(c);
}

/* After every call into c-ares: its next time-out. */
static void settle(struct dns_channel *c)
{
    struct timeval tv;
    if (ares_timeout(c->ares, NULL, &tv) == NULL) {
        timer_stop(&c->timer);
        return;
    }
    uint64_t wait_ns = (uint64_t)tv.tv_sec * NS_PER_S + (uint64_t)tv.tv_usec * NS_PER_US;
    timer_start(c->loop, &c->timer, clock_mono_ns() + wait_ns);
}

/* --- opening and closing --- */

/* "options timeout:2 attempts:3" of resolv.conf; what the caller asked for stays. */
static void read_option(struct slice word, struct dns_options *o)
{
    uint64_t n;
    struct slice name, value;
    if (!slice_cut(word, ':', &name, &value) || !slice_to_u64(value, 1000, &n) || n == 0)
        return;
    if (slice_is(name, "timeout") && o->timeout_ms == 0)
        o->timeout_ms = (unsigned)(n < 30 ? n : 30) * 1000;
    else if (slice_is(name, "attempts") && o->tries == 0)
        o->tries = (unsigned)(n < 5 ? n : 5);
}

static void read_options(const char *path, struct dns_options *o)
{
    char line[1024];
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return;
    for (int lines = 0; lines < 1000 && fgets(line, sizeof line, f) != NULL; lines++) {
        struct slice word, rest = slice_trim(slice_from(line));
        for (size_t i = 0; i < rest.len; i++)
            line[(rest.ptr - line) + (ptrdiff_t)i] = rest.ptr[i] == '\t' ? ' ' : rest.ptr[i];
        if (!slice_cut(rest, ' ', &word, &rest) || !slice_is(word, "options"))
            continue;
        while (rest.len > 0) {
            slice_cut(rest, ' ', &word, &rest);
            read_option(word, o);
        }
    }
    fclose(f);
}

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void init_library(void)
{
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
        fatal("c-ares does not start");
}

enum err dns_channel_open(struct loop *l, const struct dns_options *options, struct dns_channel **out)
{
    struct dns_options o = *options;
    struct dns_channel *c = NEW(struct dns_channel);
    pthread_once(&library_once, init_library);
    read_options(o.resolv_conf != NULL ? o.resolv_conf : "/etc/resolv.conf", &o);
    struct ares_options ares = {.flags = ARES_FLAG_NOALIASES | ARES_FLAG_EDNS, .ednspsz = EDNS_SIZE,
                                .timeout = (int)(o.timeout_ms > 0 ? o.timeout_ms : TIMEOUT_MS),
                                .tries = (int)(o.tries > 0 ? o.tries : TRIES),
                                .sock_state_cb = on_state, .sock_state_cb_data = c,
                                .resolvconf_path = (char *)(uintptr_t)o.resolv_conf};
    int mask = ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
               ARES_OPT_SOCK_STATE_CB | (o.resolv_conf != NULL ? ARES_OPT_RESOLVCONF : 0);
    if (ares_init_options(&c->ares, &ares, mask) != ARES_SUCCESS) {
        mem_free(c);
        return ERR_LIMIT;
    }
    if (o.servers != NULL && ares_set_servers_ports_csv(c->ares, o.servers) != ARES_SUCCESS) {
        ares_destroy(c->ares);
        mem_free(c);
        return ERR_INVALID;
    }
    ares_set_socket_functions(c->ares, &socket_functions, c);
    c->loop = l;
    list_init(&c->watches);
    timer_init(&c->timer, on_timeout);
    *out = c;
    return OK;
}

void dns_channel_close(struct dns_channel *c)
{
    ares_destroy(c->ares); /* answers what is open, closes every socket */
    ASSERT(list_empty(&c->watches));
    timer_stop(&c->timer);
    mem_free(c);
}

/* --- questions --- */

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *ai)
{
    struct question q = *(struct question *)arg;
    (void)timeouts;
    mem_free(arg);
    q.answer(q.arg, status, ai);
}

void dns_ask_family(struct dns_channel *c, const char *name, int family, dns_answer *answer,
                    void *arg)
{
    struct ares_addrinfo_hints hints = {.ai_family = family, .ai_socktype = SOCK_STREAM};
    struct question *q = NEW(struct question);
    *q = (struct question){answer, arg};
    ares_getaddrinfo(c->ares, name, NULL, &hints, on_answer, q);
    settle(c);
}

void dns_ask(struct dns_channel *c, const char *name, dns_answer *answer, void *arg)
{
    dns_ask_family(c, name, AF_UNSPEC, answer, arg);
}

static void on_bytes(void *arg, int status, int timeouts, unsigned char *answer, int len)
{
    struct bytes_question q = *(struct bytes_question *)arg;
    (void)timeouts;
    mem_free(arg);
    q.answer(q.arg, status, answer, len);
}

void dns_ask_services(struct dns_channel *c, const char *name, dns_bytes *answer, void *arg)
{
    enum { CLASS_IN = 1, TYPE_SRV = 33 };
    struct bytes_question *q = NEW(struct bytes_question);
    *q = (struct bytes_question){answer, arg};
    ares_search(c->ares, name, CLASS_IN, TYPE_SRV, on_bytes, q);
    settle(c);
}

bool dns_ask_hosts(struct dns_channel *c, const char *name, int family, void *address)
{
    struct hostent *host;
    if (ares_gethostbyname_file(c->ares, name, family, &host) != ARES_SUCCESS)
        return false;
    bool found = host->h_addr_list[0] != NULL && host->h_length == (family == AF_INET6 ? 16 : 4);
    if (found)
        memcpy(address, host->h_addr_list[0], (size_t)host->h_length);
    ares_free_hostent(host);
    return found;
}
