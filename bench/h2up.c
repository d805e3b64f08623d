/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The upstream of the scene "h2 → h2c": a bare server of HTTP/2 in clear text that does not look at
 * a request at all. Each stream that a client ends is answered with the same 13 bytes; what HEADERS say
 * is skipped, so that the answer costs next to nothing beside what the gateway under test does.
 *
 *   h2up PORT
 *
 * One thread, epoll. Answers of one read leave in one send. The fields of the first answer of a
 * connection go into the client's table, those behind it are indices, as of other servers; a
 * client whose table is smaller than the usual 4,096 bytes gets literals. Requests with a body, bodies' windows
 * and clients that do not read are no part of the scene: a short send ends the connection.
 */
#include "client.h"

#include <stdlib.h>

enum { FDS_MAX = 4096, EVENTS = 64, FRAME_MAX = 16384, IN_CAP = 256 * 1024, HEAD = 9 };
enum { KIND_HEADERS = 1, KIND_SETTINGS = 4, KIND_PING = 6, KIND_CONTINUATION = 9 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/* :status 200, and server, date, content-type and content-length: kept, literal, or as indices of the
 * client's table behind the first kind. */
#define DATE "Thu, 01 Jan 1970 00:00:00 GMT"
static const char kept[] = "\x88\x76\x05" "floor" "\x61\x1d" DATE "\x5f\x0a" "text/plain" "\x5c\x02" "13";
static const char plain[] = "\x88\x0f\x27\x05" "floor" "\x0f\x12\x1d" DATE "\x0f\x10\x0a" "text/plain"
                            "\x0f\x0d\x02" "13";
static const char again[] = "\x88\xc1\xc0\xbf\xbe";
static const char body[] = "Hello, world\n";

struct peer {
    int fd;
    bool greeted, told, small_table;
    size_t len;
    uint8_t in[IN_CAP];
};

struct out {
    size_t len;
    uint8_t bytes[IN_CAP * 4];
};

static struct peer *peers[FDS_MAX];
static struct out out;
static int epoll_fd;

static void put_head(size_t len, uint8_t kind, uint8_t flags, uint32_t stream)
{
    uint8_t *at = out.bytes + out.len;
    at[0] = (uint8_t)(len >> 16), at[1] = (uint8_t)(len >> 8), at[2] = (uint8_t)len;
    at[3] = kind, at[4] = flags;
    for (int i = 0; i < 4; i++)
        at[5 + i] = (uint8_t)(stream >> (24 - 8 * i));
    out.len += HEAD;
}

static void put(const void *bytes, size_t len)
{
    memcpy(out.bytes + out.len, bytes, len);
    out.len += len;
}

static void answer(struct peer *p, uint32_t stream)
{
    const char *block = p->small_table ? plain : p->told ? again : kept;
    size_t len = p->small_table ? sizeof plain - 1 : p->told ? sizeof again - 1 : sizeof kept - 1;
    p->told = true;
    put_head(len, KIND_HEADERS, END_HEADERS, stream);
    put(block, len);
    put_head(sizeof body - 1, 0, END_STREAM, stream);
    put(body, sizeof body - 1);
}

static void on_settings(struct peer *p, const uint8_t *at, size_t len)
{
    for (size_t i = 0; i + 6 <= len; i += 6) {
        uint32_t value = (uint32_t)at[i + 2] << 24 | (uint32_t)at[i + 3] << 16 |
                         (uint32_t)at[i + 4] << 8 | at[i + 5];
        if (at[i] == 0 && at[i + 1] == 1 && value < 4096)
            p->small_table = true;
    }
    put_head(0, KIND_SETTINGS, ACK, 0);
}

/* A stream is answered when its header block has ended: requests of the scene have no body. */
static void on_frame(struct peer *p, const uint8_t *frame, size_t len)
{
    uint8_t kind = frame[3], flags = frame[4];
    uint32_t stream = (uint32_t)(frame[5] & 0x7f) << 24 | (uint32_t)frame[6] << 16 |
                      (uint32_t)frame[7] << 8 | frame[8];
    if ((kind == KIND_HEADERS || kind == KIND_CONTINUATION) && (flags & END_HEADERS) != 0) {
        answer(p, stream);
    } else if (kind == KIND_SETTINGS && (flags & ACK) == 0) {
        on_settings(p, frame + HEAD, len);
    } else if (kind == KIND_PING && (flags & ACK) == 0 && len == 8) {
        put_head(8, KIND_PING, ACK, 0);
        put(frame + HEAD, 8);
    }
}

/* False: the peer has gone, or speaks something else. */
static bool take(struct peer *p)
{
    size_t at = 0;
    if (!p->greeted) {
        if (p->len < sizeof preface - 1)
            return memcmp(p->in, preface, p->len) == 0;
        if (memcmp(p->in, preface, sizeof preface - 1) != 0)
            return false;
        at = sizeof preface - 1;
        p->greeted = true;
        put_head(6, KIND_SETTINGS, 0, 0); /* 250 streams at a time, as of the others */
        put("\0\3\0\0\0\xfa", 6);
    }
    while (p->len - at >= HEAD) {
        const uint8_t *frame = p->in + at;
        size_t len = (size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2];
        if (len > FRAME_MAX || out.len > sizeof out.bytes - 512) /* more streams than were allowed */
            return false;
        if (p->len - at < HEAD + len)
            break;
        on_frame(p, frame, len);
        at += HEAD + len;
    }
    memmove(p->in, p->in + at, p->len - at);
    p->len -= at;
    return true;
}

static void drop(struct peer *p)
{
    close(p->fd);
    peers[p->fd] = NULL;
    free(p);
}

static void on_ready(struct peer *p)
{
    ssize_t n = recv(p->fd, p->in + p->len, IN_CAP - p->len, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        drop(p);
        return;
    }
    p->len += (size_t)n;
    out.len = 0;
    bool good = take(p);
    if (out.len > 0)
        good = send(p->fd, out.bytes, out.len, MSG_NOSIGNAL) == (ssize_t)out.len && good;
    if (!good)
        drop(p);
}

static int listen_on(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0)
        fatal("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 4096) < 0)
        fatal("listen");
    return fd;
}

static void await_input(int fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
        fatal("epoll_ctl");
}

static void on_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (fd >= FDS_MAX) {
        close(fd);
        return;
    }
    peers[fd] = calloc(1, sizeof(struct peer));
    if (peers[fd] == NULL)
        fatal("memory");
    peers[fd]->fd = fd;
    await_input(fd);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: h2up PORT\n");
        return 2;
    }
    struct epoll_event events[EVENTS];
    int listener = listen_on((uint16_t)number(argv[1], 1, 65535));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        fatal("epoll_create1");
    await_input(listener);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                on_accept(listener);
            else if (peers[fd] != NULL)
                on_ready(peers[fd]);
        }
    }
}
