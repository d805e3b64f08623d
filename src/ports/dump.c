/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A short dump per protocol and family, filtered by the kernel to the states that matter. Where the
 * diagnostics are refused (a sandbox, a kernel without them) the tables of /proc/net stand in.
 * A protocol that the kernel has not is no error: it answers ENOENT and there is no table either.
 *
 * TCP sockets that are bound and do nothing else are told since Linux 6.8, from another hash table
 * than listening ones, which has a lock per bucket: that walk costs milliseconds, so it is made once
 * for both families, only where it is asked for, and by itself.
 */
#include "ports/dump.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/mem.h"
#include "ports/proc_net.h"
#include "ports/processes.h"
#include "ports/sock_diag.h"

enum { RECEIVE = 64 << 10, TRIES = 3, WAIT_S = 5, TABLE_MAX = 256 << 20 };

#define BIT(state) (UINT32_C(1) << (state))

struct query {
    enum port_protocol protocol;
    int family, number;
    uint32_t states;
    const char *table; /* of /proc/net; NULL: none, or another query's */
    bool inactive;
};

static const struct query queries[] = {
    {PORT_TCP, AF_INET, IPPROTO_TCP, BIT(STATE_LISTEN), "tcp", false},
    {PORT_TCP, AF_INET6, IPPROTO_TCP, BIT(STATE_LISTEN), "tcp6", false},
    {PORT_UDP, AF_INET, IPPROTO_UDP, BIT(STATE_CLOSE), "udp", false},
    {PORT_UDP, AF_INET6, IPPROTO_UDP, BIT(STATE_CLOSE), "udp6", false},
    {PORT_UDPLITE, AF_INET, IPPROTO_UDPLITE, BIT(STATE_CLOSE), "udplite", false},
    {PORT_UDPLITE, AF_INET6, IPPROTO_UDPLITE, BIT(STATE_CLOSE), "udplite6", false},
    {PORT_SCTP, AF_INET, IPPROTO_SCTP, BIT(STATE_LISTEN) | BIT(STATE_CLOSE), "sctp/eps", false},
    {PORT_SCTP, AF_INET6, IPPROTO_SCTP, BIT(STATE_LISTEN) | BIT(STATE_CLOSE), NULL, false},
    {PORT_DCCP, AF_INET, IPPROTO_DCCP, BIT(STATE_LISTEN), NULL, false},
    {PORT_DCCP, AF_INET6, IPPROTO_DCCP, BIT(STATE_LISTEN), NULL, false},
    {PORT_TCP, AF_UNSPEC, IPPROTO_TCP, BIT(STATE_BOUND_INACTIVE), NULL, true},
};

enum { QUERIES = sizeof queries / sizeof queries[0] };

int dump_open(void)
{
    struct timeval wait = {.tv_sec = WAIT_S};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    return fd;
}

/* One datagram of the kernel's, from nobody else. */
static enum err receive(int fd, char *buffer, size_t *len)
{
    struct sockaddr_nl from;
    for (;;) {
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, buffer, RECEIVE, MSG_TRUNC, (struct sockaddr *)&from, &size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || n > RECEIVE)
            return n < 0 ? err_from_errno(errno) : ERR_IO;
        *len = (size_t)n;
        if (from.nl_pid == 0)
            return OK;
    }
}

static enum err ask(int fd, const struct query *q, uint32_t sequence, char *buffer, struct dump *d,
                    bool *torn)
{
    char request[DIAG_REQUEST_MAX];
    struct diag_reply r = {.sequence = sequence, .protocol = q->protocol};
    size_t len = 0;
    size_t asked = diag_request(request, q->family, q->number, q->states, sequence);
    if (send(fd, request, asked, 0) != (ssize_t)asked)
        return err_from_errno(errno);
    while (!r.done) {
        TRY(receive(fd, buffer, &len));
        TRY(diag_parse(slice_of(buffer, len), &r, d->list));
    }
    *torn = r.torn;
    return err_from_errno(r.error);
}

/* As often as the kernel says that its answer is of two moments. */
static enum err ask_until_whole(int fd, const struct query *q, uint32_t *sequence, char *buffer,
                                struct dump *d)
{
    size_t before = d->list->count;
    bool torn = true;
    enum err e = OK;
    for (int i = 0; e == OK && torn && i < TRIES; i++) {
        d->list->count = before;
        e = ask(fd, q, ++*sequence, buffer, d, &torn);
    }
    if (e != OK && e != ERR_LIMIT)
        d->list->count = before;
    else if (torn)
        d->torn = true;
    return e;
}

static enum err read_table(const struct query *q, struct dump *d)
{
    char path[64];
    struct buffer b;
    size_t odd = 0, first = d->list->count;
    if (d->pid != 0)
        snprintf(path, sizeof path, "/proc/%d/net/%s", (int)d->pid, q->table);
    else
        snprintf(path, sizeof path, "/proc/thread-self/net/%s", q->table);
    buffer_init(&b, TABLE_MAX);
    enum err e = read_whole_at(AT_FDCWD, path, &b);
    if (e == OK && q->protocol == PORT_SCTP)
        e = proc_sctp_parse(buffer_slice(&b), d->list, &odd);
    else if (e == OK)
        e = proc_net_parse(buffer_slice(&b), q->protocol, q->family == AF_INET6, d->list, &odd);
    buffer_deinit(&b);
    d->guessed = d->guessed || d->list->count > first;
    return e;
}

/* The diagnostics of one protocol and family, or its table. */
static enum err read_query(int fd, const struct query *q, uint32_t *sequence, char *buffer,
                           struct dump *d)
{
    enum err e = ERR_UNSUPPORTED;
    if (fd >= 0)
        e = ask_until_whole(fd, q, sequence, buffer, d);
    if (e == OK || e == ERR_LIMIT)
        return e;
    if (q->table == NULL)
        return ERR_NOT_FOUND;
    return read_table(q, d);
}

enum err dump_sockets(struct dump *d)
{
    static _Atomic uint32_t sequences; /* so that a late answer is never taken for another's */
    uint32_t sequence = atomic_fetch_add(&sequences, 256);
    size_t first = d->list->count, read = 0;
    enum err worst = ERR_NOT_FOUND;
    char *buffer = mem_alloc(RECEIVE);
    int fd = d->from_procfs || d->pid != 0 ? -1 : d->diag >= 0 ? d->diag : dump_open();
    for (size_t i = 0; i < QUERIES && !d->full; i++) {
        if (queries[i].inactive != d->inactive)
            continue;
        enum err e = read_query(fd, &queries[i], &sequence, buffer, d);
        d->full = e == ERR_LIMIT;
        read += e == OK || e == ERR_LIMIT;
        if (e != OK && e != ERR_NOT_FOUND)
            worst = e;
    }
    if (fd >= 0 && fd != d->diag)
        close(fd);
    mem_free(buffer);
    if (d->guessed)
        proc_net_guess_dual(d->list, first);
    for (size_t i = first; i < d->list->count; i++)
        d->list->items[i].netns = d->netns;
    return read > 0 ? OK : worst;
}
