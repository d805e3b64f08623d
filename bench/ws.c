/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WebSockets through a gateway: the server behind it and the clients before it.
 *
 *   ws serve PORT                       an upstream that sends back what it gets
 *   ws load PORT PATH CONNECTIONS SECONDS
 *   ws idle PORT PATH CONNECTIONS       holds them silent until standard input closes
 *
 * Both say on a line how many are open; `load` begins when its standard input has a line.
 * Every connection asks for a WebSocket and, under load, sends one masked frame of
 * 64 bytes whenever the last one has come back, so that messages per CPU-second of
 * the gateway are what a closed loop gets. Gateways pass frames on unread, so the
 * upstream echoes bytes, not messages. A connection that ends is an error.
 */
#include "client.h"

enum { FRAME = 64 + 6, EVENTS = 256, ROOM = 16384 };

static const char agreed[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                             "Connection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/* --- the upstream --- */

static void on_upstream(int epoll_fd, int fd, bool *upgraded)
{
    static char bytes[ROOM];
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    const char *out = *upgraded ? bytes : agreed;
    size_t len = *upgraded && n > 0 ? (size_t)n : sizeof agreed - 1;
    if (n <= 0 || send(fd, out, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len) {
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        close(fd);
        return;
    }
    *upgraded = true; /* a request's head comes whole */
}

static int serve(uint16_t port)
{
    static bool upgraded[1 << 16];
    struct epoll_event events[EVENTS], ev = {.events = EPOLLIN};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 4096) < 0)
        fatal("listen");
    ev.data.fd = listener;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                on_upstream(epoll_fd, fd, &upgraded[fd]);
                continue;
            }
            ev.data.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (ev.data.fd < 0 || ev.data.fd >= 1 << 16)
                continue;
            upgraded[ev.data.fd] = false;
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ev.data.fd, &ev);
        }
    }
}

/* --- the clients --- */

struct socket_of {
    int fd;
    size_t missing; /* of the frame that comes back */
};

/* Asks and reads the 101; -1 when there is none. */
static int agree(uint16_t port, const char *path)
{
    char text[HEAD_CAP + 1];
    size_t len = 0;
    int fd = client_connect(port);
    int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, port);
    if (fd < 0 || send(fd, text, (size_t)n, MSG_NOSIGNAL) != n)
        return -1;
    do { /* nothing follows it yet */
        ssize_t got = recv(fd, text + len, HEAD_CAP - len, 0);
        if (got <= 0)
            return -1;
        len += (size_t)got;
        text[len] = '\0';
    } while (len < HEAD_CAP && strstr(text, "\r\n\r\n") == NULL);
    return strncmp(text, "HTTP/1.1 101", 12) == 0 ? fd : -1;
}

static struct socket_of *open_all(uint16_t port, const char *path, size_t count, size_t *open)
{
    struct socket_of *all = calloc(count, sizeof *all);
    raise_fd_limit();
    if (all == NULL)
        fatal("start");
    for (*open = 0; *open < count; ++*open) {
        all[*open].fd = agree(port, path);
        if (all[*open].fd < 0)
            break;
    }
    return all;
}

static bool say(struct socket_of *s)
{
    static const char frame[FRAME] = {(char)0x82, (char)(0x80 | 64), 1, 2, 3, 4};
    s->missing = FRAME;
    return send(s->fd, frame, FRAME, MSG_NOSIGNAL | MSG_DONTWAIT) == FRAME;
}

static int load(uint16_t port, const char *path, size_t count, uint64_t seconds)
{
    size_t open;
    uint64_t messages = 0, errors = 0;
    struct socket_of *all = open_all(port, path, count, &open);
    struct epoll_event events[EVENTS];
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    char line[16];
    errors += count - open;
    printf("{\"open\":%zu,\"errors\":%" PRIu64 "}\n", open, errors);
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL)
        return 1;
    for (size_t i = 0; i < open; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, all[i].fd, &ev);
        errors += !say(&all[i]);
    }
    uint64_t began = now_ns(), now = began;
    while (now < began + seconds * 1000000000u && errors == 0) {
        int n = epoll_wait(epoll_fd, events, EVENTS, 100);
        for (int i = 0; i < n; i++) {
            struct socket_of *s = events[i].data.ptr;
            char bytes[FRAME];
            ssize_t got = recv(s->fd, bytes, s->missing, MSG_DONTWAIT);
            if (got < 0 && errno == EAGAIN)
                continue;
            errors += got <= 0;
            s->missing -= got > 0 ? (size_t)got : 0;
            if (got > 0 && s->missing == 0) {
                messages++;
                errors += !say(s);
            }
        }
        now = now_ns();
    }
    double took = (double)(now - began) / 1e9;
    printf("{\"requests\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"seconds\":%.4f,\"rate\":%.1f}\n",
           messages, errors, messages * FRAME, took, (double)messages / took);
    return 0;
}

static int idle(uint16_t port, const char *path, size_t count)
{
    size_t open, closed = 0;
    char byte;
    struct socket_of *all = open_all(port, path, count, &open);
    struct linger reset = {.l_onoff = 1};
    printf("{\"open\":%zu,\"errors\":%d}\n", open, open < count);
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    for (size_t i = 0; i < open; i++) {
        ssize_t n = recv(all[i].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        closed += n == 0 || (n < 0 && errno != EAGAIN);
        setsockopt(all[i].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(all[i].fd);
    }
    printf("{\"closed\":%zu}\n", closed);
    return open < count;
}

int main(int argc, char **argv)
{
    raise_fd_limit();
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve((uint16_t)number(argv[2], 1, 65535));
    if (argc == 6 && strcmp(argv[1], "load") == 0)
        return load((uint16_t)number(argv[2], 1, 65535), argv[3], number(argv[4], 1, 60000),
                    number(argv[5], 1, 3600));
    if (argc == 5 && strcmp(argv[1], "idle") == 0)
        return idle((uint16_t)number(argv[2], 1, 65535), argv[3], number(argv[4], 1, 60000));
    fprintf(stderr, "usage: ws serve PORT | load PORT PATH CONNECTIONS SECONDS | "
            "idle PORT PATH CONNECTIONS\n");
    return 2;
}
