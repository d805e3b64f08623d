/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream as a tunnel: what an extended CONNECT (RFC 8441) becomes when its handler takes it over,
 * such as a WebSocket. DATA of either side are bytes of it, END_STREAM is the end of one direction.
 * One fiber may read while another one writes; while nothing comes, there need be none: a watcher is told
 * then. It lives on behind its exchange until its holder lets go of it.
 */
#include "wire/h2_internal.h"

static struct h2_stream *of_pipe(struct stream *pipe)
{
    return CONTAINER_OF(pipe, struct h2_stream, pipe);
}

static enum err on_await_readable(struct stream *pipe, uint64_t deadline_ns)
{
    struct h2_stream *s = of_pipe(pipe);
    while (!h2_has_data(s) && !s->in_ended) {
        if (s->reset)
            return ERR_CLOSED;
        TRY(h2_await_data(s, deadline_ns));
    }
    return OK;
}

static bool on_recv_now(struct stream *pipe, char *buf, size_t len, size_t *n, enum err *e)
{
    struct h2_stream *s = of_pipe(pipe);
    *n = 0;
    *e = OK;
    if (h2_has_data(s))
        *n = h2_take_data(s, buf, len);
    else if (!s->in_ended && !s->reset)
        return false;
    else if (!s->in_ended)
        *e = ERR_CLOSED;
    return true;
}

static enum err on_send(struct stream *pipe, struct slice bytes, uint64_t deadline_ns)
{
    struct h2_stream *s = of_pipe(pipe);
    s->hard_write_ns = deadline_ns;
    return h2_send_bytes(s, bytes, false);
}

static void on_send_now(struct stream *pipe, struct slice bytes)
{
    struct h2_stream *s = of_pipe(pipe);
    if (!s->reset && !s->out_ended)
        (void)h2_put_data(s, bytes, false);
}

static void on_shutdown(struct stream *pipe)
{
    struct h2_stream *s = of_pipe(pipe);
    if (!s->reset && !s->out_ended && h2_put_end(s) == OK)
        s->out_ended = true;
}

void h2_wake_watcher(struct h2_stream *s)
{
    if (!s->awaited)
        return;
    s->awaited = false;
    s->watcher->type->readable(s->watcher);
}

static void on_watch(struct stream *pipe, struct stream_watcher *w)
{
    struct h2_stream *s = of_pipe(pipe);
    s->watcher = w;
    s->awaited = true;
    if (h2_has_data(s) || s->in_ended || s->reset) {
        h2_wake_watcher(s);
        return;
    }
    h2_want_data(s);
    buffer_deinit(&s->in);
}

static const struct stream_type pipe_type = {
    .await_readable = on_await_readable,
    .recv_now = on_recv_now,
    .send = on_send,
    .send_now = on_send_now,
    .shutdown = on_shutdown,
    .watch = on_watch,
};

enum err h2_take_over(struct exchange *x, struct stream **stream, struct slice *already_read)
{
    struct h2_stream *s = h2_of(x);
    if (x->req.upgrade.len == 0 || s->reset || s->taken_over)
        return ERR_UNSUPPORTED;
    s->taken_over = true;
    s->pipe = (struct stream){.fd = -1, .type = &pipe_type};
    *stream = &s->pipe;
    *already_read = SLICE_NONE;
    return OK;
}

/* What has not ended in peace is cut. */
static void let_go(struct takeover *taken)
{
    struct h2_stream *s = taken->carrier;
    struct h2_conn *c = s->conn;
    s->watcher = NULL;
    if (!s->out_ended)
        h2_stream_fail(s, H2_CANCEL);
    c->site->done(c->site, taken->generation);
    h2_stream_end(s);
}

enum err h2_keep(struct exchange *x, struct takeover *taken, struct slice *already_read)
{
    TRY(h2_take_over(x, &taken->stream, already_read));
    taken->carrier = h2_of(x);
    taken->let_go = let_go;
    x->taken = taken;
    return OK;
}
