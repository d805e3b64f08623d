/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A closed-loop load: C connections, each sending its next request as soon as
 * the last answer is whole. It asks how much work a server can do, and says
 * nothing about tails: a slow server slows the questions too (for tails see
 * open.c). One thread, one epoll, no parsing beyond status and length.
 *
 *   load PORT PATH CONNECTIONS SECONDS [REQUESTS]
 *
 * With REQUESTS it stops after that many answers, for counting system calls;
 * SECONDS is then the limit. Prints one JSON line. A connection that breaks is
 * an error, counted, and opened again; 1,000 errors end the run.
 */
#include "client.h"

enum { ERRORS_MAX = 1000, EVENTS = 256 };

struct load {
    uint16_t port;
    int epoll_fd;
    char request[1024];
    size_t request_len;
    uint64_t sent, answered, errors, most;
    struct histogram latencies;
};

static void fire(struct load *l, struct client *c, uint64_t now);

static void replace(struct load *l, struct client *c, uint64_t now)
{
    l->errors++;
    close(c->fd);
    if (l->errors > ERRORS_MAX || !client_open(c, l->port)) {
        fprintf(stderr, "load: giving up after %" PRIu64 " errors\n", l->errors);
        exit(1);
    }
    watch(l->epoll_fd, c);
    l->sent--;
    fire(l, c, now);
}

static void fire(struct load *l, struct client *c, uint64_t now)
{
    if (l->sent >= l->most)
        return;
    l->sent++;
    if (!client_send(c, l->request, l->request_len, now))
        replace(l, c, now);
}

static void on_readable(struct load *l, struct client *c, uint64_t now)
{
    /* A server may close a connection that has nothing more to ask. */
    if (!c->busy) {
        epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
        l->errors++;
        return;
    }
    enum progress got = client_read(c, MSG_DONTWAIT);
    if (got == WAITING)
        return;
    if (got == BROKEN) {
        replace(l, c, now);
        return;
    }
    l->answered++;
    histogram_add(&l->latencies, now - c->began_ns);
    fire(l, c, now);
}

static void run(struct load *l, uint64_t end_ns)
{
    struct epoll_event events[EVENTS];
    uint64_t now = now_ns();
    while (now < end_ns && l->answered < l->most) {
        int n = epoll_wait(l->epoll_fd, events, EVENTS, 100);
        if (n < 0 && errno != EINTR)
            fatal("epoll_wait");
        now = now_ns();
        for (int i = 0; i < n; i++)
            on_readable(l, events[i].data.ptr, now);
    }
}

int main(int argc, char **argv)
{
    if (argc < 5 || argc > 6) {
        fprintf(stderr, "usage: load PORT PATH CONNECTIONS SECONDS [REQUESTS]\n");
        return 2;
    }
    static struct load l;
    l.port = (uint16_t)number(argv[1], 1, 65535);
    l.request_len = request_write(l.request, sizeof l.request, l.port, argv[2]);
    size_t count = number(argv[3], 1, 60000);
    uint64_t seconds = number(argv[4], 1, 3600);
    l.most = argc == 6 ? number(argv[5], 1, UINT64_MAX / 2) : UINT64_MAX / 2;
    raise_fd_limit();

    struct client *clients = calloc(count, sizeof *clients);
    l.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!clients || l.epoll_fd < 0)
        fatal("start");
    for (size_t i = 0; i < count; i++) {
        if (!client_open(&clients[i], l.port))
            fatal("connect");
        watch(l.epoll_fd, &clients[i]);
    }
    uint64_t began = now_ns(), bytes = 0;
    for (size_t i = 0; i < count; i++)
        fire(&l, &clients[i], now_ns());
    run(&l, began + seconds * 1000000000u);

    double took = (double)(now_ns() - began) / 1e9;
    for (size_t i = 0; i < count; i++)
        bytes += clients[i].bytes;
    printf("{\"requests\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"seconds\":%.4f,\"rate\":%.1f,",
           l.answered, l.errors, bytes, took, (double)l.answered / took);
    histogram_print(&l.latencies);
    printf("}\n");
    return 0;
}
