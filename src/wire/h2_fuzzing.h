/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzzers of HTTP/2 connections share: a server on a loop and a pair of sockets, whose handlers
 * read, stall, answer much and become tunnels, and a client that checks what comes back: frames that a
 * client may get, whole header blocks, nothing on a stream that has ended. Included by one fuzzer each.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "http/server.h"
#include "loop/await.h"
#include "loop/turn_testing.h"
#include "tls/stream.h"
#include "wire/h1_conn.h"
#include "wire/h2_conn.h"
#include "wire/h2_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BIG = 200000 };

static struct loop *loop;
static struct h1_worker worker;
static char big[BIG];

/* --- handlers --- */

static enum err echo(struct exchange *x)
{
    char piece[4096];
    size_t n;
    TRY(exchange_head(x));
    for (;;) {
        TRY(exchange_read(x, piece, sizeof piece, &n));
        if (n == 0)
            return OK;
        TRY(exchange_data(x, slice_of(piece, n), LEND_BORROWED));
    }
}

static enum err tunnel(struct exchange *x)
{
    struct stream *pipe;
    struct slice early;
    char piece[1000];
    size_t n;
    x->res.status = x->req.major == 2 ? 200 : 101;
    TRY(exchange_head(x));
    TRY(exchange_flush(x));
    if (x->carrier->take_over(x, &pipe, &early) != OK)
        return OK;
    while (stream_recv(pipe, piece, sizeof piece, 0, &n) == OK && n > 0)
        ;
    return OK;
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    struct slice body;
    switch (x->req.target.len > 1 ? x->req.target.ptr[1] : '\0') {
    case 'e':
        return echo(x);
    case 'b':
        return exchange_answer(x, 200, slice_of(big, sizeof big));
    case 's':
        (void)exchange_whole_body(x, &body);
        return exchange_answer(x, 200, body);
    case 't':
        return tunnel(x);
    case 'f': /* no log line: it would slow the fuzzer down */
        return ERR_FAILED;
    default:
        return exchange_answer(x, 200, SLICE("hello, world!"));
    }
}

static const struct module module = {.id = "http.handlers.fuzz", .serve = serve};
static struct handler handler = {&module, NULL};
static struct route route = {.handlers = &handler, .handlers_count = 1};
static struct http_server server = {.routes = {.routes = &route, .count = 1},
                                    .max_header_bytes = 4096,
                                    .protocols = HTTP_1 | HTTP_2 | HTTP_2_CLEAR};

static const struct http_server *current(struct h1_site *site, struct generation **g)
{
    *g = NULL;
    return &server;
}

static void done(struct h1_site *site, struct generation *g)
{
}

static struct h1_site site = {.server = &server, .current = current, .done = done,
                              .protocols = HTTP_1 | HTTP_2 | HTTP_2_CLEAR};

/* --- the client --- */

enum { STREAMS_SEEN = 512 };

struct client {
    int fd;
    size_t have;
    size_t skip;        /* of a frame's payload that is still to come */
    unsigned char head[H2_FRAME_HEAD];
    bool h2;            /* frames come */
    uint32_t block;     /* whose header block is not whole */
    uint32_t frame_max; /* the largest that was ever allowed; 0: no matter */
    uint64_t data;      /* bytes of DATA that have come */
    uint64_t stream_data[STREAMS_SEEN]; /* of the stream 2 n + 1 */
    bool over[STREAMS_SEEN], said_bye;
};

/* RFC 9113 §5.1, §6.10: a stream that was ended has nothing more, and a header block is whole. */
static void check_stream(struct client *c, const struct h2_frame_head *h)
{
    uint32_t n = h->stream / 2;
    ASSERT(c->block == (h->type == H2_CONTINUATION ? h->stream : 0));
    if (h->type == H2_HEADERS || h->type == H2_CONTINUATION)
        c->block = (h->flags & H2_END_HEADERS) != 0 ? 0 : h->stream;
    if (h->type == H2_DATA)
        c->data += h->len;
    if (n >= STREAMS_SEEN)
        return;
    ASSERT(!c->over[n] || h->type == H2_RST_STREAM || h->type == H2_CONTINUATION);
    if (h->type == H2_DATA)
        c->stream_data[n] += h->len;
    if (h->type == H2_RST_STREAM ||
        ((h->type == H2_DATA || h->type == H2_HEADERS) && (h->flags & H2_END_STREAM) != 0))
        c->over[n] = true;
}

static void check_frame(struct client *c)
{
    struct h2_frame_head h = h2_read_head((const char *)c->head);
    bool on_stream = h.type == H2_DATA || h.type == H2_HEADERS || h.type == H2_RST_STREAM ||
                     h.type == H2_CONTINUATION;
    ASSERT(on_stream || h.type == H2_SETTINGS || h.type == H2_PING || h.type == H2_GOAWAY ||
           h.type == H2_WINDOW_UPDATE);
    ASSERT(!on_stream || h.stream % 2 == 1);
    ASSERT(h.type != H2_SETTINGS || (h.stream == 0 && h.len % 6 == 0));
    ASSERT(h.type != H2_PING || (h.stream == 0 && h.len == 8));
    ASSERT((h.type != H2_RST_STREAM && h.type != H2_WINDOW_UPDATE) || h.len == 4);
    ASSERT(c->frame_max == 0 || h.len <= c->frame_max);
    if (on_stream)
        check_stream(c, &h);
    else
        ASSERT(c->block == 0);
    c->said_bye |= h.type == H2_GOAWAY;
    c->skip = h.len;
}

static void take_bytes(struct client *c, const unsigned char *at, size_t n)
{
    while (n > 0 && c->h2) {
        size_t some = c->skip > 0 ? c->skip : sizeof c->head - c->have;
        some = some < n ? some : n;
        if (c->skip > 0) {
            c->skip -= some;
        } else {
            memcpy(c->head + c->have, at, some);
            c->have += some;
            if (c->have == sizeof c->head) {
                c->have = 0;
                check_frame(c);
            }
        }
        at += some;
        n -= some;
    }
}

static void read_answers(struct client *c, size_t most)
{
    unsigned char piece[16384];
    ssize_t n;
    while (most > 0 && (n = recv(c->fd, piece, most < sizeof piece ? most : sizeof piece, 0)) > 0) {
        take_bytes(c, piece, (size_t)n);
        most -= (size_t)n;
    }
}

/* --- connections --- */

static void turn(unsigned times)
{
    loop_turn(loop, times);
}

static void start(void)
{
    log_set_threshold(LOG_ERROR);
    ASSERT(loop_create(LOOP_EPOLL, &loop) == OK);
    h1_worker_init(&worker, loop, NULL);
}

static void open_connection(struct client *c)
{
    int pair[2];
    ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    *c = (struct client){.fd = pair[0]};
    h1_conn_open(&worker, &site, pair[1]);
}

/* Sends it, lets the server work, and reads so many bytes of its answers at most. False: the server
 * does not take all of it, and the rest is lost. */
static bool send_piece(struct client *c, struct slice piece, size_t most)
{
    ssize_t n = send(c->fd, piece.ptr, piece.len, MSG_NOSIGNAL);
    turn(2);
    read_answers(c, most);
    return n == (ssize_t)piece.len;
}

static void end_connection(struct client *c)
{
    shutdown(c->fd, SHUT_WR);
    turn(3);
    close(c->fd);
    for (int i = 0; worker.count > 0 && i < 20; i++)
        turn(2);
    if (worker.count > 0) { /* a handler that nobody told: as at a shutdown */
        h1_worker_abort(&worker);
        for (int i = 0; worker.count > 0 && i < 20; i++)
            turn(2);
    }
    ASSERT(worker.count == 0 && site.count == 0 && worker.busy == 0);
}
