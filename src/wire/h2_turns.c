/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DATA of the streams. A small body is copied into what is gathered as soon as it is there. A larger
 * one, or a file, is its stream's source: the fiber waits, and when the connection has something to
 * send it takes from the sources by urgency (RFC 9218), of streams that are alike a stint from each in
 * turn.
 *
 * In clear text bytes are sent from where they lie, between heads that stand in the buffer. They are
 * lent for that one call only: what the socket does not take of them is copied then (h2_output.c), so
 * that nothing that is under way to the kernel belongs to a fiber. With TLS they are copied, since a
 * record is made of one piece. A file is read to where it is sent or encrypted from.
 */
#include "wire/h2_internal.h"

#include <errno.h>
#include <sys/uio.h>

enum {
    STINT = 2 * H2_FRAME_MAX_DEFAULT, /* what a stream sends before another one that is like it */
    STINT_FRAMES = 2,                 /* … at most: no client takes shorter ones */
    BORROW_MIN = 4096,                /* less is cheaper to copy than to point at */
};

/* --- frames --- */

static void mark(struct h2_stream *s, char *payload)
{
    s->mark_epoch = s->conn->epoch;
    s->mark_at = (uint32_t)(payload - s->conn->out->bytes) - H2_FRAME_HEAD;
}

static int64_t window_of(const struct h2_stream *s)
{
    int64_t both = s->conn->send_window < s->send_window ? s->conn->send_window : s->send_window;
    return both > 0 ? both : 0;
}

/* The window that a frame with n bytes takes; seen as work in earnest. */
static void spend_window(struct h2_stream *s, size_t n)
{
    struct h2_conn *c = s->conn;
    c->send_window -= (int64_t)n;
    s->send_window -= (int64_t)n;
    s->writing.bytes += n;
    h2_refund(&c->budgets, H2_WINDOWS, 4 + (unsigned)(n / 512));
    h2_refund(&c->budgets, H2_CONTROL, 2);
}

bool h2_put_data(struct h2_stream *s, struct slice bytes, bool last)
{
    struct h2_conn *c = s->conn;
    if (bytes.len > H2_COPY_MAX || bytes.len > c->peer_frame_max ||
        (int64_t)bytes.len > window_of(s) || !h2_make_room(c, H2_FRAME_HEAD + bytes.len))
        return false;
    char *at = h2_begin_frame(c, H2_DATA, last ? H2_END_STREAM : 0, s->id, bytes.len);
    memcpy(at, bytes.ptr, bytes.len);
    mark(s, at);
    spend_window(s, bytes.len);
    return true;
}

enum err h2_put_end(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    if (c->out != NULL && s->mark_epoch == c->epoch) {
        c->out->bytes[s->mark_at + 4] |= H2_END_STREAM;
        return OK;
    }
    TRY(h2_await_room(s, H2_FRAME_HEAD));
    (void)h2_begin_frame(c, H2_DATA, H2_END_STREAM, s->id, 0);
    return OK;
}

/* --- who is next --- */

static void schedule_stream(struct h2_stream *s)
{
    struct h2_busy *b = s->conn->busy;
    if (!list_empty(&s->ready))
        return;
    list_append(&b->ready[s->urgency], &s->ready);
    b->ready_count++;
}

void h2_unschedule(struct h2_stream *s)
{
    if (list_empty(&s->ready))
        return;
    list_remove(&s->ready);
    s->conn->busy->ready_count--;
}

void h2_window_grew(struct h2_stream *s)
{
    if (s->source.left > 0 && s->send_window > 0 && !s->reset) {
        schedule_stream(s);
        h2_schedule(s->conn);
    }
}

/* The most urgent one; of those that are alike the one that waits longest. */
static struct h2_stream *pick(struct h2_busy *b)
{
    for (int i = 0; b->ready_count > 0 && i < H2_URGENCIES; i++) {
        if (!list_empty(&b->ready[i]))
            return CONTAINER_OF(b->ready[i].next, struct h2_stream, ready);
    }
    return NULL;
}

/* --- sources --- */

/* The next bytes of a file, into the payloads of frames. */
static bool read_file(struct h2_source *f, struct iovec *to, int count)
{
    while (count > 0) {
        ssize_t got = preadv(f->file, to, count, (off_t)f->offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) /* shorter than its head said */
            return false;
        f->offset += (uint64_t)got;
        for (; count > 0 && (size_t)got >= to->iov_len; to++, count--)
            got -= (ssize_t)to->iov_len;
        if (count > 0) {
            to->iov_base = (char *)to->iov_base + got;
            to->iov_len -= (size_t)got;
        }
    }
    return true;
}

static void flight_add(struct h2_flight *f, const char *bytes, size_t len)
{
    if (len > 0)
        f->parts[f->count++] = (struct iovec){(char *)(uintptr_t)bytes, len};
}

void h2_flight_close(struct h2_flight *f, const struct h2_out *o)
{
    flight_add(f, o->bytes + f->from, o->len - f->from);
    f->from = o->len;
}

/* The payload of a frame whose head stands at the end of what is gathered. */
static void put_bytes(struct h2_conn *c, struct h2_source *f, size_t n, struct h2_flight *flight)
{
    struct h2_out *o = c->out;
    if (flight != NULL && flight->count + 3 <= H2_FLIGHT_PARTS && n >= BORROW_MIN) {
        h2_flight_close(flight, o);
        flight_add(flight, f->bytes, n);
        flight->borrowed += n;
    } else {
        memcpy(o->bytes + o->len, f->bytes, n);
        o->len += (uint32_t)n;
    }
    f->bytes += n;
}

/* The head of a frame whose payload follows in the buffer, or is lent. */
static char *begin_piece(struct h2_stream *s, size_t len, bool last)
{
    size_t room = s->source.bytes == NULL ? len : 0;
    uint8_t flags = last ? H2_END_STREAM : 0;
    char *at = h2_begin_frame(s->conn, H2_DATA, flags, s->id, room);
    h2_write_head(at - H2_FRAME_HEAD, (uint32_t)len, H2_DATA, flags, s->id);
    return at;
}

/* As many frames as it takes. False: what the stream promised is not there. */
static bool put_stint(struct h2_stream *s, size_t n, struct h2_flight *flight)
{
    struct h2_conn *c = s->conn;
    struct h2_source *f = &s->source;
    struct iovec gaps[STINT_FRAMES];
    int count = 0;
    char *at = NULL;
    uint32_t before = c->out != NULL ? c->out->len : 0;
    for (size_t done = 0, len; done < n; done += len) {
        len = n - done < c->peer_frame_max ? n - done : c->peer_frame_max;
        at = begin_piece(s, len, f->last && done + len == f->left);
        if (f->bytes == NULL)
            gaps[count++] = (struct iovec){at, len};
        else
            put_bytes(c, f, len, flight);
    }
    if (count > 0 && !read_file(f, gaps, count)) {
        c->out->len = before;
        f->failed = true;
        f->left = 0;
        return false;
    }
    f->left -= n;
    mark(s, at);
    spend_window(s, n);
    return true;
}

/* --- turns --- */

static void go_behind(struct h2_stream *s)
{
    if (!s->incremental)
        return;
    h2_unschedule(s);
    schedule_stream(s);
}

/* How much of the stream's source goes into so much room; 0: better none than a little. */
static size_t stint_of(const struct h2_stream *s, size_t room)
{
    size_t max = s->conn->peer_frame_max, heads = (STINT / max + 1) * H2_FRAME_HEAD;
    size_t n = (size_t)window_of(s);
    if (room <= H2_OUT_RESERVE + heads)
        return 0;
    room -= H2_OUT_RESERVE + heads;
    n = n < STINT ? n : STINT;
    n = n < s->source.left ? n : (size_t)s->source.left;
    size_t odd = room % max; /* what a last frame would have */
    if (n <= room)
        return n;
    return odd < H2_COPY_MAX / 2 && n - (room - odd) > H2_COPY_MAX / 2 ? room - odd : room;
}

void h2_fill(struct h2_conn *c, struct h2_flight *flight)
{
    struct h2_stream *s;
    while (c->busy != NULL && c->send_window > 0 && (s = pick(c->busy)) != NULL) {
        if (window_of(s) == 0) { /* SETTINGS took its window away */
            h2_unschedule(s);
            continue;
        }
        size_t room = h2_room_left(c) - (flight != NULL ? flight->borrowed : 0);
        size_t n = stint_of(s, room);
        if (n == 0)
            return;
        if (put_stint(s, n, flight) && s->source.left > 0 && s->send_window > 0) {
            go_behind(s);
            continue;
        }
        h2_unschedule(s);
        if (s->source.left == 0)
            h2_wake_out(s);
    }
}

enum err h2_send_source(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    waiter_init(&s->out_waiter);
    if (s->send_window > 0)
        schedule_stream(s);
    if (c->sending == NULL)
        h2_send(c);
    enum err e = OK;
    while (e == OK && s->source.left > 0 && !s->reset)
        e = h2_await_out(s);
    h2_unschedule(s);
    s->source.left = 0;
    if (e == OK && s->source.failed)
        return ERR_IO;
    return e == OK && s->reset ? ERR_CLOSED : e;
}
