/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tunnel goes on when its exchange has ended: two armed operations and some hundred bytes. Where
 * both sides are clear text, bytes go from the loop's buffer straight to the other side; what cannot be
 * taken at once waits in a buffer, without a fiber, however long a peer that reads nothing lets it. What
 * is encrypted, or a stream of HTTP/2, be it the client's or a call to the upstream, gets a fiber and a
 * buffer for as long as it takes. A direction reads only when what it read last has been taken, so that
 * a slow side slows the other.
 */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/access_log.h"
#include "proxy/tunnel.h"
#include "upstream/iobuf.h"

#define LOGGER "http.handlers.reverse_proxy"
#define STARVED_NS (10 * NS_PER_MS) /* until a fiber is asked for again */

struct kept;

struct direction {
    struct op op;
    struct kept *tunnel;
    struct stream *from, *to;
    struct stream_watcher watcher; /* of `from`, if that is no socket */
    struct fiber *fiber; /* NULL: there is none */
    struct slice held;   /* of an iobuf: bytes that were not taken at once */
    char *held_buf;
    uint64_t bytes;
    bool starved, over; /* starved: it wants a fiber */
};

struct kept {
    struct tunnel t;
    struct takeover taken;
    struct link *link;    /* NULL: a call */
    struct h2_call *call; /* NULL: a link */
    struct endpoint *endpoint;
    struct timer again; /* for what is starved */
    struct task soon;   /* what must not be done at once */
    struct direction up, down;
    unsigned holds;     /* it is not freed meanwhile */
    bool clear, cutting, deferred;
    bool broken;        /* the client's stream is, that is no socket */
};

/* --- ends --- */

static void look_for_end(struct kept *k)
{
    if (k->holds > 0 || k->deferred || !k->up.over || !k->down.over)
        return;
    tunnel_end(&k->t);
    timer_stop(&k->again);
    if (k->call != NULL)
        h2_call_end(k->call);
    else
        link_close(k->link);
    endpoint_done(k->endpoint);
    endpoint_unref(k->endpoint);
    LOG(LOG_DEBUG, LOGGER, "connection closed", LOG_DUR("duration", clock_mono_ns() - k->t.start_ns));
    if (k->taken.log != NULL)
        access_later_end(k->taken.log, k->up.bytes, k->down.bytes);
    k->taken.let_go(&k->taken);
    mem_free(k);
}

static void cut_direction(struct direction *d)
{
    if (d->fiber != NULL)
        fiber_cancel(d->fiber, ERR_CLOSED);
    else if (d->op.armed)
        op_cancel(loop_self(), &d->op);
}

static void look_soon(struct kept *k)
{
    if (!k->deferred)
        loop_defer(loop_self(), &k->soon);
    k->deferred = true;
}

/* Frees nothing: the callers go through lists. */
static void cut(struct tunnel *t)
{
    struct kept *k = CONTAINER_OF(t, struct kept, t);
    if (k->cutting)
        return;
    k->cutting = true;
    k->holds++;
    cut_direction(&k->up);
    cut_direction(&k->down);
    k->holds--;
    look_soon(k);
}

static void give_held(struct direction *d)
{
    if (d->held_buf != NULL)
        iobuf_give(d->held_buf);
    d->held_buf = NULL;
    d->held = SLICE_NONE;
}

static void direction_failed(struct direction *d)
{
    give_held(d);
    d->over = true;
    cut(&d->tunnel->t);
    look_for_end(d->tunnel);
}

static void direction_ended(struct direction *d)
{
    d->over = true;
    tunnel_end_within(&d->tunnel->t, TUNNEL_FAREWELL_NS);
    look_for_end(d->tunnel);
}

/* --- bytes --- */

static void wait_for_bytes(struct direction *d)
{
    if (d->from->type != NULL)
        d->from->type->watch(d->from, &d->watcher);
    else if (d->tunnel->clear)
        op_recv_lent(loop_self(), &d->op, d->from->fd);
    else
        op_poll(loop_self(), &d->op, d->from->fd, POLLIN | POLLRDHUP);
}

static enum err move_all(struct direction *d, bool *end)
{
    do
        TRY(tunnel_move(&d->tunnel->t, d->from, d->to, end, &d->bytes));
    while (!*end && d->from->tls != NULL && tls_stream_ready(d->from->tls));
    return OK;
}

static void direction_main(void *arg)
{
    struct direction *d = arg;
    bool end = false;
    d->fiber = fiber_self();
    enum err e = move_all(d, &end);
    if (e == OK && end && !d->tunnel->cutting)
        stream_shutdown(d->to); /* may wait */
    d->fiber = NULL;
    if (e != OK || d->tunnel->cutting)
        direction_failed(d);
    else if (end)
        direction_ended(d);
    else
        wait_for_bytes(d);
}

static void go_on(struct direction *d)
{
    struct kept *k = d->tunnel;
    k->holds++;
    d->starved = false; /* before: more may have come when it ends */
    bool none = fiber_start(loop_self(), direction_main, d) != OK;
    k->holds--;
    d->starved |= none;
    if (none)
        timer_start(loop_self(), &k->again, loop_now_ns(loop_self()) + STARVED_NS);
    look_for_end(k);
}

/* Off fibers, both sides in clear text. What is not taken now is kept until it can be. */
static void pass_on(struct direction *d, struct slice bytes)
{
    ssize_t n;
    do
        n = send(d->to->fd, bytes.ptr, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
        direction_failed(d);
        return;
    }
    bytes = slice_skip(bytes, n > 0 ? (size_t)n : 0);
    if (bytes.len == 0) {
        give_held(d);
        wait_for_bytes(d);
        return;
    }
    if (d->held_buf == NULL) {
        d->held_buf = iobuf_take();
        memcpy(d->held_buf, bytes.ptr, bytes.len);
        bytes.ptr = d->held_buf;
    }
    d->held = bytes;
    op_poll(loop_self(), &d->op, d->to->fd, POLLOUT);
}

static void on_clear(struct direction *d, int result)
{
    if (result < 0) {
        direction_failed(d);
    } else if (d->held.len > 0) {
        pass_on(d, d->held);
    } else if (result == 0) {
        stream_shutdown(d->to);
        direction_ended(d);
    } else {
        d->bytes += d->op.lent.len;
        pass_on(d, d->op.lent);
    }
}

static void on_ready(struct op *op, int result)
{
    struct direction *d = CONTAINER_OF(op, struct direction, op);
    if (d->tunnel->cutting || result == -ECANCELED)
        direction_failed(d);
    else if (d->tunnel->clear)
        on_clear(d, result);
    else
        go_on(d);
}

static void feed(struct direction *d)
{
    bool idle = !d->over && d->fiber == NULL && !d->op.armed;
    if (idle && d->tunnel->cutting)
        d->over = true;
    else if (idle && d->starved)
        go_on(d);
}

static void feed_both(struct kept *k)
{
    k->holds++;
    feed(&k->up);
    feed(&k->down);
    k->holds--;
    look_for_end(k);
}

static void on_again(struct timer *timer)
{
    feed_both(CONTAINER_OF(timer, struct kept, again));
}

static void on_soon(struct task *task)
{
    struct kept *k = CONTAINER_OF(task, struct kept, soon);
    k->holds++;
    k->deferred = false;
    if (k->broken)
        cut(&k->t);
    k->holds--;
    feed_both(k);
}

static void on_readable(struct stream_watcher *w)
{
    struct direction *d = CONTAINER_OF(w, struct direction, watcher);
    d->starved = true;
    look_soon(d->tunnel);
}

static void on_client_broken(struct stream_watcher *w)
{
    struct kept *k = CONTAINER_OF(w, struct direction, watcher)->tunnel;
    k->broken = true;
    look_soon(k);
}

/* The client gets what has come before that, if it takes it. */
static void on_call_broken(struct stream_watcher *w)
{
    tunnel_end_within(&CONTAINER_OF(w, struct direction, watcher)->tunnel->t, TUNNEL_FAREWELL_NS);
}

/* --- begin --- */

static void on_hurry(struct takeover *taken)
{
    tunnel_end_now(&CONTAINER_OF(taken, struct kept, taken)->t);
}

static void set_direction(struct kept *k, struct direction *d, struct stream *from, struct stream *to)
{
    d->tunnel = k;
    d->from = from;
    d->to = to;
    d->op.on_done = on_ready;
}

/* Behind the exchange's end, which no wait parts from the carrier's letting go of it. */
static void start(struct exchange *x, void *arg)
{
    struct kept *k = arg;
    (void)x;
    struct direction *both[] = {&k->up, &k->down};
    for (size_t i = 0; i < 2; i++) {
        struct direction *d = both[i];
        d->starved = d->from->tls != NULL && tls_stream_ready(d->from->tls);
        if (d->starved) /* the kernel will not tell of what has been read */
            look_soon(k);
        else
            wait_for_bytes(d);
    }
}

static bool is_clear(const struct stream *s)
{
    return s->type == NULL && s->tls == NULL;
}

static enum err join(struct round *r, struct kept *k, struct slice early)
{
    struct exchange *x = r->x;
    struct slice already;
    TRY(x->carrier->keep(x, &k->taken, &already));
    TRY(exchange_flush(x));
    k->up.bytes = already.len;
    k->down.bytes = early.len;
    TRY(tunnel_send(k->t.upstream, already));
    return tunnel_send(k->taken.stream, early);
}

enum err tunnel_keep(struct round *r, struct slice early)
{
    struct exchange *x = r->x;
    struct kept *k = NEW(struct kept);
    k->taken.hurry = on_hurry;
    k->t.upstream = r->call != NULL ? h2_call_pipe(r->call) : &r->link->stream;
    enum err e = join(r, k, early);
    if (e != OK) {
        x->taken = NULL;
        mem_free(k);
        return e;
    }
    if (r->upload != NULL)
        upload_end(r);
    r->protocol->end(r);
    r->answer = NULL;
    k->link = r->link;
    k->call = r->call;
    r->link = NULL;
    r->call = NULL;
    if (k->call != NULL)
        h2_call_outlive(k->call);
    k->endpoint = r->upstream->endpoint;
    endpoint_hold(k->endpoint);
    endpoint_count(k->endpoint, 1);
    timer_init(&k->again, on_again);
    k->soon.run = on_soon;
    k->t.cut = cut;
    k->t.client = k->taken.stream;
    set_direction(k, &k->up, k->t.client, k->t.upstream);
    set_direction(k, &k->down, k->t.upstream, k->t.client);
    k->up.watcher = (struct stream_watcher){on_readable, on_client_broken};
    k->down.watcher = (struct stream_watcher){on_readable, on_call_broken};
    k->clear = is_clear(k->t.client) && is_clear(k->t.upstream) &&
               r->g->stream_buffer == 0; /* the loop's buffers have a size of their own */
    tunnel_begin(&k->t, r);
    exchange_on_end(x, start, k);
    return OK;
}
