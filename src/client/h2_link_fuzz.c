/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to a server of HTTP/2, with three calls on it: a GET, a POST with a body in memory, one
 * whose body comes piece by piece. An input is a byte of options and pieces, each a byte of length and
 * so many bytes: they are what the server sends, and the loop turns between them. Behind the input's
 * end the server leaves, and nothing may be left of the connection. The third may become a tunnel that goes
 * on without its fiber and its arena.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "client/h2_link.h"
#include "loop/await.h"
#include "loop/turn_testing.h"
#include "upstream/iobuf.h"

enum { WITH_SETTINGS = 1, SLOW_READER = 2, TUNNEL = 4, KEPT = 8, TRAILERS = 16, CALLS = 3 };

static struct loop *loop;
static struct endpoint *endpoint;
static const struct slice key = {"fuzz", 4};
static char body[100000];

struct play {
    struct arena arenas[CALLS];
    unsigned options, ended, started;
    int fd;
    struct h2_call *kept; /* NULL: none, or it has ended */
    struct stream *pipe;
    struct stream_watcher watcher;
    struct task soon;
    unsigned broken;
};

static void turn(unsigned times)
{
    loop_turn(loop, times);
}

/* --- a tunnel --- */

static void on_soon(struct task *t)
{
    struct play *p = CONTAINER_OF(t, struct play, soon);
    char buf[1000];
    size_t n;
    enum err e;
    while (p->pipe->type->recv_now(p->pipe, buf, sizeof buf, &n, &e)) {
        if (e == OK && n > 0)
            continue;
        ASSERT(e == OK || p->broken == 1);
        h2_call_end(p->kept);
        p->kept = NULL;
        p->ended++;
        return;
    }
    p->pipe->type->send_now(p->pipe, SLICE("something"));
    p->pipe->type->watch(p->pipe, &p->watcher);
}

static void on_readable(struct stream_watcher *w)
{
    loop_defer(loop_self(), &CONTAINER_OF(w, struct play, watcher)->soon);
}

static void on_broken(struct stream_watcher *w)
{
    CONTAINER_OF(w, struct play, watcher)->broken++;
}

static const struct stream_watcher_type watching = {on_readable, on_broken};

static void keep(struct play *p, struct h2_call *k, struct arena *arena)
{
    p->kept = k;
    p->pipe = h2_call_pipe(k);
    p->watcher.type = &watching;
    p->soon.run = on_soon;
    h2_call_outlive(k);
    arena_deinit(arena);
    arena_init(arena, 4096);
    p->pipe->type->watch(p->pipe, &p->watcher);
}

/* --- calls --- */

static void read_answer(struct client_answer *a, unsigned options)
{
    for (int i = 0; i < 20; i++) {
        if (h2_call_read_head(a, false, 0) != OK)
            return;
        if (a->head.status >= 200 || a->head.status == 101)
            break;
    }
    if ((options & KEPT) != 0 && a->head.status == 101)
        return;
    for (unsigned n = 0; !a->done; n++) {
        struct slice piece;
        if (h2_call_read_body(a, 0, &piece) != OK)
            return;
        ASSERT(piece.len <= IOBUF_SIZE);
        if ((options & SLOW_READER) != 0 && n > 2)
            (void)!await_yield();
    }
}

static void call_main(void *arg)
{
    const struct link_limits limits = {.idle_per_group = 1};
    const struct h2_link_options options = {.limits = limits, .head_max = 8192};
    struct play *p = arg;
    unsigned n = p->started++;
    struct arena *arena = &p->arenas[n];
    struct fields fs;
    struct h2_call *k;
    if (n == 0) {
        (void)link_reserve(endpoint, &limits);
        k = h2_link_begin(link_open(key, endpoint, p->fd), key, &options, arena);
    } else {
        k = h2_call_take(key, &limits, 0, n == 2, arena);
    }
    if (k == NULL) {
        p->ended++;
        return;
    }
    fields_init(&fs, arena);
    fields_add(&fs, SLICE("X-Number"), SLICE("1"));
    struct h2_request_head h = {SLICE("GET"), SLICE("http"), SLICE("a"), SLICE("/"), SLICE_NONE,
                                &fs, -1};
    if (n > 0)
        h.method = SLICE("POST");
    if (n == 2 && (p->options & TUNNEL) != 0)
        h.protocol = SLICE("websocket");
    h2_call_request(k, &h, n == 0);
    if (n == 1)
        h2_call_put(k, slice_of(body, sizeof body), (p->options & TRAILERS) != 0 ? &fs : NULL);
    if (n == 2)
        (void)!await_h2_send(k, slice_of(body, 70000), false, 0);
    struct client_answer *a = h2_call_answer(k, arena, 8192);
    read_answer(a, p->options);
    bool kept = (p->options & KEPT) != 0 && a->head.status == 101;
    client_answer_end(a);
    if (kept) {
        keep(p, k, arena);
        return;
    }
    h2_call_end(k);
    p->ended++;
}

static void start(struct play *p, unsigned n)
{
    for (; n > 0; n--)
        ASSERT(fiber_start(loop, call_main, p) == OK);
}

static void drain(int fd)
{
    char buf[16384];
    while (recv(fd, buf, sizeof buf, MSG_DONTWAIT) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char settings[] = "\0\0\6\4\0\0\0\0\0\0\3\0\0\0\4";
    struct slice in = slice_of((const char *)data, size);
    struct play p = {0};
    int pair[2];
    if (loop == NULL) {
        log_set_threshold(LOG_ERROR);
        ASSERT(loop_create(LOOP_EPOLL, &loop) == OK);
    }
    if (size == 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        return 0;
    endpoint = endpoint_ref(key);
    p.options = data[0];
    p.fd = pair[0];
    in = slice_skip(in, 1);
    if ((p.options & WITH_SETTINGS) != 0)
        (void)!write(pair[1], settings, sizeof settings - 1);
    for (int i = 0; i < CALLS; i++)
        arena_init(&p.arenas[i], 4096);
    start(&p, 1);
    turn(2);
    start(&p, CALLS - 1);
    while (in.len > 0) {
        struct slice piece = slice_take(slice_skip(in, 1), (unsigned char)in.ptr[0]);
        (void)!send(pair[1], piece.ptr, piece.len, MSG_NOSIGNAL);
        in = slice_skip(in, 1 + piece.len);
        turn(2);
        drain(pair[1]);
    }
    close(pair[1]);
    for (int i = 0; i < 200 && (p.ended < CALLS || h2_links_open() > 0); i++)
        turn(2);
    ASSERT(p.ended == CALLS && h2_links_open() == 0);
    for (int i = 0; i < CALLS; i++)
        arena_deinit(&p.arenas[i]);
    ASSERT(atomic_load(&endpoint->links) == 0);
    endpoint_unref(endpoint);
    iobuf_thread_deinit(); /* what is kept as free looks lost at the end */
    return 0;
}
