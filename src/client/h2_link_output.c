/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a connection to a server sends. Frames are written into one buffer in the order in which they are
 * made; DATA joins them when it leaves, at the end of the loop's turn or when it is full. What the
 * socket does not take stays in its buffer and goes on as an operation, while a second one is
 * gathered; then DATA waits, no frame is read that could call for an answer, and no new call begins here.
 *
 * Nothing that the kernel works on belongs to a call, so a call can end at any time.
 */
#include "client/h2_link_internal.h"

#include <errno.h>

#include "base/check.h"
#include "base/mem.h"

enum { OUTS_KEPT = 64 };

static void on_written(struct op *op, int result);

/* --- buffers --- */

static struct h2_bytes *take_out(size_t cap)
{
    struct h2_thread *t = h2_mine();
    struct h2_bytes *o = cap == H2_LINK_OUT ? t->outs : NULL;
    if (o != NULL) {
        t->outs = o->next;
        t->outs_free--;
    } else {
        o = mem_alloc(sizeof *o + cap);
        o->cap = cap;
    }
    o->at = o->len = 0;
    return o;
}

static void give_out(struct h2_bytes *o)
{
    struct h2_thread *t = h2_mine();
    if (t->outs_free >= OUTS_KEPT || o->cap != H2_LINK_OUT) {
        mem_free(o);
        return;
    }
    o->next = t->outs;
    t->outs = o;
    t->outs_free++;
}

void h2_link_drop_output(struct h2_link *c)
{
    if (c->out != NULL)
        give_out(c->out);
    c->out = NULL;
    if (c->sending != NULL && !c->write.armed) {
        give_out(c->sending);
        c->sending = NULL;
    }
}

static size_t room_left(const struct h2_link *c)
{
    return c->out != NULL ? c->out->cap - c->out->len : H2_LINK_OUT;
}

static void grow(struct h2_link *c, size_t n)
{
    struct h2_bytes *old = c->out;
    struct h2_bytes *o = take_out(old->len + n + H2_LINK_OUT);
    memcpy(o->bytes, old->bytes + old->at, old->len - old->at);
    o->len = old->len - old->at;
    give_out(old);
    c->out = o;
}

/* NULL: the connection is dead. Large heads get a buffer of their own. */
static char *room(struct h2_link *c, size_t n)
{
    if (c->dead)
        return NULL;
    if (c->out != NULL && room_left(c) < n && c->sending == NULL)
        h2_link_send(c);
    if (c->dead)
        return NULL;
    if (c->out == NULL)
        c->out = take_out(n > H2_LINK_OUT ? n : H2_LINK_OUT);
    if (room_left(c) < n && c->out->len > H2_LINK_OUT_MAX) {
        h2_link_die(c, "the server does not take what it has asked for");
        return NULL;
    }
    if (room_left(c) < n)
        grow(c, n);
    h2_link_schedule(c);
    return c->out->bytes + c->out->len;
}

bool h2_link_has_room(struct h2_link *c)
{
    if (room_left(c) >= H2_LINK_ANSWER)
        return true;
    if (c->sending == NULL)
        h2_link_send(c);
    return !c->dead && room_left(c) >= H2_LINK_ANSWER;
}

/* --- frames --- */

char *h2_link_begin_frame(struct h2_link *c, enum h2_type type, uint8_t flags, uint32_t id,
                          size_t n)
{
    char *at = room(c, H2_FRAME_HEAD + n);
    if (at == NULL)
        return NULL;
    h2_write_head(at, (uint32_t)n, type, flags, id);
    c->out->len += H2_FRAME_HEAD + n;
    c->gathered += H2_FRAME_HEAD + n;
    return at + H2_FRAME_HEAD;
}

void h2_link_put(struct h2_link *c, enum h2_type type, uint8_t flags, uint32_t id,
                 struct slice payload)
{
    char *at = h2_link_begin_frame(c, type, flags, id, payload.len);
    if (at != NULL && payload.len > 0)
        memcpy(at, payload.ptr, payload.len);
}

void h2_link_put_u32(struct h2_link *c, enum h2_type type, uint32_t id, uint32_t value)
{
    char *at = h2_link_begin_frame(c, type, 0, id, 4);
    if (at != NULL)
        h2_write_u32(at, value);
}

/* With the heads of HEADERS and of as many CONTINUATION as it may take. */
static size_t block_room(size_t n)
{
    return n + (n / H2_FRAME_MAX_DEFAULT + 2) * H2_FRAME_HEAD;
}

char *h2_link_begin_block(struct h2_link *c, size_t n)
{
    return room(c, block_room(n));
}

bool h2_link_fits(struct h2_link *c, size_t n)
{
    if (room_left(c) >= block_room(n))
        return true;
    if (c->out != NULL && c->out->len > 0)
        return false;
    if (c->out != NULL)
        give_out(c->out);
    c->out = NULL; /* it gets one that is as large as it takes */
    return true;
}

void h2_link_end_block(struct h2_link *c, uint32_t id, bool ends, char *end)
{
    char *at = c->out->bytes + c->out->len;
    size_t n = h2_frame_block(at + H2_FRAME_HEAD, (size_t)(end - at) - H2_FRAME_HEAD,
                              H2_FRAME_MAX_DEFAULT, ends ? H2_END_STREAM : 0, id);
    c->out->len += n;
    c->gathered += n;
}

/* --- sending --- */

static void go_on_sending(struct h2_link *c)
{
    struct h2_bytes *o = c->sending;
    struct tls_stream *tls = c->link->stream.tls;
    struct slice left = tls != NULL ? tls_stream_out(tls)
                                    : slice_of(o->bytes + o->at, o->len - o->at);
    o->part = (struct iovec){(char *)(uintptr_t)left.ptr, left.len};
    o->message = (struct msghdr){.msg_iov = &o->part, .msg_iovlen = 1};
    c->write.on_done = on_written;
    op_send(loop_self(), &c->write, c->link->stream.fd, &o->message, 0);
}

/* How many bytes the socket takes now; below 0: the connection is dead. */
static ssize_t send_bytes(struct h2_link *c, const char *ptr, size_t len)
{
    struct iovec part = {(char *)(uintptr_t)ptr, len};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n = send_now(c->link->stream.fd, &m, 0);
    if (n < 0 && n != -EAGAIN) { /* it may have said why before it closed: the read goes on */
        if (c->read_ended || !c->read.armed)
            h2_link_die(c, NULL);
        return -1;
    }
    return n > 0 ? n : 0;
}

static ssize_t send_clear(struct h2_link *c)
{
    struct h2_bytes *o = c->out;
    ssize_t n = send_bytes(c, o->bytes + o->at, o->len - o->at);
    if (n < 0)
        return n;
    c->taken += (uint64_t)n;
    o->at += (size_t)n;
    if (o->at == o->len) {
        o->at = o->len = 0;
        return n;
    }
    c->out = NULL;
    c->sending = o;
    c->blocked_ns = h2_now();
    go_on_sending(c);
    return n;
}

static ssize_t send_encrypted(struct h2_link *c)
{
    struct tls_stream *tls = c->link->stream.tls;
    struct h2_bytes *o = c->out;
    if (o != NULL && o->len > 0) {
        struct iovec part = {o->bytes + o->at, o->len - o->at};
        size_t n = tls_stream_write(tls, &part, 1);
        o->at += n;
        c->taken += n;
        if (o->at == o->len)
            o->at = o->len = 0;
    }
    if (tls_stream_failed(tls)) {
        h2_link_die(c, "tls: writing failed");
        return -1;
    }
    struct slice out = tls_stream_out(tls);
    ssize_t n = send_bytes(c, out.ptr, out.len);
    if (n < 0)
        return n;
    tls_stream_sent(tls, (size_t)n);
    if ((size_t)n < out.len) {
        c->sending = take_out(H2_LINK_OUT); /* what the operation needs */
        c->blocked_ns = h2_now();
        go_on_sending(c);
    }
    return n;
}

static bool has_output(const struct h2_link *c)
{
    return (c->out != NULL && c->out->len > 0) ||
           (c->link->stream.tls != NULL && tls_stream_out(c->link->stream.tls).len > 0);
}

/* The server takes nothing any more. What it has said is read, and then comes its end. */
static void give_up_output(struct h2_link *c)
{
    h2_link_retire(c);
    h2_link_drop_output(c);
}

void h2_link_send(struct h2_link *c)
{
    size_t total = 0;
    while (!c->dead && c->sending == NULL) {
        if (total >= H2_LINK_TURN) { /* let others have their turn */
            h2_link_schedule(c);
            break;
        }
        h2_calls_fill(c);
        if (!has_output(c))
            break;
        ssize_t n = c->link->stream.tls != NULL ? send_encrypted(c) : send_clear(c);
        if (n < 0) {
            give_up_output(c);
            break;
        }
        total += (size_t)n;
    }
    if (c->out != NULL && c->out->len == 0) {
        give_out(c->out);
        c->out = NULL;
    }
}

static void on_written(struct op *op, int result)
{
    struct h2_link *c = CONTAINER_OF(op, struct h2_link, write);
    struct h2_bytes *o = c->sending;
    struct tls_stream *tls = c->link->stream.tls;
    if (result < 0) {
        h2_link_die(c, NULL);
    } else if (tls != NULL) {
        tls_stream_sent(tls, (size_t)result);
    } else {
        o->at += (size_t)result;
        c->taken += (uint64_t)result;
    }
    c->blocked_ns = h2_now();
    if (!c->dead && (tls != NULL ? tls_stream_out(tls).len > 0 : o->at < o->len)) {
        go_on_sending(c);
        return;
    }
    give_out(o);
    c->sending = NULL;
    h2_link_send(c);
    if (!c->dead && c->calls > 0)
        h2_group_wake(c->group); /* it was full of output, perhaps */
    h2_link_settle(c);
}

void h2_link_schedule(struct h2_link *c)
{
    struct h2_thread *t = h2_mine();
    if (!list_empty(&c->flush))
        return;
    if (!t->flush_due)
        loop_defer_batch(loop_self(), &t->flush);
    t->flush_due = true;
    list_append(&t->links_flush, &c->flush);
}

void h2_links_on_flush(struct task *task)
{
    struct h2_thread *t = CONTAINER_OF(task, struct h2_thread, flush);
    struct list now;
    list_init(&now);
    t->flush_due = false;
    for (struct list *n; (n = list_pop(&t->links_flush)) != NULL;) /* what is scheduled from here on */
        list_append(&now, n);                                      /* is for the next turn */
    for (struct list *n; (n = list_pop(&now)) != NULL;) {
        struct h2_link *c = CONTAINER_OF(n, struct h2_link, flush);
        h2_link_send(c);
        h2_link_settle(c);
    }
}
