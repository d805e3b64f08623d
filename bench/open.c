/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open-loop load: requests fall due at a constant rate whatever the server
 * does, and a latency is counted from the moment the request was DUE. A server
 * that stalls for 50 ms is charged for every request that fell into the stall,
 * not for one per connection; that is what a closed loop leaves out.
 *
 *   open [-w CPU,…] PORT PATH CONNECTIONS SECONDS RATE [UPSTREAM_PORT …]
 *
 * A request that falls due while every connection is busy waits for one, and
 * its wait counts. When the time is over, what is still out has up to one
 * second to come home; what then is missing is counted as `lost` and enters the
 * histogram with the age it had reached, so that an overloaded server cannot
 * look good by not answering. Prints one JSON line.
 *
 * The percentile of a whole second is mostly the machine's own hiccups, a few milliseconds some times
 * a second on a shared one; so each tenth of a second has a histogram of its own as well, by when its
 * requests were due: the median of their percentiles is what the server does between two hiccups. With -w
 * the named cores have a witness each (witness.h), and the latencies of the tenths that none of them saw
 * disturbed are told apart, as pairs of a bin's upper end in ns and its count: `quiet`.
 *
 * With UPSTREAM_PORT it is also the server behind a gateway, in the same loop:
 * two processes on one core would wait for each other's time slice, and that
 * wait, some milliseconds, would be all that a percentile shows. The gateway
 * opens its connections while the first WARM_NS go by, which do not count. Of several upstreams the
 * first one pauses: in each second PAUSE_NS pass in which it reads and answers nothing. How many requests
 * came to it then is told as `paused`.
 */
#include "client.h"
#include "witness.h"
#include <sys/prctl.h>

enum { EVENTS = 256, ERRORS_MAX = 1000, UPSTREAM_MAX = 4096, UPSTREAMS_MAX = 8, WINDOWS_MAX = 600 };
#define WARM_NS 300000000u
#define WINDOW_NS 100000000u
#define PAUSE_NS 100000000u
#define PAUSE_FROM_NS 500000000u /* of each second */

struct source {
    uint16_t port;
    int epoll_fd;
    char request[1024];
    size_t request_len;
    struct client **idle;
    size_t idle_count;
    uint64_t began_ns, rate, due_count, total;
    uint64_t answered, errors, counts_from_ns;
    struct histogram latencies;
    struct histogram *windows; /* of WINDOW_NS each */
    size_t windows_count;
    int listeners[UPSTREAMS_MAX];
    unsigned upstreams; /* 0: not an upstream */
    bool pauses[UPSTREAM_MAX], held[UPSTREAM_MAX]; /* by descriptor */
    bool pausing;
    uint64_t paused;
};

/* An upstream's connections are known by their descriptor, the listeners by UPSTREAM_MAX and what follows. */
static const char answer[] = "HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: text/plain\r\n"
                             "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 13\r\n\r\n"
                             "Hello, world\n";

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

static void note_latency(struct source *s, uint64_t due)
{
    if (due < s->counts_from_ns)
        return;
    uint64_t latency = now_ns() - due, window = (due - s->began_ns) / WINDOW_NS;
    histogram_add(&s->latencies, latency);
    if (window < s->windows_count)
        histogram_add(&s->windows[window], latency);
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
    note_latency(s, c->began_ns);
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
            note_latency(s, due);
            replace(s, c);
        }
    }
}

/* --- the upstream --- */

static void add_upstream(struct source *s, int fd, uint64_t tag)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = tag};
    if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
        fatal("epoll_ctl");
}

static int listen_upstream(uint16_t port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 4096) < 0)
        fatal("upstream");
    return fd;
}

static void accept_upstream(struct source *s, unsigned which)
{
    int fd = accept4(s->listeners[which], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= UPSTREAM_MAX)
        fatal("too many connections to the upstream");
    if (fd < 0)
        return;
    s->pauses[fd] = which == 0 && s->upstreams > 1;
    s->held[fd] = false;
    add_upstream(s, fd, (uint64_t)fd);
}

static void hold(struct source *s, int fd, bool held)
{
    struct epoll_event ev = {.events = held ? 0 : EPOLLIN, .data.u64 = (uint64_t)fd};
    s->held[fd] = held;
    s->paused += held;
    epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, fd, &ev);
}

static void look_at_pause(struct source *s)
{
    uint64_t at = (now_ns() - s->began_ns) % 1000000000u;
    bool pausing = s->upstreams > 1 && at >= PAUSE_FROM_NS && at < PAUSE_FROM_NS + PAUSE_NS;
    if (s->pausing && !pausing)
        for (int fd = 0; fd < UPSTREAM_MAX; fd++)
            if (s->held[fd])
                hold(s, fd, false);
    s->pausing = pausing;
}

/* A gateway sends a small request at once: what ends in an empty line is whole. */
static void serve_upstream(struct source *s, uint64_t tag)
{
    char bytes[HEAD_CAP];
    int fd = (int)tag;
    if (tag >= UPSTREAM_MAX) {
        accept_upstream(s, (unsigned)(tag - UPSTREAM_MAX));
        return;
    }
    if (s->pausing && s->pauses[fd]) {
        if (!s->held[fd])
            hold(s, fd, true);
        return;
    }
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n >= 4 && memcmp(bytes + n - 4, "\r\n\r\n", 4) == 0)
        (void)!send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    else if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        close(fd);
}

static void on_event(struct source *s, const struct epoll_event *ev)
{
    if (ev->data.u64 < UPSTREAM_MAX + UPSTREAMS_MAX) /* no pointer is as small */
        serve_upstream(s, ev->data.u64);
    else
        on_readable(s, ev->data.ptr);
}

/* Until the next request is due; with no free connection, until an answer. */
static struct timespec wait_time(const struct source *s)
{
    uint64_t now = now_ns(), until = now + (s->upstreams > 1 ? 1000000u : 10000000u);
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
        look_at_pause(s);
        if (s->due_count == s->total && s->idle_count == count)
            return;
        struct timespec wait = wait_time(s);
        int n = epoll_pwait2(s->epoll_fd, events, EVENTS, &wait, NULL);
        if (n < 0 && errno != EINTR)
            fatal("epoll_pwait2");
        for (int i = 0; i < n; i++)
            on_event(s, &events[i]);
    }
}

static uint64_t charge_lost(struct source *s, const struct client *clients, size_t count)
{
    uint64_t lost = 0;
    for (size_t i = 0; i < count; i++) {
        if (!clients[i].busy)
            continue;
        note_latency(s, clients[i].began_ns);
        lost++;
    }
    for (uint64_t i = s->due_count; i < s->total; i++, lost++)
        note_latency(s, due_ns(s, i));
    return lost;
}

/* What a window has less than half of its requests of (the warm-up's) says nothing. */
static void print_windows(const struct source *s)
{
    const char *comma = "";
    printf(",\"windows_p999_us\":[");
    for (size_t i = 0; i < s->windows_count; i++) {
        const struct histogram *h = &s->windows[i];
        if (h->count < s->rate * WINDOW_NS / 2000000000u)
            continue;
        printf("%s%.1f", comma, (double)histogram_at(h, 0.999) / 1e3);
        comma = ",";
    }
    printf("]");
}

static struct witness witnesses[WITNESSES_MAX];
static size_t witnesses_count;
static atomic_bool disturbed[WINDOWS_MAX], unable;

static void name_witnesses(char *cpus)
{
    for (char *at; (at = strsep(&cpus, ",")) != NULL && witnesses_count < WITNESSES_MAX;)
        witnesses[witnesses_count++].cpu = (int)number(at, 0, 1023);
}

static void start_witnesses(const struct source *s)
{
    for (size_t i = 0; i < witnesses_count; i++) {
        pthread_t thread;
        witnesses[i] = (struct witness){witnesses[i].cpu, s->began_ns, WINDOW_NS, disturbed,
                                        s->windows_count, &unable};
        if (pthread_create(&thread, NULL, witness_run, &witnesses[i]) != 0)
            fatal("witness");
        pthread_detach(thread);
    }
}

static void print_quiet(const struct source *s)
{
    static struct histogram quiet;
    unsigned windows = 0;
    if (witnesses_count == 0 || unable)
        return;
    for (size_t w = 0; w < s->windows_count; w++) {
        if (disturbed[w] || s->windows[w].count == 0)
            continue;
        windows++;
        for (size_t i = 0; i < BINS; i++)
            quiet.bins[i] += s->windows[w].bins[i];
    }
    printf(",\"quiet_windows\":%u,\"quiet\":[", windows);
    const char *comma = "";
    for (size_t i = 0; i < BINS; i++) {
        if (quiet.bins[i] == 0)
            continue;
        printf("%s[%" PRIu64 ",%" PRIu64 "]", comma, bin_top(i), quiet.bins[i]);
        comma = ",";
    }
    printf("]");
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "-w") == 0) {
        name_witnesses(argv[2]);
        argv += 2;
        argc -= 2;
    }
    if (argc < 6 || argc > 6 + UPSTREAMS_MAX) {
        fprintf(stderr, "usage: open [-w CPU,…] PORT PATH CONNECTIONS SECONDS RATE [UPSTREAM_PORT …]\n");
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
    s.windows_count = seconds * 10 < WINDOWS_MAX ? seconds * 10 : WINDOWS_MAX;
    s.windows = calloc(s.windows_count, sizeof *s.windows);
    s.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!clients || !s.idle || !s.windows || s.epoll_fd < 0)
        fatal("start");
    for (; (int)s.upstreams < argc - 6; s.upstreams++) {
        s.listeners[s.upstreams] = listen_upstream((uint16_t)number(argv[6 + s.upstreams], 1, 65535));
        add_upstream(&s, s.listeners[s.upstreams], UPSTREAM_MAX + s.upstreams);
    }
    for (size_t i = 0; i < count; i++) {
        if (!client_open(&clients[i], s.port))
            fatal("connect");
        watch(s.epoll_fd, &clients[i]);
        s.idle[s.idle_count++] = &clients[i];
    }
    s.began_ns = now_ns() + 1000000u;
    s.counts_from_ns = s.upstreams > 0 ? s.began_ns + WARM_NS : 0;
    start_witnesses(&s);
    run(&s, count, s.began_ns + (seconds + 1) * 1000000000u);

    uint64_t lost = charge_lost(&s, clients, count), bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += clients[i].bytes;
    printf("{\"due\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"lost\":%" PRIu64
           ",\"bytes\":%" PRIu64 ",\"rate\":%" PRIu64
           ",\"paused\":%" PRIu64 ",",
           s.total, s.answered, s.errors, lost, bytes, s.rate, s.paused);
    histogram_print(&s.latencies);
    print_windows(&s);
    print_quiet(&s);
    printf("}\n");
    return 0;
}
