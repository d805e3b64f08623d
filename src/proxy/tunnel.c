/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upgraded connections: after a 101 the two streams are joined, a fiber for each direction. A
 * direction reads only when what it read last has been taken, so that a slow side slows the other;
 * while nothing comes it owns no buffer. When one side says its end, the other is told and has some
 * seconds to finish what it is saying.
 *
 * A tunnel lives longer than the configuration that made it only for stream_close_delay. Then, as at
 * a drain, WebSockets are told 1001 (going away) on both sides (RFC 6455 §5.5.1) and all are cut.
 */
#include <stdio.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "loop/await.h"
#include "proxy/gateway.h"
#include "tls/stream.h"
#include "upstream/iobuf.h"

#define LOGGER "http.handlers.reverse_proxy"
#define FAREWELL_NS (5 * NS_PER_S) /* for the second direction, once the first has ended */

struct tunnel {
    struct list node;
    const struct generation *generation;
    struct timer timer;
    struct fiber *down_fiber, *up_fiber; /* NULL: has ended */
    struct waiter *waiter;               /* of the first, for the end of the second */
    uint64_t close_delay_ns;
    struct stream *client, *upstream;
    bool websocket, going;
};

static _Thread_local struct list tunnels;

static void cut(struct tunnel *t)
{
    if (t->down_fiber != NULL)
        fiber_cancel(t->down_fiber, ERR_CLOSED);
    if (t->up_fiber != NULL)
        fiber_cancel(t->up_fiber, ERR_CLOSED);
}

/* A WebSocket's Close frame with 1001; a client's (towards the upstream) is masked. */
static void say_going_away(struct stream *to, bool masked)
{
    unsigned char frame[8] = {0x88, 0x02, 0x03, 0xe9}, key[4];
    size_t len = 4;
    if (masked && getrandom(key, sizeof key, GRND_NONBLOCK) == (ssize_t)sizeof key) {
        frame[1] |= 0x80;
        memcpy(frame + 2, key, 4);
        frame[6] = 0x03 ^ key[0];
        frame[7] = 0xe9 ^ key[1];
        len = 8;
    }
    stream_send_now(to, slice_of((const char *)frame, len));
}

static void end_now(struct tunnel *t)
{
    if (t->going && t->websocket) {
        if (t->client != NULL)
            say_going_away(t->client, false);
        say_going_away(t->upstream, true);
    }
    cut(t);
}

static void on_timer(struct timer *timer)
{
    end_now(CONTAINER_OF(timer, struct tunnel, timer));
}

static void end_within(struct tunnel *t, uint64_t ns)
{
    uint64_t deadline = loop_now_ns(loop_self()) + ns;
    if (!timer_running(&t->timer) || t->timer.deadline_ns > deadline)
        timer_start(loop_self(), &t->timer, deadline);
}

void tunnels_retire(const struct generation *g)
{
    if (tunnels.next == NULL)
        return;
    LIST_FOR_SAFE(n, &tunnels)
    {
        struct tunnel *t = CONTAINER_OF(n, struct tunnel, node);
        if (t->going || (g != NULL && t->generation != g))
            continue;
        t->going = true;
        if (t->close_delay_ns > 0)
            end_within(t, t->close_delay_ns);
        else
            end_now(t);
    }
}

/* What can be read now goes over, as long as there is more. */
static enum err move(struct stream *from, struct stream *to, char *buf, bool *end)
{
    for (;;) {
        size_t n, sent;
        enum err e;
        if (!stream_recv_now(from, buf, IOBUF_SIZE, &n, &e))
            return OK;
        TRY(e);
        *end = n == 0;
        if (n == 0)
            return OK;
        struct iovec part = {buf, n};
        TRY(stream_send(to, &part, 1, 0, 0, &sent));
        if (n < IOBUF_SIZE / 2)
            return OK;
    }
}

static enum err pump(struct stream *from, struct stream *to)
{
    bool end = false;
    while (!end) {
        TRY(stream_await_readable(from, 0));
        char *buf = iobuf_take();
        enum err e = move(from, to, buf, &end);
        iobuf_give(buf);
        TRY(e);
    }
    stream_shutdown(to);
    return OK;
}

/* One direction is over: the other is cut after an error, and hurried after an end. */
static void direction_ended(struct tunnel *t, enum err e)
{
    if (e != OK)
        cut(t);
    else
        end_within(t, FAREWELL_NS);
}

static void up_main(void *arg)
{
    struct tunnel *t = arg;
    t->up_fiber = fiber_self();
    enum err e = pump(t->client, t->upstream);
    t->up_fiber = NULL;
    direction_ended(t, e);
    if (t->waiter != NULL)
        waiter_wake(t->waiter, OK);
}

static void start_up(void *arg)
{
    struct tunnel *t = arg;
    if (fiber_start(loop_self(), up_main, t) != OK)
        t->down_fiber = NULL;
}

static void run(struct tunnel *t)
{
    struct waiter waiter;
    await_on_loop(start_up, t);
    if (t->down_fiber == NULL) /* no fiber is to be had */
        return;
    enum err e = pump(t->upstream, t->client);
    t->down_fiber = NULL;
    direction_ended(t, e);
    if (t->up_fiber == NULL)
        return;
    waiter_init(&waiter);
    waiter.fiber = fiber_self();
    t->waiter = &waiter;
    fiber_suspend(); /* it uses this frame */
}

static bool is_websocket(const struct round *r)
{
    return slice_eq_nocase(r->x->req.upgrade, SLICE("websocket"));
}

static enum err send_slice(struct stream *to, struct slice s)
{
    struct iovec part = {(char *)(uintptr_t)s.ptr, s.len};
    size_t sent;
    return s.len > 0 ? stream_send(to, &part, 1, 0, 0, &sent) : OK;
}

/* The head, then what either side has said already. */
static enum err join(struct round *r, struct tunnel *t, struct slice early)
{
    struct exchange *x = r->x;
    struct slice already;
    TRY(exchange_flush(x));
    TRY(x->carrier->take_over(x, &t->client, &already));
    TRY(send_slice(t->upstream, already));
    return send_slice(t->client, early);
}

static enum err set_head(struct round *r, struct slice upgrade)
{
    struct exchange *x = r->x;
    struct fields *to = &x->res.fields;
    fields_remove(to, SLICE("Server"));
    for (uint32_t i = 0; i < r->answer_fields.count; i++) {
        const struct field *f = &r->answer_fields.items[i];
        if (!is_hop_by_hop(f->name))
            fields_add(to, f->name, f->value);
    }
    fields_add(to, SLICE("Upgrade"), upgrade);
    x->res.status = 101;
    return OK;
}

enum err gateway_upgrade(struct round *r)
{
    struct exchange *x = r->x;
    struct slice upgrade;
    fields_get(&r->answer_fields, SLICE("Upgrade"), &upgrade);
    if (x->req.upgrade.len == 0 || !slice_eq_nocase(upgrade, x->req.upgrade)) {
        r->error = exchange_fail(x, 502, "backend tried to switch to unexpected protocol");
        return gateway_round_error(r, FAILURE_HANDLED, 0, "unexpected protocol");
    }
    if (r->watching)
        x->carrier->watch(x, false);
    r->watching = false;
    TRY(set_head(r, upgrade));
    struct tunnel t = {.generation = x->generation, .upstream = &r->link->stream,
                       .close_delay_ns = r->g->stream_close_ns, .websocket = is_websocket(r),
                       .down_fiber = fiber_self()};
    timer_init(&t.timer, on_timer);
    if (tunnels.next == NULL)
        list_init(&tunnels);
    list_append(&tunnels, &t.node);
    if (r->g->stream_ns > 0)
        end_within(&t, r->g->stream_ns);
    uint64_t start = clock_mono_ns();
    LOG(LOG_DEBUG, LOGGER, "upgrading connection", LOG_STR("upstream", r->address.text));
    enum err e = join(r, &t, client_answer_rest(r->answer));
    if (e == OK)
        run(&t);
    timer_stop(&t.timer);
    list_remove(&t.node);
    LOG(LOG_DEBUG, LOGGER, "connection closed", LOG_DUR("duration", clock_mono_ns() - start));
    r->error = e;
    return e == OK ? OK : gateway_round_error(r, FAILURE_HANDLED, 0, "the tunnel was not joined");
}
