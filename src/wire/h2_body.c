/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an exchange asks of its carrier: the request's body, trailers, addresses, whether the client
 * is still there.
 *
 * DATA is kept until a handler reads it. A stream's window is small as long as nobody reads, and
 * grows while a reader waits for more than one window: then the way to the client is what is slow.
 * The connection's window is the sum of what all of its streams may hold; both are given back when
 * bytes have been read, or dropped.
 *
 * What all connections of a worker may hold together has a bound, too: each has the 64 KiB that it begins
 * with; more, up to a megabyte, is taken from the worker's H2_BODIES_MAX when half of the window has been
 * used, and goes back when the connection ends, or byte by byte as they are read when there is little
 * left for others. Windows cannot be taken back once they are told, so it is promises that are counted.
 */
#include "wire/h2_internal.h"

#include "base/check.h"
#include "base/clock.h"
#include "wire/h1_internal.h"

/* --- windows --- */

void h2_widen(struct h2_conn *c, uint32_t n)
{
    uint32_t most = H2_CONN_WINDOW - c->in_window;
    n = n < most ? n : most;
    n = n < c->shared->bodies_left ? n : c->shared->bodies_left;
    c->shared->bodies_left -= n;
    c->in_window += n;
    c->in_due += n;
}

static bool is_scarce(const struct h2_conn *c)
{
    return c->shared->bodies_left < H2_BODIES_MAX / 8;
}

/* What has just become free is for others. */
static void narrow(struct h2_conn *c, uint32_t n)
{
    uint32_t most = c->in_window - H2_WINDOW_DEFAULT;
    n = n < most ? n : most;
    c->shared->bodies_left += n;
    c->in_window -= n;
    c->in_due -= n;
}

/* Tells what is due in large steps, or when the peer has next to nothing left. */
static void open_window(struct h2_conn *c)
{
    bool dry = c->in_left < H2_FRAME_MAX_DEFAULT && c->in_due >= H2_FRAME_MAX_DEFAULT / 4;
    if ((c->in_due < c->in_window / 2 && !dry) || c->dead || c->closing)
        return;
    if (!is_scarce(c)) /* who sends much may send more at a time */
        h2_widen(c, c->in_window);
    if (h2_put_window(c, 0, c->in_due))
        c->in_left += c->in_due;
    c->in_due = 0;
}

void h2_give_back(struct h2_conn *c, uint32_t n)
{
    c->in_due += n;
    if (is_scarce(c))
        narrow(c, n);
    open_window(c);
}

void h2_tend_window(struct h2_conn *c)
{
    if (c->in_left + c->in_due < c->in_window / 2 && c->in_window < H2_CONN_WINDOW)
        h2_widen(c, c->in_window);
    open_window(c);
}

static void give_stream_back(struct h2_stream *s)
{
    if (s->in_due < s->in_window / 2 || s->in_ended || s->reset || s->conn->closing)
        return;
    if (h2_put_window(s->conn, s->id, s->in_due))
        s->in_left += s->in_due;
    s->in_due = 0;
}

/* The reader waits and nothing is here: the client may send more at a time. */
static void widen(struct h2_stream *s)
{
    uint32_t to = s->in_window * 2 < H2_STREAM_WINDOW_MAX ? s->in_window * 2 : H2_STREAM_WINDOW_MAX;
    if (s->in_touched && s->in_seen < s->in_window)
        return;
    if (s->in_length >= 0 && (uint64_t)s->in_length <= s->in_seen + (uint64_t)s->in_left)
        return; /* all that is to come may come */
    s->in_touched = true;
    s->in_due += to - s->in_window;
    s->in_window = to;
}

/* --- DATA --- */

static void wake_reader(struct h2_stream *s)
{
    if (s->in_waiting)
        waiter_wake(&s->in_waiter, OK);
    h2_wake_watcher(s);
}

static void blame(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    if (!h2_spend(&c->budgets, H2_RESETS, loop_now_ns(c->worker->loop)))
        h2_calm(c, h2_budget_name(H2_RESETS));
    else
        h2_stream_fail(s, H2_PROTOCOL_ERROR);
}

static void make_room(struct h2_stream *s, size_t n)
{
    if (s->in_at == 0 || s->in.cap - s->in.len >= n)
        return;
    if (s->in_at >= s->in.len / 2) {
        buffer_consume(&s->in, s->in_at);
        s->in_at = 0;
    }
}

void h2_on_data(struct h2_stream *s, struct slice bytes)
{
    s->in_seen += bytes.len;
    if (s->in_length >= 0 && s->in_seen > (uint64_t)s->in_length) {
        h2_give_back(s->conn, (uint32_t)bytes.len);
        blame(s); /* RFC 9113 §8.1.1 */
        return;
    }
    make_room(s, bytes.len);
    if (buffer_append(&s->in, bytes) != OK) { /* the window is smaller */
        h2_give_back(s->conn, (uint32_t)bytes.len);
        h2_stream_fail(s, H2_INTERNAL_ERROR);
        return;
    }
    s->reading.bytes += bytes.len;
    wake_reader(s);
}

void h2_on_input_end(struct h2_stream *s)
{
    if (s->in_length >= 0 && s->in_seen != (uint64_t)s->in_length) {
        blame(s);
        return;
    }
    s->in_ended = true;
    wake_reader(s);
}

/* --- reading --- */

static uint64_t read_deadline(struct h2_stream *s)
{
    const struct http_server *server = s->x.server;
    return pace_deadline(&s->reading, loop_now_ns(s->conn->worker->loop),
                         server->read_idle_timeout_ns, server->read_min_rate,
                         earlier_ns(s->hard_read_ns, s->x.read_by_ns));
}

uint64_t h2_write_deadline(struct h2_stream *s)
{
    const struct http_server *server = s->x.server;
    if (s->taken_over)
        return s->hard_write_ns;
    return pace_deadline(&s->writing, loop_now_ns(s->conn->worker->loop),
                         server->write_idle_timeout_ns, server->write_min_rate,
                         earlier_ns(s->hard_write_ns, s->x.answer_by_ns));
}

static enum err say_continue(struct h2_stream *s)
{
    static const struct fields none = {0};
    s->expect_continue = false;
    return s->head_out ? OK : h2_sink.inform(&s->sink, 100, &none);
}

void h2_want_data(struct h2_stream *s)
{
    widen(s);
    give_stream_back(s);
}

enum err h2_await_data(struct h2_stream *s, uint64_t deadline_ns)
{
    h2_want_data(s);
    waiter_init(&s->in_waiter);
    s->in_waiting = true;
    enum err e = await_wake(&s->in_waiter, deadline_ns);
    s->in_waiting = false;
    return e;
}

size_t h2_take_data(struct h2_stream *s, char *buf, size_t cap)
{
    size_t n = s->in.len - s->in_at < cap ? s->in.len - s->in_at : cap;
    memcpy(buf, s->in.ptr + s->in_at, n);
    s->in_at += n;
    if (s->in_at == s->in.len) {
        s->in_at = 0;
        buffer_clear(&s->in);
    }
    s->in_due += (uint32_t)n;
    give_stream_back(s);
    h2_give_back(s->conn, (uint32_t)n);
    return n;
}

static enum err on_read_body(struct exchange *x, char *buf, size_t cap, size_t *n)
{
    struct h2_stream *s = h2_of(x);
    *n = 0;
    if (cap == 0)
        return OK;
    while (!h2_has_data(s)) {
        if (s->in_ended)
            return OK;
        if (s->reset)
            return ERR_CLOSED;
        if (s->expect_continue && s->in_seen == 0)
            TRY(say_continue(s));
        TRY(h2_await_data(s, read_deadline(s)));
    }
    *n = h2_take_data(s, buf, cap);
    return OK;
}

static const struct fields *on_trailers(struct exchange *x)
{
    struct h2_stream *s = h2_of(x);
    return s->has_trailers && s->in_ended && s->in_at == s->in.len ? &s->trailers : NULL;
}

static bool on_may_trail(struct exchange *x)
{
    return !h2_of(x)->in_ended;
}

static size_t on_body_ready(struct exchange *x)
{
    struct h2_stream *s = h2_of(x);
    return s->in.len - s->in_at;
}

/* --- the client --- */

static void on_watch(struct exchange *x, bool on)
{
    struct h2_stream *s = h2_of(x);
    s->watched = on;
    if (on && s->reset)
        fiber_cancel(s->fiber, ERR_CLOSED); /* it has left already */
}

static bool on_has_left(struct exchange *x)
{
    return h2_of(x)->reset;
}

static void on_addresses(struct exchange *x)
{
    struct h2_stream *s = h2_of(x);
    struct h2_conn *c = s->conn;
    struct sockaddr_storage a;
    peer_text(c->given != NULL ? &c->given->remote : peer_address(c->fd, &c->peer_four, &a),
              s->remote_text, sizeof s->remote_text, s->remote_port);
    x->remote_host = slice_from(s->remote_text);
    x->remote_port = slice_from(s->remote_port);
}

static void on_local_addresses(struct exchange *x)
{
    struct h2_stream *s = h2_of(x);
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof a;
    if (s->conn->given != NULL)
        a = s->conn->given->local;
    else
        (void)!getsockname(s->conn->fd, (struct sockaddr *)&a, &len);
    peer_text(&a, s->local_text, sizeof s->local_text, s->local_port);
    x->local_host = slice_from(s->local_text);
    x->local_port = slice_from(s->local_port);
}

const struct carrier_type h2_carrier = {
    .read_body = on_read_body,
    .trailers = on_trailers,
    .may_trail = on_may_trail,
    .take_over = h2_take_over,
    .keep = h2_keep,
    .body_ready = on_body_ready,
    .watch = on_watch,
    .has_left = on_has_left,
    .addresses = on_addresses,
    .local_addresses = on_local_addresses,
};
