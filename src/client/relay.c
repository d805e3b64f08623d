/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   link  ── encrypted for the server ── [pair of sockets] ── relay ── encrypted for the proxy ── proxy
 *
 * A stream encrypts for one peer and sends to a socket; for the few that need both, copying once more
 * costs less than streams that know of one another. A fiber for each direction, which owns no buffer
 * while nothing comes. The end of one direction is passed on, and the other one has some seconds then;
 * after an error both are cut. A link that is closed is the end of both: looked for now and then, since a
 * proxy that takes nothing keeps the fiber that would hear of it.
 */
#include "client/relay.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "loop/await.h"

#define FAREWELL_NS (5 * NS_PER_S)

enum { PIECE = 32768 };

struct relay {
    struct list node; /* of this thread's */
    struct stream inner, outer;
    struct fiber *up, *down; /* NULL: has ended, or not begun */
    struct timer timer; /* running as long as either of them */
    unsigned running;
    bool ending; /* when it fires next, all is cut */
};

static _Thread_local struct list relays;

static void cut(struct relay *r)
{
    if (r->up != NULL)
        fiber_cancel(r->up, ERR_CLOSED);
    if (r->down != NULL)
        fiber_cancel(r->down, ERR_CLOSED);
}

static bool link_is_closed(const struct relay *r)
{
    struct pollfd p = {.fd = r->inner.fd};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

static void look_again(struct relay *r)
{
    timer_start(loop_self(), &r->timer, loop_now_ns(loop_self()) + FAREWELL_NS);
}

static void on_timer(struct timer *t)
{
    struct relay *r = CONTAINER_OF(t, struct relay, timer);
    if (r->ending) {
        struct linger none = {1, 0};
        if (r->up != NULL) /* what the proxy has not taken by now, it never may */
            setsockopt(r->outer.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
        cut(r);
        return;
    }
    r->ending = link_is_closed(r);
    look_again(r);
}

static void free_relay(struct relay *r)
{
    timer_stop(&r->timer);
    list_remove(&r->node);
    loop_close(loop_self(), r->inner.fd);
    loop_close(loop_self(), r->outer.fd);
    tls_stream_free(r->outer.tls);
    mem_free(r);
}

static void direction_ended(struct relay *r, enum err e)
{
    if (--r->running == 0) {
        free_relay(r);
    } else if (e != OK) {
        cut(r);
    } else {
        r->ending = true;
        look_again(r);
    }
}

static enum err move(struct stream *from, struct stream *to, char *buf, bool *end)
{
    size_t n, sent;
    enum err e;
    if (!stream_recv_now(from, buf, PIECE, &n, &e))
        return OK;
    TRY(e);
    *end = n == 0;
    struct iovec part = {buf, n};
    return n > 0 ? stream_send(to, &part, 1, 0, 0, &sent) : OK;
}

static enum err pump(struct stream *from, struct stream *to)
{
    bool end = false;
    while (!end) {
        TRY(stream_await_readable(from, 0));
        char *buf = mem_alloc(PIECE); /* not one that a thread's end has given up already */
        enum err e = move(from, to, buf, &end);
        mem_free(buf);
        TRY(e);
    }
    stream_shutdown(to);
    return OK;
}

static void up_main(void *arg)
{
    struct relay *r = arg;
    r->up = fiber_self();
    enum err e = pump(&r->inner, &r->outer);
    r->up = NULL;
    direction_ended(r, e);
}

static void down_main(void *arg)
{
    struct relay *r = arg;
    r->down = fiber_self();
    enum err e = pump(&r->outer, &r->inner);
    r->down = NULL;
    direction_ended(r, e);
}

struct beginning {
    struct relay *relay;
    bool failed;
};

/* From the loop's own stack, as all fibers. A fiber runs at once, and may end the relay. */
static void start(void *arg)
{
    struct beginning *b = arg;
    struct relay *r = b->relay;
    r->running = 3; /* not to be freed in here */
    look_again(r);
    if (fiber_start(loop_self(), up_main, r) != OK) {
        b->failed = true;
        r->running--;
    }
    if (b->failed || fiber_start(loop_self(), down_main, r) != OK) {
        b->failed = true;
        r->running--;
        cut(r);
    }
    if (--r->running == 0)
        free_relay(r);
}

enum err link_relay(struct link *l)
{
    int pair[2];
    ASSERT(!l->op.armed && l->early.len == 0); /* nothing of it is under way */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        return ERR_LIMIT;
    if (relays.next == NULL)
        list_init(&relays);
    struct relay *r = NEW(struct relay);
    r->outer = l->stream;
    r->inner = (struct stream){.fd = pair[0]};
    l->stream = (struct stream){.fd = pair[1]};
    timer_init(&r->timer, on_timer);
    list_append(&relays, &r->node);
    struct beginning b = {.relay = r};
    await_on_loop(start, &b);
    return b.failed ? ERR_LIMIT : OK;
}

void relays_thread_deinit(void)
{
    if (relays.next == NULL)
        return;
    LIST_FOR_SAFE(n, &relays)
    {
        cut(CONTAINER_OF(n, struct relay, node));
    }
}
