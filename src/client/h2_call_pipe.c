/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call as a tunnel: what an extended CONNECT (RFC 8441) to a server has become, such as a WebSocket.
 * DATA of either side are bytes of it, END_STREAM is the end of one direction. One fiber may read while
 * another one writes; while nothing comes, there need be none: a watcher is told then.
 *
 * A server that has reset the stream may have said its last words before: they are still read, and then
 * the end, or ERR_CLOSED where it did not say one.
 */
#include "client/h2_link_internal.h"

static struct h2_call *of_pipe(struct stream *pipe)
{
    return CONTAINER_OF(pipe, struct h2_call, pipe);
}

static bool has_bytes(const struct h2_call *k)
{
    return k->first != NULL;
}

static enum err on_await_readable(struct stream *pipe, uint64_t deadline_ns)
{
    struct h2_call *k = of_pipe(pipe);
    while (!has_bytes(k) && !k->ended) {
        if (k->fate != H2_CALL_GOES_ON)
            return ERR_CLOSED;
        waiter_init(&k->in_waiter);
        k->in_waiting = true;
        enum err e = await_wake(&k->in_waiter, deadline_ns);
        k->in_waiting = false;
        TRY(e);
    }
    return OK;
}

static void open_window(struct h2_call *k, size_t n)
{
    h2_call_taken(k, (uint32_t)n);
    if (k->in_due >= k->in_window / 2 && !k->ended && k->fate == H2_CALL_GOES_ON)
        h2_call_open_window(k);
}

static size_t take(struct h2_call *k, char *buf, size_t cap)
{
    struct h2_piece *p = k->first;
    size_t n = p->len - p->at < cap ? p->len - p->at : cap;
    memcpy(buf, p->bytes + p->at, n);
    p->at += (uint32_t)n;
    if (p->at == p->len) {
        k->first = p->next;
        iobuf_give((char *)p);
    }
    open_window(k, n);
    return n;
}

static bool on_recv_now(struct stream *pipe, char *buf, size_t len, size_t *n, enum err *e)
{
    struct h2_call *k = of_pipe(pipe);
    *n = 0;
    *e = OK;
    if (has_bytes(k))
        *n = take(k, buf, len);
    else if (!k->ended && k->fate == H2_CALL_GOES_ON)
        return false;
    else if (!k->ended)
        *e = ERR_CLOSED;
    return true;
}

static enum err on_send(struct stream *pipe, struct slice bytes, uint64_t deadline_ns)
{
    return await_h2_send(of_pipe(pipe), bytes, false, deadline_ns);
}

/* If the server's window takes all of it. */
static void on_send_now(struct stream *pipe, struct slice bytes)
{
    struct h2_call *k = of_pipe(pipe);
    struct h2_link *c = k->link;
    int64_t n = (int64_t)bytes.len;
    if (k->fate != H2_CALL_GOES_ON || k->out_ended || k->send_window < n || c->send_window < n)
        return;
    h2_link_put(c, H2_DATA, 0, k->id, bytes);
    k->send_window -= n;
    c->send_window -= n;
}

static void on_shutdown(struct stream *pipe)
{
    h2_call_put_end(of_pipe(pipe), NULL);
}

static void on_watch(struct stream *pipe, struct stream_watcher *w)
{
    struct h2_call *k = of_pipe(pipe);
    bool broke_before = k->watcher == NULL && k->fate != H2_CALL_GOES_ON;
    k->watcher = w;
    k->awaited = true;
    if (broke_before)
        w->type->broken(w);
    if (has_bytes(k) || k->ended || k->fate != H2_CALL_GOES_ON)
        h2_call_wake_in(k);
}

static const struct stream_type pipe_type = {
    .await_readable = on_await_readable,
    .recv_now = on_recv_now,
    .send = on_send,
    .send_now = on_send_now,
    .shutdown = on_shutdown,
    .watch = on_watch,
};

struct stream *h2_call_pipe(struct h2_call *k)
{
    k->pipe = (struct stream){.fd = -1, .type = &pipe_type};
    return &k->pipe;
}

void h2_call_outlive(struct h2_call *k)
{
    k->arena = NULL;
    k->heads = NULL;
    k->heads_end = &k->heads;
    k->small = SLICE_NONE;
    k->trailers = (struct fields){0};
    k->why = NULL;
}
