/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sink at the bottom of every stack: a response as HTTP/2 frames. The head is encoded into the
 * connection's output when it is given, small bodies behind it; the end is a flag of the frame that
 * happens to be the last, as long as that has not left. What was announced and not delivered is a
 * stream that is reset.
 */
#include "wire/h2_internal.h"

#include "base/clock.h"

static struct h2_stream *of_sink(struct sink *s)
{
    return CONTAINER_OF(s, struct h2_stream, sink);
}

/* Nothing else is said on this stream. */
static enum err cut(struct h2_stream *s, enum err e, enum h2_error code)
{
    h2_stream_fail(s, code);
    return e;
}

/* --- heads --- */

enum block_kind { BLOCK_RESPONSE, BLOCK_INFORM, BLOCK_TRAILERS };

struct block {
    uint32_t id;
    enum block_kind kind;
    bool ends;
    int status;
    const struct response *res;  /* of BLOCK_RESPONSE */
    const struct fields *fields; /* of the others */
};

static char *encode(struct h2_conn *c, char *at, const struct block *b)
{
    switch (b->kind) {
    case BLOCK_RESPONSE:
        return h2_response_put(&c->encoder, at, b->res, &c->shared->date,
                               loop_wall_s(c->worker->loop));
    case BLOCK_INFORM:
        return h2_inform_put(&c->encoder, at, b->status, b->fields);
    default:
        return h2_trailers_put(&c->encoder, at, b->fields);
    }
}

/* The room that it may take is there. */
static enum err put_block(struct h2_conn *c, const struct block *b)
{
    char *payload = h2_begin_frame(c, H2_HEADERS, 0, b->id, 0);
    if (payload == NULL)
        return ERR_CLOSED;
    size_t n = (size_t)(encode(c, payload, b) - payload);
    n = h2_frame_block(payload, n, c->peer_frame_max, b->ends ? H2_END_STREAM : 0, b->id);
    c->out->len += (uint32_t)(n - H2_FRAME_HEAD);
    return OK;
}

/* With the heads of CONTINUATION frames. */
static size_t with_heads(size_t n)
{
    return n + (n / H2_FRAME_MAX_DEFAULT + 1) * H2_FRAME_HEAD;
}

static enum err on_sink_inform(struct sink *sink, int status, const struct fields *fields)
{
    struct h2_stream *s = of_sink(sink);
    size_t room = h2_block_room(fields);
    if (s->x.res.head_sent || s->head_out)
        return OK;
    TRY(h2_await_room(s, with_heads(room)));
    return put_block(s->conn, &(struct block){s->id, BLOCK_INFORM, .status = status,
                                              .fields = fields});
}

/* A final answer cannot have an interim status: it is sent as what it is, and an empty 200 behind
 * it, as Go does. */
static enum err put_interim(struct sink *sink, struct response *res)
{
    TRY(on_sink_inform(sink, res->status, &res->fields));
    res->status = 200;
    res->content_length = 0;
    return OK;
}

/* RFC 8441 §5: what is 101 in HTTP/1 is 200 here, and its fields are HTTP/1's. */
static void accept_tunnel(struct response *res)
{
    res->status = 200;
    res->content_length = -1;
    fields_remove(&res->fields, SLICE("Sec-WebSocket-Accept"));
}

static enum err on_sink_head(struct sink *sink, struct response *res)
{
    struct h2_stream *s = of_sink(sink);
    struct h2_conn *c = s->conn;
    if (res->status == 101 && s->x.req.upgrade.len > 0)
        accept_tunnel(res);
    if (res->status / 100 == 1)
        TRY(put_interim(sink, res));
    size_t room = h2_block_room(&res->fields);
    enum err e = h2_await_room(s, with_heads(room));
    res->head_sent = true;
    if (e != OK)
        return cut(s, e, H2_INTERNAL_ERROR);
    s->mark_epoch = c->epoch;
    s->mark_at = c->out != NULL ? c->out->len : 0;
    s->head_out = true;
    return put_block(c, &(struct block){s->id, BLOCK_RESPONSE, .res = res});
}

/* --- bodies --- */

static enum err over_length(struct h2_stream *s, uint64_t more)
{
    int64_t length = s->x.res.content_length;
    if (length < 0 || s->x.bytes_sent + more <= (uint64_t)length)
        return OK;
    return cut(s, ERR_INVALID, H2_INTERNAL_ERROR); /* more than the head announced */
}

static enum err send_source(struct h2_stream *s, struct h2_source source)
{
    uint64_t all = source.left;
    if (s->reset)
        return ERR_CLOSED;
    s->source = source;
    enum err e = h2_send_source(s);
    s->x.bytes_sent += all;
    if (e != OK)
        return cut(s, e, e == ERR_TIMEOUT ? H2_CANCEL : H2_INTERNAL_ERROR);
    s->out_ended = source.last;
    return OK;
}

/* At once, if it is little and there is window and room. */
static bool put_at_once(struct h2_stream *s, struct slice bytes, bool last)
{
    if (s->reset || !h2_put_data(s, bytes, last))
        return false;
    s->x.bytes_sent += bytes.len;
    s->out_ended = last;
    return true;
}

enum err h2_send_bytes(struct h2_stream *s, struct slice bytes, bool last)
{
    if (put_at_once(s, bytes, last))
        return OK;
    return send_source(s, (struct h2_source){.bytes = bytes.ptr, .left = bytes.len, .last = last});
}

static enum err send_pending(struct h2_stream *s, bool last)
{
    struct slice bytes = s->pending;
    s->pending = SLICE_NONE;
    return bytes.len > 0 ? h2_send_bytes(s, bytes, last) : OK;
}

static enum err on_sink_data(struct sink *sink, struct slice bytes, enum lend lend)
{
    struct h2_stream *s = of_sink(sink);
    if (bytes.len == 0 || exchange_bodiless(&s->x, s->x.res.status))
        return OK;
    TRY(over_length(s, s->pending.len + bytes.len));
    TRY(send_pending(s, false));
    if (put_at_once(s, bytes, false))
        return OK;
    if (lend == LEND_STABLE && !s->reset) {
        s->pending = bytes; /* whether it is the last will be known soon */
        return OK;
    }
    return h2_send_bytes(s, bytes, false);
}

static enum err on_sink_file(struct sink *sink, int fd, uint64_t offset, uint64_t len)
{
    struct h2_stream *s = of_sink(sink);
    if (exchange_bodiless(&s->x, s->x.res.status))
        return OK;
    TRY(over_length(s, s->pending.len + len));
    TRY(send_pending(s, false));
    int64_t length = s->x.res.content_length;
    bool last = s->x.res.trailers == NULL && length >= 0 &&
                s->x.bytes_sent + len == (uint64_t)length;
    return send_source(s, (struct h2_source){.file = fd, .offset = offset, .left = len,
                                             .last = last});
}

static enum err on_sink_flush(struct sink *sink)
{
    struct h2_stream *s = of_sink(sink);
    TRY(send_pending(s, false));
    return s->reset ? ERR_CLOSED : OK; /* what is gathered leaves at the end of the turn */
}

static enum err put_trailers(struct h2_stream *s, const struct fields *trailers)
{
    size_t room = h2_block_room(trailers);
    TRY(send_pending(s, false));
    enum err e = h2_await_room(s, with_heads(room));
    if (e == OK)
        e = put_block(s->conn, &(struct block){s->id, BLOCK_TRAILERS, true, .fields = trailers});
    s->out_ended = e == OK;
    return e == OK ? OK : cut(s, e, H2_INTERNAL_ERROR);
}

static enum err on_sink_end(struct sink *sink, const struct fields *trailers)
{
    struct h2_stream *s = of_sink(sink);
    bool bodiless = exchange_bodiless(&s->x, s->x.res.status);
    if (s->out_ended || s->x.taken != NULL) /* or it goes on as a tunnel */
        return OK;
    if (s->reset)
        return ERR_CLOSED;
    if (s->taken_over)
        return cut(s, ERR_CLOSED, H2_CANCEL); /* a tunnel ends by its two sides */
    if (!bodiless && s->x.res.content_length >= 0 &&
        s->x.bytes_sent + s->pending.len < (uint64_t)s->x.res.content_length)
        return cut(s, ERR_INVALID, H2_INTERNAL_ERROR); /* less than announced */
    if (trailers != NULL && trailers->count > 0 && !bodiless)
        return put_trailers(s, trailers);
    TRY(send_pending(s, true));
    if (!s->out_ended) {
        enum err e = h2_put_end(s);
        if (e != OK)
            return cut(s, e, H2_INTERNAL_ERROR);
        s->out_ended = true;
    }
    return OK;
}

/* --- without a handler, and without an end --- */

static bool window_for(const struct h2_conn *c, uint32_t id, int n)
{
    const struct h2_stream *s = h2_find(c, id);
    return c->send_window >= n && (s != NULL ? s->send_window : c->peer_window) >= n;
}

void h2_answer_alone(struct h2_conn *c, uint32_t id, int status)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%d %s", status, status_text(status));
    struct field items[] = {{SLICE("Server"), SLICE("portico")},
                            {SLICE("Content-Type"), SLICE("text/plain; charset=utf-8")}};
    struct response res = {.status = status, .fields = {.items = items, .count = 2, .cap = 2,
                                                        .arena = &c->shared->scrap}};
    size_t room = h2_block_room(&res.fields);
    if (!window_for(c, id, len))
        len = 0;
    res.content_length = len;
    if (!h2_make_room(c, with_heads(room) + H2_FRAME_HEAD + (size_t)len))
        (void)h2_put_reset(c, id, H2_REFUSED_STREAM);
    else if (put_block(c, &(struct block){id, BLOCK_RESPONSE, len == 0, .res = &res}) == OK && len > 0 &&
             h2_put_frame(c, H2_DATA, H2_END_STREAM, id, slice_of(text, (size_t)len)))
        c->send_window -= len;
    arena_reset(&c->shared->scrap);
}

static void on_sink_abort(struct sink *sink, enum err why)
{
    struct h2_stream *s = of_sink(sink);
    int status = s->x.res.head_sent ? 0 : status_of_failure(why);
    if (s->reset || s->out_ended)
        return;
    if (status == 0) {
        h2_stream_fail(s, H2_INTERNAL_ERROR);
        return;
    }
    s->x.res.status = status;
    s->x.res.head_sent = true;
    h2_answer_alone(s->conn, s->id, status);
    s->out_ended = true;
}

const struct sink_type h2_sink = {
    .inform = on_sink_inform,
    .head = on_sink_head,
    .data = on_sink_data,
    .file = on_sink_file,
    .flush = on_sink_flush,
    .end = on_sink_end,
    .abort = on_sink_abort,
};
