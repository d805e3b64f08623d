/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the three load makers (load, open, idle) share: a keep-alive HTTP/1.1
 * client that costs as little as it can, and a histogram of latencies.
 *
 * The client sends one fixed request and reads one answer at a time. It reads
 * the head, takes the status and the Content-Length, and throws the body away
 * inside the kernel (MSG_TRUNC), so that a 100 MiB answer costs the load maker
 * no copy. An answer without a Content-Length, or with a status other than
 * 200, is an error: these tools measure servers whose answers are known.
 *
 * The histogram is of the HDR kind: 64 linear steps within each power of two,
 * so a value is off by less than 1.6 % whatever its size, in fixed memory.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_CAP = 4096, STEP_BITS = 6, STEPS = 1 << STEP_BITS, BINS = (64 - STEP_BITS) * STEPS };

/* One connection. `head_len` counts head bytes kept so far; `body_left` is only
 * meaningful while `in_body`. `began_ns` is when the request was sent or due. */
struct client {
    int fd;
    bool busy;
    bool in_body;
    size_t head_len;
    uint64_t body_left;
    uint64_t bytes;
    uint64_t began_ns;
    char head[HEAD_CAP + 1];
};

enum progress { WAITING, ANSWERED, BROKEN };

struct histogram {
    uint64_t count;
    uint64_t max;
    uint64_t bins[BINS];
};

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void fatal(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* A number in [low, high], or the program ends: a typo must not become a 0. */
static inline uint64_t number(const char *text, uint64_t low, uint64_t high)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || value < low || value > high) {
        fprintf(stderr, "bench: %s is not a number from %" PRIu64 " to %" PRIu64 "\n", text, low,
                high);
        exit(2);
    }
    return value;
}

static inline size_t bin_of(uint64_t value)
{
    if (value < STEPS)
        return (size_t)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - STEP_BITS;
    return (size_t)(shift + 1) * STEPS + (size_t)((value >> shift) - STEPS);
}

/* The highest value that falls into the bin: a percentile is never flattered. */
static inline uint64_t bin_top(size_t bin)
{
    if (bin < STEPS)
        return bin;
    unsigned shift = (unsigned)(bin / STEPS) - 1;
    return ((uint64_t)(bin % STEPS + STEPS + 1) << shift) - 1;
}

static inline void histogram_add(struct histogram *h, uint64_t value)
{
    h->bins[bin_of(value)]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

static inline uint64_t histogram_at(const struct histogram *h, double share)
{
    uint64_t rank = (uint64_t)((double)h->count * share), seen = 0;
    for (size_t i = 0; i < BINS; i++) {
        seen += h->bins[i];
        if (seen > rank)
            return bin_top(i) < h->max ? bin_top(i) : h->max;
    }
    return h->max;
}

static inline void histogram_print(const struct histogram *h)
{
    printf("\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f",
           (double)histogram_at(h, 0.5) / 1e3, (double)histogram_at(h, 0.99) / 1e3,
           (double)histogram_at(h, 0.999) / 1e3, (double)h->max / 1e3);
}

/* Connected and non-blocking, or -1 with errno. */
static inline int client_connect(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 5};
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline bool client_open(struct client *c, uint16_t port)
{
    c->fd = client_connect(port);
    c->busy = c->in_body = false;
    c->head_len = 0;
    return c->fd >= 0;
}

static inline bool client_send(struct client *c, const char *request, size_t len, uint64_t at_ns)
{
    c->busy = true;
    c->began_ns = at_ns;
    return send(c->fd, request, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

/* The value of Content-Length in a head that ends in NUL, or UINT64_MAX. */
static inline uint64_t content_length(const char *head)
{
    for (const char *line = strchr(head, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if ((*line | 0x20) == 'c' && strncasecmp(line, "content-length:", 15) == 0)
            return strtoull(line + 15, NULL, 10);
    }
    return UINT64_MAX;
}

/* Takes the head apart once its end is there. */
static inline enum progress client_take_head(struct client *c)
{
    c->head[c->head_len] = '\0';
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return c->head_len == HEAD_CAP ? BROKEN : WAITING;
    size_t here = c->head_len - (size_t)(end + 4 - c->head);
    end[2] = '\0';
    uint64_t length = content_length(c->head);
    if (strncmp(c->head, "HTTP/1.1 200", 12) != 0 || length == UINT64_MAX || here > length)
        return BROKEN;
    c->body_left = length - here;
    c->head_len = 0;
    c->in_body = c->body_left > 0;
    return c->in_body ? WAITING : ANSWERED;
}

/* Reads once. After ANSWERED the connection is free for the next request. */
static inline enum progress client_read(struct client *c, int flags)
{
    ssize_t n;
    if (c->in_body) {
        size_t want = c->body_left < (4u << 20) ? (size_t)c->body_left : (4u << 20);
        n = recv(c->fd, NULL, want, flags | MSG_TRUNC);
    } else {
        n = recv(c->fd, c->head + c->head_len, HEAD_CAP - c->head_len, flags);
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return WAITING;
    if (n <= 0 || !c->busy)
        return BROKEN;
    c->bytes += (uint64_t)n;
    enum progress got = WAITING;
    if (!c->in_body) {
        c->head_len += (size_t)n;
        got = client_take_head(c);
    } else if ((c->body_left -= (uint64_t)n) == 0) {
        c->in_body = false;
        got = ANSWERED;
    }
    if (got == ANSWERED)
        c->busy = false;
    return got;
}

/* The fixed request; the caller keeps the buffer. */
static inline size_t request_write(char *out, size_t cap, uint16_t port, const char *path)
{
    int n = snprintf(out, cap, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n", path, port);
    if (n < 0 || (size_t)n >= cap) {
        fprintf(stderr, "bench: the path is too long\n");
        exit(2);
    }
    return (size_t)n;
}

static inline void raise_fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static inline void watch(int epoll_fd, struct client *c)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        fatal("epoll_ctl");
}

#endif
