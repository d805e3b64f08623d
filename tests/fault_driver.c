/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault driver: many rounds between clients and upstreams that misbehave by a seed, with a gateway
 * in the middle; fault.h says what a round is, fault_plan.c what must come of it.
 *
 *   fault_driver SEED ROUNDS SLOTS GATEWAY_PORT ROUTES [/PEM] GROUP:KIND:PORT …
 *
 * ROUTES are letters of the table in fault_plan.c; KIND is 1 (HTTP/1), f (FastCGI), 2 (h2c), s (HTTP/1 over
 * TLS) or t (HTTP/2 over TLS), with the chain and the key in the file PEM. At most SLOTS clients are there at
 * once. Prints a line of JSON; the exit status is 1 when something happened
 * that must not, each of which is a line before it.
 */
#include "fault.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, READ_MAX = 65536, VIOLATIONS_SHOWN = 20 };

uint64_t fault_seed, loop_time;
uint64_t conn_faults_ns[GROUPS_MAX], spoilt_ns[GROUPS_MAX];
static unsigned violations;

static struct {
    int epoll_fd;
    struct conn *all, *dead;
    unsigned open;
} loop;

/* --- bytes --- */

static void reserve(struct bytes *b, size_t more)
{
    if (b->len + more <= b->cap)
        return;
    b->cap = (b->len + more) * 2;
    b->at = realloc(b->at, b->cap);
    if (b->at == NULL)
        abort();
}

void bytes_add(struct bytes *b, const void *from, size_t n)
{
    reserve(b, n);
    if (n > 0)
        memcpy(b->at + b->len, from, n);
    b->len += n;
}

void bytes_drop(struct bytes *b, size_t n)
{
    if (n > 0)
        memmove(b->at, b->at + n, b->len - n);
    b->len -= n;
}

void bytes_print(struct bytes *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    reserve(b, 512);
    int n = vsnprintf(b->at + b->len, 512, format, args);
    va_end(args);
    if (n < 0 || n >= 512)
        abort();
    b->len += (size_t)n;
}

void violation(const struct round *r, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (violations++ < VIOLATIONS_SHOWN) {
        printf("# ");
        if (r != NULL)
            round_print(r);
        printf("%s\n", text);
    }
}

/* --- connections --- */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

unsigned conns_open(void)
{
    return loop.open;
}

void conn_start(struct conn *c, int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->fd = fd;
    c->stop_at = SIZE_MAX;
    c->wake_ns = NEVER;
    c->next = loop.all;
    c->link = &loop.all;
    if (loop.all != NULL)
        loop.all->link = &c->next;
    loop.all = c;
    loop.open++;
    struct epoll_event ev = {.events = 0, .data.ptr = c};
    if (epoll_ctl(loop.epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
        abort();
    conn_update(c);
}

static size_t sendable(const struct conn *c)
{
    size_t n = c->out.len, room = c->stop_at - c->sent;
    n = n < room ? n : room;
    if (c->sent < c->split_at && n > c->split_at - c->sent)
        return c->split_at - c->sent;
    return c->piece > 0 && n > c->piece && loop_time < c->hurry_ns ? c->piece : n;
}

void conn_update(struct conn *c)
{
    if (c->dead)
        return;
    uint32_t events = 0;
    if (!c->eof && !c->broken && c->deaf_until_ns <= loop_time)
        events |= EPOLLIN;
    if (c->connecting || (c->wire.len > 0 && !c->hung) ||
        (sendable(c) > 0 && c->next_ns <= loop_time && !c->broken && !c->hung && tls_ready(c)))
        events |= EPOLLOUT;
    if (events == c->events)
        return;
    struct epoll_event ev = {.events = events, .data.ptr = c};
    c->events = events;
    epoll_ctl(loop.epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

static void on_rest_input(struct conn *c)
{
    if (c->broken)
        conn_close(c);
}

static void on_rest_free(struct conn *c)
{
    free(c);
}

/* What of a connection that is closed has not left yet. */
static void leave_rest(struct conn *c)
{
    struct conn *rest = calloc(1, sizeof *rest);
    int fd = dup(c->fd);
    if (rest == NULL || fd < 0)
        abort();
    *rest = (struct conn){.on_input = on_rest_input, .on_sent = conn_close, .on_free = on_rest_free};
    conn_start(rest, fd);
    conn_send(rest, c->wire.at, c->wire.len);
}

void conn_close(struct conn *c)
{
    if (!c->dead && c->tls != NULL && !c->hung) {
        tls_say_end(c);
        ssize_t n = c->wire.len > 0 ? send(c->fd, c->wire.at, c->wire.len, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
        if (n >= 0 || errno == EAGAIN)
            bytes_drop(&c->wire, n > 0 ? (size_t)n : 0);
        else
            c->wire.len = 0;
        if (c->wire.len > 0)
            leave_rest(c);
    }
    conn_cut(c);
}

void conn_cut(struct conn *c)
{
    if (c->dead)
        return;
    close(c->fd);
    c->dead = true;
    *c->link = c->next;
    if (c->next != NULL)
        c->next->link = c->link;
    c->next = loop.dead;
    loop.dead = c;
    loop.open--;
}

void conn_reset(struct conn *c)
{
    struct linger now = {1, 0};
    if (!c->dead)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    conn_cut(c);
}

void conn_half_close(struct conn *c)
{
    if (c->dead)
        return;
    if (c->tls == NULL) {
        shutdown(c->fd, SHUT_WR);
        return;
    }
    tls_say_end(c);
    c->half_due = true;
    conn_update(c);
}

void conn_send(struct conn *c, const void *bytes, size_t n)
{
    bytes_add(&c->out, bytes, n);
    conn_update(c);
}

static void free_dead(void)
{
    while (loop.dead != NULL) {
        struct conn *c = loop.dead;
        loop.dead = c->next;
        free(c->in.at);
        free(c->out.at);
        tls_free(c);
        c->on_free(c);
    }
}

/* How much of it has left; it does not come back where that is nothing because nobody is there. */
static size_t send_now(struct conn *c, const char *bytes, size_t n)
{
    ssize_t done = send(c->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done >= 0)
        return (size_t)done;
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    c->out.len = c->wire.len = c->sealed = 0;
    c->broken |= c->eof; /* else its end will be read, behind what came before it */
    if (c->broken)
        c->on_input(c);
    return 0;
}

/* True once all of it has left. */
static bool send_wire(struct conn *c)
{
    size_t n = c->wire.len, room = c->cut_at - c->wire_sent;
    n = n < room ? n : room;
    if (n > 0) {
        n = send_now(c, c->wire.at, n);
        if (c->dead)
            return false;
        bytes_drop(&c->wire, n);
        c->wire_sent += n;
    }
    if (c->wire_sent == c->cut_at)
        c->on_cut(c);
    return !c->dead && !c->hung && c->wire.len == 0;
}

/* How much of `out` has left. */
static size_t send_sealed(struct conn *c)
{
    if (c->hung)
        return 0;
    if (c->wire.len == 0 && c->next_ns <= loop_time)
        tls_seal(c, sendable(c));
    if (c->broken) {
        c->out.len = c->wire.len = 0;
        c->on_input(c);
        return 0;
    }
    if (!send_wire(c))
        return 0;
    if (c->half_due)
        shutdown(c->fd, SHUT_WR);
    c->half_due = false;
    size_t n = c->sealed;
    c->sealed = 0;
    return n;
}

static void write_some(struct conn *c)
{
    c->connecting = false;
    if (c->tls == NULL && sendable(c) == 0)
        return;
    size_t done = c->tls != NULL ? send_sealed(c) : send_now(c, c->out.at, sendable(c));
    if (done == 0 || c->dead)
        return;
    bytes_drop(&c->out, done);
    c->sent += done;
    if (c->sent == c->split_at && sendable(c) > 0) { /* in the next moment */
        write_some(c);
        return;
    }
    c->next_ns = c->pause_ns > 0 && loop_time < c->hurry_ns ? loop_time + c->pause_ns : 0;
    if ((c->out.len == 0 || c->sent == c->stop_at) && c->on_sent != NULL)
        c->on_sent(c);
}

static void read_some(struct conn *c)
{
    static char bytes[READ_MAX];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0 && c->tls != NULL)
        tls_take(c, bytes, (size_t)n);
    else if (n > 0)
        bytes_add(&c->in, bytes, (size_t)n);
    c->eof |= n == 0;
    c->broken |= n < 0;
    c->on_input(c);
}

static void on_event(struct conn *c, uint32_t events)
{
    if (!c->dead && (events & EPOLLOUT))
        write_some(c);
    bool deaf = c->deaf_until_ns > loop_time;
    if (!c->dead && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !c->eof && !c->broken &&
        (!deaf || (events & (EPOLLERR | EPOLLHUP))))
        read_some(c);
    conn_update(c);
}

static void wake_all(void)
{
    for (struct conn *c = loop.all, *next; c != NULL; c = next) {
        next = c->next;
        if (c->wake_ns <= loop_time) {
            c->wake_ns = NEVER;
            c->on_wake(c);
            next = loop.all; /* others may be gone */
        }
    }
    for (struct conn *c = loop.all; c != NULL; c = c->next)
        conn_update(c);
}

static void turn(void)
{
    static uint64_t woken;
    struct epoll_event events[EVENTS];
    int n = epoll_wait(loop.epoll_fd, events, EVENTS, 1);
    loop_time = now_ns();
    for (int i = 0; i < n; i++)
        on_event(events[i].data.ptr, events[i].events);
    if (loop_time - woken >= MS) {
        woken = loop_time;
        wake_all();
        upstreams_check();
    }
    free_dead();
}

/* --- the run --- */

static uint32_t begun;

static void begin_client(uint16_t port, struct dice *d)
{
    struct round *own[STREAMS_MAX];
    unsigned count = 1 + dice_below(d, STREAMS_MAX);
    bool h2 = dice_percent(d, 40);
    unsigned n = 0;
    while (n < count && begun < rounds_count) {
        struct round *r = &rounds[begun++];
        round_plan(r, r->token);
        r->h2 = h2;
        own[n++] = r;
        if (r->tunnel && !h2) { /* has a connection of its own */
            if (n > 1) {
                begun--;
                n--;
            }
            break;
        }
    }
    (h2 ? h2_client_begin : client_begin)(port, own, n, d);
}

static void run(uint16_t port, unsigned slots)
{
    struct dice d = dice_of(fault_seed, 1, 1);
    uint64_t until = loop_time + 20000 * MS;
    while (!upstreams_known() && loop_time < until)
        turn();
    if (!upstreams_known())
        violation(NULL, "upstreams are not asked for their health");
    while (begun < rounds_count || clients_open() > 0) {
        while (begun < rounds_count && clients_open() < slots)
            begin_client(port, &d);
        turn();
    }
    until = loop_time + 10000 * MS;
    while (upstreams_busy() > 0 && loop_time < until)
        turn();
    upstreams_blame();
}

static uint16_t port_of(const char *text)
{
    long n = strtol(text, NULL, 10);
    return n > 0 && n < 65536 ? (uint16_t)n : (uint16_t)(fprintf(stderr, "no port: %s\n", text), exit(2), 0);
}

static bool listen_as(const char *word)
{
    if (word[0] == '/') {
        tls_load(word);
        return true;
    }
    const char *kind = strchr(word, ':');
    unsigned group = (unsigned)strtoul(word, NULL, 10);
    if (kind == NULL || kind[1] == 0 || kind[2] != ':' || group >= GROUPS_MAX)
        return false;
    bool tls = kind[1] == 's' || kind[1] == 't';
    upstream_listen(kind[1] == 'f' ? FASTCGI : kind[1] == '2' || kind[1] == 't' ? HTTP2 : HTTP1, tls, group,
                    port_of(kind + 3));
    return true;
}

int main(int argc, char **argv)
{
    if (argc < 7) {
        fprintf(stderr, "usage: fault_driver SEED ROUNDS SLOTS PORT ROUTES [/PEM] GROUP:KIND:PORT …\n");
        return 2;
    }
    fault_seed = strtoull(argv[1], NULL, 10);
    loop.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop_time = now_ns();
    if (!rounds_create((uint32_t)strtoul(argv[2], NULL, 10), argv[5]))
        return 2;
    for (int i = 6; i < argc; i++)
        if (!listen_as(argv[i]))
            return 2;
    run(port_of(argv[4]), (unsigned)strtoul(argv[3], NULL, 10));
    rounds_print(violations);
    fflush(stdout);
    return violations > 0;
}
