/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tunnel goes on when its exchange has ended: two armed operations and some hundred bytes. Where
 * both sides are clear text, bytes go from the loop's buffer straight to the other side; what cannot be
 * taken at once waits in memory of its own, without a fiber, however long a peer that reads nothing lets it.
 * With io_uring few bytes are copied there at once: an operation that leaves with the turn's others costs
 * less than a system call. What
 * is encrypted, or a stream of HTTP/2, be it the client's or a call to the upstream, gets a fiber and a
 * buffer for as long as it takes. A direction reads only when what it read last has been taken, so that
 * a slow side slows the other.
 *
 * What must not be done at once is put off to the next turn, and what found no fiber to a moment later: all
 * tunnels of a worker share the task and the timer for that.
 */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/access_log.h"
#include "proxy/tunnel.h"

#define LOGGER "http.handlers.reverse_proxy"
enum { BATCHED_MAX = 2048 }; /* more is sent from where it was lent */

#define STARVED_NS (10 * NS_PER_MS) /* until a fiber is asked for again */

static _Thread_local struct {
    struct list soon, starved; /* tunnels that wait */
    struct task task;
    struct timer timer;
    bool ready;
} mine;

/* --- ends --- */

static bool has_call(const struct tunnel *t)
{
    return t->upstream != &t->link;
}

static void look_for_end(struct tunnel *t)
{
    if (t->holds > 0 || t->soon || !t->up.over || !t->down.over)
        return;
    tunnel_end(t);
    list_remove(&t->waiting);
    if (has_call(t))
        h2_call_end(t->call);
    else
        link_end(&t->link, t->endpoint);
    endpoint_done(t->endpoint);
    endpoint_unref(t->endpoint);
    LOG(LOG_DEBUG, LOGGER, "connection closed", LOG_DUR("duration", clock_mono_ns() - t->start_ns));
    if (t->taken.log != NULL)
        access_later_end(t->taken.log, t->up.bytes, t->down.bytes);
    t->taken.let_go(&t->taken);
    mem_free(t);
}

static void cut_direction(struct direction *d)
{
    if (!tunnel_of(d)->clear && d->fiber != NULL)
        fiber_cancel(d->fiber, ERR_CLOSED);
    else if (d->op.armed)
        op_cancel(loop_self(), &d->op);
}

static void look_soon(struct tunnel *t)
{
    if (t->soon)
        return;
    t->soon = true;
    list_remove(&t->waiting);
    if (list_empty(&mine.soon))
        loop_defer(loop_self(), &mine.task);
    list_append(&mine.soon, &t->waiting);
}

/* Frees nothing: the callers go through lists. */
void tunnel_cut(struct tunnel *t)
{
    if (t->cutting)
        return;
    t->cutting = true;
    t->holds++;
    cut_direction(&t->up);
    cut_direction(&t->down);
    t->holds--;
    look_soon(t);
}

static void give_held(struct direction *d)
{
    if (!tunnel_of(d)->clear || d->held == NULL)
        return;
    mem_free(d->held);
    d->held = NULL;
}

static void direction_failed(struct direction *d)
{
    struct tunnel *t = tunnel_of(d);
    give_held(d);
    d->over = true;
    tunnel_cut(t);
    look_for_end(t);
}

static void direction_ended(struct direction *d)
{
    struct tunnel *t = tunnel_of(d);
    d->over = true;
    tunnel_end_within(t, TUNNEL_FAREWELL_NS);
    look_for_end(t);
}

/* --- bytes --- */

static struct stream *source_of(struct direction *d)
{
    struct tunnel *t = tunnel_of(d);
    return d->up ? t->taken.stream : t->upstream;
}

static struct stream *target_of(struct direction *d)
{
    struct tunnel *t = tunnel_of(d);
    return d->up ? t->upstream : t->taken.stream;
}

static void wait_for_bytes(struct direction *d)
{
    if (tunnel_of(d)->clear) {
        op_recv_lent(loop_self(), &d->op, d->from);
        return;
    }
    struct stream *from = source_of(d);
    if (from->type != NULL)
        from->type->watch(from, &d->watcher);
    else
        op_poll(loop_self(), &d->op, from->fd, POLLIN | POLLRDHUP);
}

static enum err move_all(struct direction *d, bool *end)
{
    struct stream *from = source_of(d), *to = target_of(d);
    do
        TRY(tunnel_move(tunnel_of(d), from, to, end, &d->bytes));
    while (!*end && from->tls != NULL && tls_stream_ready(from->tls));
    return OK;
}

static void direction_main(void *arg)
{
    struct direction *d = arg;
    struct tunnel *t = tunnel_of(d);
    bool end = false;
    d->fiber = fiber_self();
    enum err e = move_all(d, &end);
    if (e == OK && end && !t->cutting) {
        (void)!stream_say_end(target_of(d), loop_now_ns(loop_self()) + TUNNEL_FAREWELL_NS);
        stream_shutdown(target_of(d)); /* may wait */
    }
    d->fiber = NULL;
    if (e != OK || t->cutting)
        direction_failed(d);
    else if (end)
        direction_ended(d);
    else
        wait_for_bytes(d);
}

/* There is no fiber to be had. */
static void starve(struct direction *d)
{
    struct tunnel *t = tunnel_of(d);
    d->starved = true;
    if (t->soon) /* it is looked at even before */
        return;
    list_remove(&t->waiting);
    list_append(&mine.starved, &t->waiting);
    if (!timer_running(&mine.timer))
        timer_start(loop_self(), &mine.timer, loop_now_ns(loop_self()) + STARVED_NS);
}

static void go_on(struct direction *d)
{
    struct tunnel *t = tunnel_of(d);
    t->holds++;
    d->starved = false; /* before: more may have come when it ends */
    if (fiber_start(loop_self(), direction_main, d) != OK)
        starve(d);
    t->holds--;
    look_for_end(t);
}

/* How many of them leave now; negative: the errno of a broken connection. */
static ssize_t send_at_once(int fd, struct slice bytes)
{
    ssize_t n;
    if (bytes.len <= BATCHED_MAX && loop_kind(loop_self()) == LOOP_URING)
        return 0;
    do
        n = send(fd, bytes.ptr, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    return n;
}

static void send_held(struct direction *d)
{
    op_send_bytes(loop_self(), &d->op, d->to, d->held + d->held_at, d->held_len);
}

/* Off fibers, both sides in clear text. What does not leave now is kept until it has. */
static void pass_on(struct direction *d, struct slice bytes)
{
    ssize_t n = send_at_once(d->to, bytes);
    if (n < 0) {
        direction_failed(d);
        return;
    }
    bytes = slice_skip(bytes, (size_t)n);
    if (bytes.len == 0) {
        wait_for_bytes(d);
        return;
    }
    d->held = mem_alloc(bytes.len);
    memcpy(d->held, bytes.ptr, bytes.len);
    d->held_at = 0;
    d->held_len = (uint16_t)bytes.len;
    send_held(d);
}

static void on_sent(struct direction *d, size_t n)
{
    d->held_at += (uint16_t)n;
    d->held_len -= (uint16_t)n;
    if (d->held_len > 0) {
        send_held(d);
        return;
    }
    struct tunnel *t = tunnel_of(d);
    give_held(d);
    if (!t->last_words)
        wait_for_bytes(d);
    else if (t->up.held == NULL && t->down.held == NULL)
        tunnel_end_now(t);
}

static void on_clear(struct direction *d, int result)
{
    if (result < 0) {
        direction_failed(d);
    } else if (d->held != NULL) {
        on_sent(d, (size_t)result);
    } else if (result == 0) {
        stream_shutdown(target_of(d));
        direction_ended(d);
    } else {
        d->bytes += d->op.lent.len;
        pass_on(d, d->op.lent);
    }
}

static void on_ready(struct op *op, int result)
{
    struct direction *d = CONTAINER_OF(op, struct direction, op);
    struct tunnel *t = tunnel_of(d);
    if (t->cutting || result == -ECANCELED)
        direction_failed(d);
    else if (t->clear)
        on_clear(d, result);
    else
        go_on(d);
}

static void feed(struct direction *d)
{
    struct tunnel *t = tunnel_of(d);
    bool idle = !d->over && (t->clear || d->fiber == NULL) && !d->op.armed;
    if (idle && t->cutting)
        d->over = true;
    else if (idle && d->starved)
        go_on(d);
}

/* Those of a list that are there now, each in none any more. */
static void each_waiting(struct list *waiting, void (*look)(struct tunnel *))
{
    struct list batch;
    list_init(&batch);
    for (struct list *n; (n = list_pop(waiting)) != NULL;)
        list_append(&batch, n);
    for (struct list *n; (n = list_pop(&batch)) != NULL;)
        look(CONTAINER_OF(n, struct tunnel, waiting));
}

static void feed_both(struct tunnel *t)
{
    t->holds++;
    feed(&t->up);
    feed(&t->down);
    t->holds--;
    look_for_end(t);
}

static void on_again(struct timer *timer)
{
    (void)timer;
    each_waiting(&mine.starved, feed_both);
}

static void look(struct tunnel *t)
{
    t->holds++;
    t->soon = false;
    if (t->broken)
        tunnel_cut(t);
    t->holds--;
    feed_both(t);
}

static void on_soon(struct task *task)
{
    (void)task;
    each_waiting(&mine.soon, look);
}

static void on_readable(struct stream_watcher *w)
{
    struct direction *d = CONTAINER_OF(w, struct direction, watcher);
    d->starved = true;
    look_soon(tunnel_of(d));
}

static void on_client_broken(struct stream_watcher *w)
{
    struct tunnel *t = tunnel_of(CONTAINER_OF(w, struct direction, watcher));
    t->broken = true;
    look_soon(t);
}

/* The client gets what has come before that, if it takes it. */
static void on_call_broken(struct stream_watcher *w)
{
    tunnel_end_within(tunnel_of(CONTAINER_OF(w, struct direction, watcher)), TUNNEL_FAREWELL_NS);
}

static const struct stream_watcher_type client_watcher = {on_readable, on_client_broken};
static const struct stream_watcher_type call_watcher = {on_readable, on_call_broken};

/* --- begin --- */

static void make_ready(void)
{
    if (mine.ready)
        return;
    list_init(&mine.soon);
    list_init(&mine.starved);
    mine.task.run = on_soon;
    timer_init(&mine.timer, on_again);
    mine.ready = true;
}

static void on_hurry(struct takeover *taken)
{
    tunnel_end_now(CONTAINER_OF(taken, struct tunnel, taken));
}

/* Behind the exchange's end, which no wait parts from the carrier's letting go of it. */
static void start(struct exchange *x, void *arg)
{
    struct tunnel *t = arg;
    (void)x;
    struct direction *both[] = {&t->up, &t->down};
    for (size_t i = 0; i < 2; i++) {
        struct direction *d = both[i];
        struct tls_stream *tls = source_of(d)->tls;
        d->starved = tls != NULL && tls_stream_ready(tls);
        if (d->starved) /* the kernel will not tell of what has been read */
            look_soon(t);
        else
            wait_for_bytes(d);
    }
}

static bool is_clear(const struct stream *s)
{
    return s->type == NULL && s->tls == NULL;
}

static void set_directions(struct tunnel *t)
{
    t->up.up = true;
    t->up.op.on_done = t->down.op.on_done = on_ready;
    t->clear = is_clear(t->taken.stream) && is_clear(t->upstream) && t->g->stream_buffer == 0;
    if (t->clear) {
        t->up.from = t->down.to = t->taken.stream->fd;
        t->down.from = t->up.to = t->upstream->fd;
    } else {
        t->up.watcher.type = &client_watcher;
        t->down.watcher.type = &call_watcher;
    }
}

static enum err join(struct round *r, struct tunnel *t, struct stream *upstream, struct slice early)
{
    struct exchange *x = r->x;
    struct slice already;
    TRY(x->carrier->keep(x, &t->taken, &already));
    TRY(exchange_flush(x));
    t->up.bytes = already.len;
    t->down.bytes = early.len;
    TRY(tunnel_send(upstream, already));
    return tunnel_send(t->taken.stream, early);
}

/* The round's link, or call, is the tunnel's from now on. */
static void take_upstream(struct round *r, struct tunnel *t)
{
    if (r->call != NULL) {
        t->call = r->call;
        t->upstream = h2_call_pipe(t->call);
        h2_call_outlive(t->call);
    } else {
        t->link = link_leave(r->link);
        t->upstream = &t->link;
    }
    r->link = NULL;
    r->call = NULL;
    t->endpoint = r->upstream->endpoint;
    endpoint_hold(t->endpoint);
    endpoint_count(t->endpoint, 1);
}

enum err tunnel_keep(struct round *r, struct slice early)
{
    struct exchange *x = r->x;
    struct tunnel *t = NEW(struct tunnel);
    t->taken.hurry = on_hurry;
    enum err e = join(r, t, r->call != NULL ? h2_call_pipe(r->call) : &r->link->stream, early);
    if (e != OK) {
        x->taken = NULL;
        mem_free(t);
        return e;
    }
    make_ready();
    list_init(&t->waiting);
    if (r->upload != NULL)
        upload_end(r);
    r->protocol->end(r);
    r->answer = NULL;
    take_upstream(r, t);
    tunnel_begin(t, r);
    set_directions(t);
    exchange_on_end(x, start, t);
    return OK;
}
