/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's body, read when a handler asks for it: by its length or in chunks, from what came
 * behind the head first and from the socket then. 100 Continue is said at the first read, if the
 * client waits for it and nothing has come yet.
 *
 * Each wait has a deadline. Without a minimum rate a pause may last read_idle_timeout. With one, the
 * time allowed grows from the first read by what has come, so that a trickle that never pauses falls
 * behind and is cut. read_timeout caps both.
 */
#include "wire/h1_internal.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "loop/await.h"

enum { TRAILERS_MAX = 32 };

uint64_t h1_read_deadline(struct h1_scratch *s)
{
    const struct http_server *server = s->x.server;
    return pace_deadline(&s->reading, loop_now_ns(s->conn->worker->loop),
                         server->read_idle_timeout_ns, server->read_min_rate,
                         earlier_ns(s->hard_read_ns, s->x.read_by_ns));
}

uint64_t h1_write_deadline(struct h1_scratch *s)
{
    const struct http_server *server = s->x.server;
    uint64_t idle = server->write_idle_timeout_ns;
    if (server->write_min_rate == 0)
        idle = (idle + 1) / 2; /* h1_still_takes looks in the middle */
    return pace_deadline(&s->writing, loop_now_ns(s->conn->worker->loop), idle,
                         server->write_min_rate, earlier_ns(s->hard_write_ns, s->x.answer_by_ns));
}

enum err h1_broken(struct h1_scratch *s, enum err e)
{
    s->wire_broken = true;
    s->x.close_after = true;
    return e;
}

static enum err say_continue(struct h1_scratch *s)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec v = {(char *)(uintptr_t)text, sizeof text - 1};
    size_t sent;
    s->expect_continue = false;
    if (s->x.res.head_sent)
        return OK;
    return stream_send(&s->conn->stream, &v, 1, 0, h1_write_deadline(s), &sent);
}

static enum err receive(struct h1_scratch *s, char *buf, size_t cap, size_t *n)
{
    TRY(stream_recv(&s->conn->stream, buf, cap, h1_read_deadline(s), n));
    s->reading.bytes += *n;
    return *n > 0 ? OK : ERR_CLOSED;
}

/* More bytes behind the head; all earlier ones are used up. */
static enum err refill(struct h1_scratch *s)
{
    size_t n;
    ASSERT(s->at == s->len);
    s->at = s->len = s->head_len;
    TRY(receive(s, s->in + s->len, s->in_cap - s->len, &n));
    s->len += n;
    return OK;
}

static enum err read_length(struct h1_scratch *s, char *buf, size_t cap, size_t *n)
{
    if (cap > s->body_left)
        cap = (size_t)s->body_left;
    if (s->at < s->len) {
        *n = s->len - s->at < cap ? s->len - s->at : cap;
        memcpy(buf, s->in + s->at, *n);
        s->at += *n;
    } else {
        TRY(receive(s, buf, cap, n));
    }
    s->body_left -= *n;
    s->body_done = s->body_left == 0;
    return OK;
}

static void keep_trailers(struct h1_scratch *s, const struct h1_field *fields, unsigned count)
{
    fields_init(&s->trailers, &s->arena);
    for (unsigned i = 0; i < count; i++) {
        if (trailer_wanted(s->x.server, fields[i].name))
            fields_add(&s->trailers, arena_copy(&s->arena, fields[i].name),
                       arena_copy(&s->arena, fields[i].value));
    }
    s->has_trailers = s->trailers.count > 0;
}

static enum err read_trailers(struct h1_scratch *s)
{
    struct h1_field fields[TRAILERS_MAX];
    for (;;) {
        unsigned count;
        size_t used, left = s->len - s->at;
        const char *why;
        enum h1_result r = h1_parse_trailers(fields, TRAILERS_MAX, &count,
                                             slice_of(s->in + s->at, left), &used, &why);
        if (r == H1_DONE) {
            keep_trailers(s, fields, count);
            s->at += used;
            s->body_done = true;
            return OK;
        }
        if (r != H1_MORE)
            return ERR_INVALID;
        memmove(s->in + s->head_len, s->in + s->at, left);
        s->at = s->head_len;
        s->len = s->at + left;
        if (left > BODY_ROOM / 2)
            return ERR_LIMIT;
        TRY(receive(s, s->in + s->len, s->in_cap - s->len, &used));
        s->len += used;
    }
}

static enum err read_chunked(struct h1_scratch *s, char *buf, size_t cap, size_t *n)
{
    for (;;) {
        struct slice in = slice_of(s->in + s->at, s->len - s->at), data;
        const char *start = in.ptr;
        enum chunked_event e = chunked_next(&s->chunked, &in, cap, &data);
        s->at += (size_t)(in.ptr - start);
        if (e == CHUNKED_BAD)
            return ERR_INVALID;
        if (e == CHUNKED_LAST)
            return read_trailers(s);
        if (e == CHUNKED_DATA) {
            memcpy(buf, data.ptr, data.len);
            *n = data.len;
            return OK;
        }
        TRY(refill(s));
    }
}

enum err h1_read_body(struct exchange *x, char *buf, size_t cap, size_t *n)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    *n = 0;
    if (s->body_done || cap == 0)
        return OK;
    if (s->expect_continue && s->at == s->len)
        TRY(say_continue(s));
    enum err e = s->framing == H1_BODY_CHUNKED ? read_chunked(s, buf, cap, n)
                                               : read_length(s, buf, cap, n);
    if (e == ERR_CANCELLED) { /* who read it was stopped: the answer may still be sent */
        x->close_after = true;
        return e;
    }
    return e == OK ? OK : h1_broken(s, e);
}

size_t h1_body_ready(struct exchange *x)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    return s->framing == H1_BODY_LENGTH ? s->len - s->at : 0;
}

const struct fields *h1_trailers(struct exchange *x)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    return s->has_trailers ? &s->trailers : NULL;
}

bool h1_may_trail(struct exchange *x)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    return s->framing == H1_BODY_CHUNKED && !s->body_done;
}

enum err h1_take_over(struct exchange *x, struct stream **stream, struct slice *already_read)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    if (!s->body_done)
        return ERR_UNSUPPORTED;
    s->taken_over = true;
    x->close_after = true;
    *stream = &s->conn->stream;
    *already_read = slice_of(s->in + s->at, s->len - s->at);
    return OK;
}

static void let_go(struct takeover *taken)
{
    struct h1_taken *t = taken->carrier;
    struct h1_worker *w = t->worker;
    struct h1_site *site = t->site;
    site->done(site, taken->generation);
    tls_stream_free(t->stream.tls);
    loop_close(w->loop, t->stream.fd);
    list_remove(&t->node);
    mem_free(t);
    h1_uncount(w, site);
}

void h1_leave_to(struct h1_conn *c, struct takeover *holder)
{
    struct h1_taken *t = NEW(struct h1_taken);
    t->worker = c->worker;
    t->site = c->site;
    t->holder = holder;
    t->stream = c->stream;
    list_append(&c->worker->taken, &t->node);
    holder->carrier = t;
    holder->stream = &t->stream;
    h1_free_conn(c);
}

enum err h1_keep(struct exchange *x, struct takeover *taken, struct slice *already_read)
{
    TRY(h1_take_over(x, &taken->stream, already_read));
    taken->let_go = let_go; /* behind h1_leave_to */
    x->taken = taken;
    return OK;
}
