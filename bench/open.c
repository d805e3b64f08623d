/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open-loop load: requests fall due at a constant rate whatever the server
 * does, and a latency is counted from the moment the request was DUE. A server
 * that stalls for 50 ms is charged for every request that fell into the stall,
 * not for one per connection; that is what a closed loop leaves out.
 *
 *   open PORT PATH CONNECTIONS SECONDS RATE
 *
 * A request that falls due while every connection is busy waits for one, and
 * its wait counts. When the time is over, what is still out has up to one
 * second to come home; what then is missing is counted as `lost` and enters the
 * histogram with the age it had reached, so that an overloaded server cannot
 * look good by not answering. Prints one JSON line.
 */
#include "client.h"
#include <sys/prctl.h>

enum { EVENTS = 256, ERRORS_MAX = 1000 };

struct source {
    uint16_t port;
    int epoll_fd;
    char request[1024];
    size_t request_len;
    struct client **idle;
    size_t idle_count;
    uint64_t began_ns, rate, due_count, total;
    uint64_t answered, errors;
    struct histogram latencies;
};

static uint64_t due_ns(const struct source *s, uint64_t i)
{
    return s->began_ns + (uint64_t)((double)i * 1e9 / (double)s->rate);
}

static void replace(struct source *s, struct client *c)
{
    close(c->fd);
    if (++s->errors > ERRORS_MAX || !client_open(c, s->port)) {
        fprintf(stderr, "open: giving up after %" PRIu64 " errors\n", s->errors);
        exit(1);
    }
    watch(s->epoll_fd, c);
    s->idle[s->idle_count++] = c;
}

static void on_readable(struct source *s, struct client *c)
{
    if (!c->busy) {
        for (size_t i = 0; i < s->idle_count; i++)
            if (s->idle[i] == c)
                s->idle[i] = s->idle[--s->idle_count];
        replace(s, c);
        return;
    }
    enum progress got = client_read(c, MSG_DONTWAIT);
    if (got == WAITING)
        return;
    histogram_add(&s->latencies, now_ns() - c->began_ns);
    if (got == BROKEN) {
        replace(s, c);
        return;
    }
    s->answered++;
    s->idle[s->idle_count++] = c;
}

/* Sends what is due, as far as there are connections for it. */
static void send_due(struct source *s)
{
    uint64_t now = now_ns();
    while (s->due_count < s->total && s->idle_count > 0) {
        uint64_t due = due_ns(s, s->due_count);
        if (due > now)
            return;
        struct client *c = s->idle[--s->idle_count];
        s->due_count++;
        if (!client_send(c, s->request, s->request_len, due)) {
            histogram_add(&s->latencies, now_ns() - due);
            replace(s, c);
        }
    }
}

/* Until the next request is due; with no free connection, until an answer. */
static struct timespec wait_time(const struct source *s)
{
    uint64_t now = now_ns(), until = now + 10000000u;
    if (s->due_count < s->total && s->idle_count > 0)
        until = due_ns(s, s->due_count);
    uint64_t ns = until > now ? until - now : 0;
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
                             .tv_nsec = (long)(ns % 1000000000u)};
}

static void run(struct source *s, size_t count, uint64_t limit_ns)
{
    struct epoll_event events[EVENTS];
    while (now_ns() < limit_ns) {
        send_due(s);
        if (s->due_count == s->total && s->idle_count == count)
            return;
        struct timespec wait = wait_time(s);
        int n = epoll_pwait2(s->epoll_fd, events, EVENTS, &wait, NULL);
        if (n < 0 && errno != EINTR)
            fatal("epoll_pwait2");
        for (int i = 0; i < n; i++)
            on_readable(s, events[i].data.ptr);
    }
}

static uint64_t charge_lost(struct source *s, const struct client *clients, size_t count)
{
    uint64_t lost = 0, now = now_ns();
    for (size_t i = 0; i < count; i++) {
        if (!clients[i].busy)
            continue;
        histogram_add(&s->latencies, now - clients[i].began_ns);
        lost++;
    }
    for (uint64_t i = s->due_count; i < s->total; i++, lost++)
        histogram_add(&s->latencies, now - due_ns(s, i));
    return lost;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: open PORT PATH CONNECTIONS SECONDS RATE\n");
        return 2;
    }
    static struct source s;
    s.port = (uint16_t)number(argv[1], 1, 65535);
    s.request_len = request_write(s.request, sizeof s.request, s.port, argv[2]);
    size_t count = number(argv[3], 1, 60000);
    uint64_t seconds = number(argv[4], 1, 3600);
    s.rate = number(argv[5], 1, 10000000);
    s.total = s.rate * seconds;
    raise_fd_limit();
    prctl(PR_SET_TIMERSLACK, 1);

    struct client *clients = calloc(count, sizeof *clients);
    s.idle = calloc(count, sizeof *s.idle);
    s.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!clients || !s.idle || s.epoll_fd < 0)
        fatal("start");
    for (size_t i = 0; i < count; i++) {
        if (!client_open(&clients[i], s.port))
            fatal("connect");
        watch(s.epoll_fd, &clients[i]);
        s.idle[s.idle_count++] = &clients[i];
    }
    s.began_ns = now_ns() + 1000000u;
    run(&s, count, s.began_ns + (seconds + 1) * 1000000000u);

    uint64_t lost = charge_lost(&s, clients, count), bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += clients[i].bytes;
    printf("{\"due\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"lost\":%" PRIu64
           ",\"bytes\":%" PRIu64 ",\"rate\":%" PRIu64 ",",
           s.total, s.answered, s.errors, lost, bytes, s.rate);
    histogram_print(&s.latencies);
    printf("}\n");
    return 0;
}
