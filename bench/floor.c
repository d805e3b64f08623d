/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor: what the kernel alone costs. Bare servers that do not look at a
 * request beyond its last four bytes, and answer fixed bytes or pass the bytes
 * on. No web server on the same machine can be cheaper by the same means, so
 * the distance to the floor is what a server's own work costs.
 *
 *   floor epoll|uring PORT answer BODY_BYTES
 *   floor epoll|uring PORT forward UPSTREAM_PORT
 *
 * One thread. Each client of a forwarder gets an upstream connection of its
 * own, kept as long as the client's. A peer sends one request at a time (no
 * pipelining), and what is sent fits the socket's buffer; a short send ends the
 * connection instead of being continued. In io_uring the shape is the one that
 * measured best: multishot accept, multishot recv from a ring of buffers, plain
 * sends, deferred task work on a single issuer.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "client.h"
#include <liburing.h>

enum { FDS_MAX = 65536, EVENTS = 256, READ_CAP = 16384, RING_BUFFERS = 1024, BUFFER_SIZE = 4096 };

struct floor {
    const char *answer;
    size_t answer_len;
    uint16_t upstream_port; /* 0: answer by itself */
    int listen_fd;
    int epoll_fd;
    struct io_uring ring;
    struct io_uring_buf_ring *buffers;
    char *memory;
    /* By descriptor: the other side of a forwarded connection, or -1. */
    int pair[FDS_MAX];
};

static struct floor floor_;

static int listen_on(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0)
        fatal("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 4096) < 0)
        fatal("listen");
    return fd;
}

static void make_answer(struct floor *f, size_t body_len)
{
    size_t cap = body_len + 256;
    char *text = malloc(cap);
    if (!text)
        fatal("memory");
    int n = snprintf(text, cap,
                     "HTTP/1.1 200 OK\r\nServer: floor\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
                     "Content-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
                     body_len);
    memset(text + n, 'x', body_len);
    /* The 13 bytes are the ones that the static scene's file holds. */
    if (body_len == 13)
        memcpy(text + n, "Hello, world\n", 13);
    f->answer = text;
    f->answer_len = (size_t)n + body_len;
}

static bool whole_request(const char *bytes, size_t len)
{
    return len >= 4 && memcmp(bytes + len - 4, "\r\n\r\n", 4) == 0;
}

/* ---- epoll ---- */

static void epoll_add(struct floor *f, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(f->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
        fatal("epoll_ctl");
}

static void epoll_accept(struct floor *f)
{
    int one = 1, fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (fd >= FDS_MAX) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    f->pair[fd] = -1;
    epoll_add(f, fd);
    if (!f->upstream_port)
        return;
    int up = client_connect(f->upstream_port);
    if (up < 0 || up >= FDS_MAX)
        fatal("upstream");
    f->pair[fd] = up;
    f->pair[up] = fd;
    epoll_add(f, up);
}

static void epoll_drop(struct floor *f, int fd)
{
    int other = f->pair[fd];
    f->pair[fd] = -1;
    close(fd);
    if (other >= 0) {
        /* Its event may wait in the same batch: shut it, and let that close it. */
        f->pair[other] = -1;
        shutdown(other, SHUT_RDWR);
    }
}

static void epoll_serve(struct floor *f, int fd)
{
    static char bytes[READ_CAP];
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        epoll_drop(f, fd);
        return;
    }
    ssize_t sent = 0, want = 0;
    if (f->upstream_port) {
        want = n;
        sent = send(f->pair[fd], bytes, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else if (whole_request(bytes, (size_t)n)) {
        want = (ssize_t)f->answer_len;
        sent = send(fd, f->answer, f->answer_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    if (sent != want)
        epoll_drop(f, fd);
}

static void epoll_loop(struct floor *f)
{
    struct epoll_event events[EVENTS];
    f->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (f->epoll_fd < 0)
        fatal("epoll_create1");
    epoll_add(f, f->listen_fd);
    for (;;) {
        int n = epoll_wait(f->epoll_fd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            fatal("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == f->listen_fd)
                epoll_accept(f);
            else
                epoll_serve(f, events[i].data.fd);
        }
    }
}

/* ---- io_uring ----
 * user_data holds what an operation is, its descriptor, and for a forwarding
 * send the buffer it borrowed (+1), which goes back to the ring when it ends. */

enum operation { ACCEPT = 1, RECV, SEND };

static uint64_t tag(enum operation op, int fd, unsigned buffer_plus_one)
{
    return (uint64_t)op << 56 | (uint64_t)buffer_plus_one << 32 | (uint32_t)fd;
}

static struct io_uring_sqe *next_sqe(struct floor *f)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);
    if (sqe)
        return sqe;
    io_uring_submit(&f->ring);
    sqe = io_uring_get_sqe(&f->ring);
    if (!sqe)
        fatal("submission queue");
    return sqe;
}

static void give_back(struct floor *f, unsigned buffer)
{
    io_uring_buf_ring_add(f->buffers, f->memory + (size_t)buffer * BUFFER_SIZE, BUFFER_SIZE,
                          (unsigned short)buffer, io_uring_buf_ring_mask(RING_BUFFERS), 0);
    io_uring_buf_ring_advance(f->buffers, 1);
}

static void uring_accept(struct floor *f)
{
    struct io_uring_sqe *sqe = next_sqe(f);
    io_uring_prep_multishot_accept(sqe, f->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data64(sqe, tag(ACCEPT, f->listen_fd, 0));
}

static void uring_recv(struct floor *f, int fd)
{
    struct io_uring_sqe *sqe = next_sqe(f);
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = 0;
    io_uring_sqe_set_data64(sqe, tag(RECV, fd, 0));
}

static void uring_send(struct floor *f, int fd, const void *bytes, size_t len, unsigned borrowed)
{
    struct io_uring_sqe *sqe = next_sqe(f);
    io_uring_prep_send(sqe, fd, bytes, len, MSG_NOSIGNAL | MSG_WAITALL);
    io_uring_sqe_set_data64(sqe, tag(SEND, fd, borrowed));
}

static void on_accept(struct floor *f, int fd)
{
    int one = 1;
    if (fd < 0)
        return;
    if (fd >= FDS_MAX) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    f->pair[fd] = -1;
    uring_recv(f, fd);
    if (!f->upstream_port)
        return;
    int up = client_connect(f->upstream_port);
    if (up < 0 || up >= FDS_MAX)
        fatal("upstream");
    f->pair[fd] = up;
    f->pair[up] = fd;
    uring_recv(f, up);
}

/* The recv is over, so nothing else names this descriptor: it may be closed. */
static void on_end(struct floor *f, int fd)
{
    int other = f->pair[fd];
    f->pair[fd] = -1;
    close(fd);
    if (other >= 0) {
        f->pair[other] = -1;
        shutdown(other, SHUT_RDWR);
    }
}

static void on_recv(struct floor *f, int fd, const struct io_uring_cqe *cqe)
{
    bool more = cqe->flags & IORING_CQE_F_MORE;
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        unsigned buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
        const char *bytes = f->memory + (size_t)buffer * BUFFER_SIZE;
        size_t len = cqe->res > 0 ? (size_t)cqe->res : 0;
        if (len && f->upstream_port && f->pair[fd] >= 0) {
            uring_send(f, f->pair[fd], bytes, len, buffer + 1);
        } else {
            if (!f->upstream_port && whole_request(bytes, len))
                uring_send(f, fd, f->answer, f->answer_len, 0);
            give_back(f, buffer);
        }
    }
    if (more)
        return;
    if (cqe->res > 0 || cqe->res == -ENOBUFS)
        uring_recv(f, fd);
    else
        on_end(f, fd);
}

static void on_completion(struct floor *f, const struct io_uring_cqe *cqe)
{
    int fd = (int)(uint32_t)cqe->user_data;
    unsigned borrowed = (unsigned)(cqe->user_data >> 32) & 0xffffff;
    switch ((enum operation)(cqe->user_data >> 56)) {
    case ACCEPT:
        on_accept(f, cqe->res);
        if (!(cqe->flags & IORING_CQE_F_MORE))
            uring_accept(f);
        break;
    case RECV:
        on_recv(f, fd, cqe);
        break;
    case SEND:
        if (borrowed)
            give_back(f, borrowed - 1);
        break;
    }
}

static void uring_open(struct floor *f)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
                                     .cq_entries = 8192};
    int rc = io_uring_queue_init_params(1024, &f->ring, &params);
    if (rc < 0) {
        errno = -rc;
        fatal("io_uring");
    }
    size_t size = RING_BUFFERS * sizeof(struct io_uring_buf);
    if (posix_memalign((void **)&f->buffers, 4096, size) ||
        posix_memalign((void **)&f->memory, 4096, (size_t)RING_BUFFERS * BUFFER_SIZE))
        fatal("memory");
    memset(f->buffers, 0, size);
    struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)f->buffers,
                                   .ring_entries = RING_BUFFERS};
    rc = io_uring_register_buf_ring(&f->ring, &reg, 0);
    if (rc < 0) {
        errno = -rc;
        fatal("buffer ring");
    }
    for (unsigned i = 0; i < RING_BUFFERS; i++)
        give_back(f, i);
}

static void uring_loop(struct floor *f)
{
    uring_open(f);
    uring_accept(f);
    for (;;) {
        int rc = io_uring_submit_and_wait(&f->ring, 1);
        if (rc < 0 && rc != -EINTR) {
            errno = -rc;
            fatal("io_uring_submit_and_wait");
        }
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        io_uring_for_each_cqe(&f->ring, head, cqe)
        {
            on_completion(f, cqe);
            seen++;
        }
        io_uring_cq_advance(&f->ring, seen);
    }
}

int main(int argc, char **argv)
{
    struct floor *f = &floor_;
    if (argc != 5 || (strcmp(argv[3], "answer") && strcmp(argv[3], "forward")) ||
        (strcmp(argv[1], "epoll") && strcmp(argv[1], "uring"))) {
        fprintf(stderr, "usage: floor epoll|uring PORT answer BODY_BYTES\n"
                        "       floor epoll|uring PORT forward UPSTREAM_PORT\n");
        return 2;
    }
    raise_fd_limit();
    if (strcmp(argv[3], "forward") == 0)
        f->upstream_port = (uint16_t)number(argv[4], 1, 65535);
    else
        make_answer(f, number(argv[4], 0, 1 << 20));
    memset(f->pair, 0xff, sizeof f->pair);
    f->listen_fd = listen_on((uint16_t)number(argv[2], 1, 65535));
    if (strcmp(argv[1], "epoll") == 0)
        epoll_loop(f);
    else
        uring_loop(f);
}
