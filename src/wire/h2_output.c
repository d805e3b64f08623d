/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a connection sends. Frames are written into one buffer, in the order in which they are made:
 * heads, small bodies and control frames as they come, what is larger when the buffer leaves
 * (h2_turns.c). The buffer leaves at the end of the loop's turn, or when it is full; with TLS it is
 * encrypted then.
 *
 * What the socket does not take stays in its buffer and is sent by an operation; meanwhile a second
 * one is gathered, and no third: then fibers wait, and no more frames are read, so a connection
 * holds two buffers at most whatever its peer does. What was lent by streams for the one call is
 * copied then, so that nothing that is under way to the kernel belongs to a fiber.
 */
#include "wire/h2_internal.h"

#include <errno.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"

enum { OUTS_KEPT = 64 };

static void on_written(struct op *op, int result);

/* --- buffers --- */

static struct h2_out *take_out(struct h2_worker *w)
{
    struct h2_out *o = w->outs;
    if (o != NULL) {
        w->outs = o->next;
        w->outs_free--;
    } else {
        o = mem_alloc(sizeof *o);
    }
    o->at = o->len = 0;
    return o;
}

static void give_out(struct h2_worker *w, struct h2_out *o)
{
    if (w->outs_free >= OUTS_KEPT) {
        mem_free(o);
        return;
    }
    o->next = w->outs;
    w->outs = o;
    w->outs_free++;
}

void h2_free_outs(struct h2_worker *w)
{
    while (w->outs != NULL) {
        struct h2_out *o = w->outs;
        w->outs = o->next;
        mem_free(o);
    }
}

void h2_drop_output(struct h2_conn *c)
{
    if (c->out != NULL)
        give_out(c->shared, c->out);
    c->out = NULL;
    if (c->sending != NULL && !c->write.armed) {
        give_out(c->shared, c->sending);
        c->sending = NULL;
    }
}

/* --- room --- */

char *h2_room(struct h2_conn *c, size_t n)
{
    if (c->dead)
        return NULL;
    if (c->out == NULL)
        c->out = take_out(c->shared);
    if (h2_room_left(c) < n) {
        h2_die(c, "the output is full");
        return NULL;
    }
    h2_schedule(c);
    return c->out->bytes + c->out->len;
}

bool h2_make_room(struct h2_conn *c, size_t n)
{
    if (h2_room_left(c) >= n + H2_OUT_RESERVE)
        return true;
    if (c->sending == NULL)
        h2_send(c);
    return !c->dead && h2_room_left(c) >= n + H2_OUT_RESERVE;
}

enum err h2_await_out(struct h2_stream *s)
{
    for (;;) {
        uint64_t moved = s->writing.bytes;
        s->out_waiting = true;
        enum err e = await_wake(&s->out_waiter, h2_write_deadline(s));
        s->out_waiting = false;
        if (e == ERR_TIMEOUT && s->writing.bytes != moved && !s->reset)
            continue;
        return e == OK && s->reset ? ERR_CLOSED : e;
    }
}

void h2_wake_out(struct h2_stream *s)
{
    if (s->out_waiting)
        waiter_wake(&s->out_waiter, OK);
}

enum err h2_await_room(struct h2_stream *s, size_t n)
{
    struct h2_conn *c = s->conn;
    if (n + H2_OUT_RESERVE > H2_OUT_SIZE)
        return ERR_LIMIT;
    while (!s->reset && !h2_make_room(c, n)) {
        if (c->dead || s->reset)
            return ERR_CLOSED;
        list_append(&c->busy->room, &s->room);
        waiter_init(&s->out_waiter);
        enum err e = h2_await_out(s);
        list_remove(&s->room);
        TRY(e);
    }
    return s->reset ? ERR_CLOSED : OK;
}

static void wake_for_room(struct h2_conn *c)
{
    if (c->busy == NULL)
        return;
    for (struct list *n; (n = list_pop(&c->busy->room)) != NULL;)
        h2_wake_out(CONTAINER_OF(n, struct h2_stream, room));
}

/* --- frames --- */

char *h2_begin_frame(struct h2_conn *c, enum h2_type type, uint8_t flags, uint32_t id, size_t n)
{
    char *at = h2_room(c, H2_FRAME_HEAD + n);
    if (at == NULL)
        return NULL;
    h2_write_head(at, (uint32_t)n, type, flags, id);
    c->out->len += (uint32_t)(H2_FRAME_HEAD + n);
    return at + H2_FRAME_HEAD;
}

bool h2_put_frame(struct h2_conn *c, enum h2_type type, uint8_t flags, uint32_t id,
                  struct slice payload)
{
    char *at = h2_begin_frame(c, type, flags, id, payload.len);
    if (at != NULL && payload.len > 0)
        memcpy(at, payload.ptr, payload.len);
    return at != NULL;
}

bool h2_put_reset(struct h2_conn *c, uint32_t id, enum h2_error code)
{
    char *at = h2_begin_frame(c, H2_RST_STREAM, 0, id, 4);
    if (at != NULL)
        h2_write_u32(at, code);
    return at != NULL;
}

bool h2_put_window(struct h2_conn *c, uint32_t id, uint32_t n)
{
    char *at = h2_begin_frame(c, H2_WINDOW_UPDATE, 0, id, 4);
    if (at != NULL)
        h2_write_u32(at, n);
    return at != NULL;
}

bool h2_put_goaway(struct h2_conn *c, uint32_t last, enum h2_error code)
{
    char *at = h2_begin_frame(c, H2_GOAWAY, 0, 0, 8);
    if (at == NULL)
        return false;
    h2_write_u32(at, last);
    h2_write_u32(at + 4, code);
    return true;
}

/* --- sending --- */

static void left(struct h2_conn *c, size_t n)
{
    if (n > 0)
        c->unsent = 0;
    c->epoch++;
}

static uint64_t stall_ns(const struct h2_conn *c)
{
    return (c->site->server->write_idle_timeout_ns + 1) / 2; /* on_timer looks in the middle */
}

static void go_on_sending(struct h2_conn *c)
{
    struct h2_out *o = c->sending;
    uint64_t ns = stall_ns(c);
    struct slice rest = c->tls != NULL ? tls_stream_out(c->tls)
                                       : slice_of(o->bytes + o->at, o->len - o->at);
    o->part = (struct iovec){(char *)(uintptr_t)rest.ptr, rest.len};
    o->message = (struct msghdr){.msg_iov = &o->part, .msg_iovlen = 1};
    c->write.on_done = on_written;
    op_send(c->worker->loop, &c->write, c->fd, &o->message, 0);
    c->write_by = ns > 0 ? loop_now_ns(c->worker->loop) + ns : 0;
    h2_hurry(c);
}

/* How many bytes the socket takes now; below 0: the connection is dead. */
static ssize_t send_parts(struct h2_conn *c, struct iovec *parts, size_t count)
{
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t n = send_now(c->fd, &m, 0);
    if (n < 0 && n != -EAGAIN) {
        h2_die(c, NULL);
        return -1;
    }
    return n > 0 ? n : 0;
}

/* What is left of a flight behind n bytes, on its own. */
static struct h2_out *copy_rest(struct h2_conn *c, const struct h2_flight *f, size_t n)
{
    struct h2_out *o = take_out(c->shared);
    for (unsigned i = 0; i < f->count; i++) {
        const char *from = f->parts[i].iov_base;
        size_t len = f->parts[i].iov_len, skip = n < len ? n : len;
        memcpy(o->bytes + o->len, from + skip, len - skip);
        o->len += (uint32_t)(len - skip);
        n -= skip;
    }
    return o;
}

static ssize_t send_clear(struct h2_conn *c, struct h2_flight *f)
{
    struct h2_out *o = c->out;
    h2_flight_close(f, o);
    size_t all = o->len + f->borrowed;
    ssize_t n = send_parts(c, f->parts, f->count);
    left(c, n > 0 ? (size_t)n : 0);
    if (n < 0)
        return n;
    if ((size_t)n == all) {
        o->at = o->len = 0;
        return n;
    }
    c->out = NULL;
    c->sending = o;
    if (f->borrowed > 0) {
        c->sending = copy_rest(c, f, (size_t)n);
        give_out(c->shared, o);
    } else {
        o->at = (uint32_t)n;
    }
    go_on_sending(c);
    return n;
}

/* Encrypts what there is room for. */
static bool encrypt(struct h2_conn *c)
{
    struct h2_out *o = c->out;
    if (o == NULL || o->len == 0)
        return true;
    struct iovec part = {o->bytes + o->at, o->len - o->at};
    o->at += (uint32_t)tls_stream_write(c->tls, &part, 1);
    left(c, 0);
    if (o->at == o->len)
        o->at = o->len = 0;
    return !tls_stream_failed(c->tls);
}

static ssize_t send_encrypted(struct h2_conn *c)
{
    if (!encrypt(c)) {
        h2_die(c, NULL);
        return -1;
    }
    struct slice out = tls_stream_out(c->tls);
    struct iovec part = {(char *)(uintptr_t)out.ptr, out.len};
    ssize_t n = send_parts(c, &part, 1);
    if (n < 0)
        return n;
    tls_stream_sent(c->tls, (size_t)n);
    left(c, (size_t)n);
    if ((size_t)n < out.len) {
        c->sending = take_out(c->shared); /* what the operation needs */
        go_on_sending(c);
    }
    return n;
}

static bool has_output(const struct h2_conn *c)
{
    return (c->out != NULL && c->out->len > 0) ||
           (c->tls != NULL && tls_stream_out(c->tls).len > 0);
}

void h2_send(struct h2_conn *c)
{
    size_t total = 0;
    while (!c->dead && c->sending == NULL) {
        struct h2_flight flight;
        if (total >= H2_TURN_MAX) { /* let others have their turn */
            h2_schedule(c);
            break;
        }
        flight.count = flight.from = 0;
        flight.borrowed = 0;
        h2_fill(c, c->tls == NULL ? &flight : NULL); /* what is lent must be sent below */
        if (!has_output(c))
            break;
        ssize_t n = c->tls != NULL ? send_encrypted(c) : send_clear(c, &flight);
        total += n > 0 ? (size_t)n : 0;
    }
    if (c->out != NULL && c->out->len == 0) {
        give_out(c->shared, c->out);
        c->out = NULL;
    }
    if (h2_room_left(c) > H2_OUT_SIZE / 2)
        wake_for_room(c);
}

static void on_written(struct op *op, int result)
{
    struct h2_conn *c = CONTAINER_OF(op, struct h2_conn, write);
    struct h2_out *o = c->sending;
    if (result < 0)
        h2_die(c, NULL);
    else if (c->tls != NULL)
        tls_stream_sent(c->tls, (size_t)result);
    else
        o->at += (uint32_t)result;
    if (!c->dead && (c->tls != NULL ? tls_stream_out(c->tls).len > 0 : o->at < o->len)) {
        c->unsent = 0;
        go_on_sending(c);
        return;
    }
    give_out(c->shared, o);
    c->sending = NULL;
    c->write_by = 0;
    left(c, 1);
    h2_send(c);
    h2_settle(c);
}

void h2_schedule(struct h2_conn *c)
{
    struct h2_worker *w = c->shared;
    if (!list_empty(&c->flush))
        return;
    if (!w->flush_due)
        loop_defer_batch(w->worker->loop, &w->flush);
    w->flush_due = true;
    list_append(&w->flushes, &c->flush);
}

void h2_on_flush(struct task *t)
{
    struct h2_worker *w = CONTAINER_OF(t, struct h2_worker, flush);
    struct list now;
    list_init(&now);
    w->flush_due = false;
    for (struct list *n; (n = list_pop(&w->flushes)) != NULL;) /* what is scheduled from here on */
        list_append(&now, n);                                  /* is for the next turn */
    for (struct list *n; (n = list_pop(&now)) != NULL;) {
        struct h2_conn *c = CONTAINER_OF(n, struct h2_conn, flush);
        h2_send(c);
        h2_settle(c);
    }
}
