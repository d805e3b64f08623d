/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames from the client (RFC 9113 §5, §6), read where they lie in the bytes that the loop lends, by
 * h2_reader.h.
 *
 * What a peer may get wrong is either its connection's end (h2_fail) or its stream's (h2_stream_fail);
 * what it may repeat without end is counted (h2_budget.h). When the output has no room left for what
 * a frame may ask to be said, reading stops where it is, and goes on when the socket has taken some.
 */
#include "wire/h2_internal.h"

#include "base/clock.h"

enum { SETTINGS_AT_ONCE = 8 }; /* for one unit of the budget: each may change all windows */

static bool spend(struct h2_conn *c, enum h2_budget kind)
{
    if (h2_spend(&c->budgets, kind, loop_now_ns(c->worker->loop)))
        return true;
    h2_calm(c, h2_budget_name(kind));
    return false;
}

/* A stream's error that is the client's doing. */
static void blame(struct h2_conn *c, uint32_t id, enum h2_error code)
{
    struct h2_stream *s = h2_find(c, id);
    if (!spend(c, H2_RESETS))
        return;
    if (s != NULL)
        h2_stream_fail(s, code);
    else
        (void)h2_put_reset(c, id, code);
}

/* RFC 9113 §5.1.1: those of even numbers are the server's, which opens none. */
static bool was_never_open(const struct h2_conn *c, uint32_t id)
{
    return id == 0 || id > c->last_id || id % 2 == 0;
}

/* --- DATA --- */

static void take_data(struct h2_conn *c, const struct h2_got *g)
{
    struct h2_stream *s = h2_find(c, g->head.stream);
    if (s != NULL && !s->reset && !s->in_ended)
        h2_on_data(s, g->bytes);
    else
        h2_give_back(c, (uint32_t)g->bytes.len);
}

static void end_data(struct h2_conn *c, const struct h2_frame_head *h)
{
    struct h2_stream *s = h2_find(c, h->stream);
    if ((h->flags & H2_END_STREAM) != 0 && s != NULL && !s->reset && !s->in_ended)
        h2_on_input_end(s);
}

/* What a DATA frame's head says. False: an error has been told. */
static bool check_data(struct h2_conn *c, const struct h2_frame_head *h)
{
    struct h2_stream *s = h2_find(c, h->stream);
    if (was_never_open(c, h->stream)) {
        h2_fail(c, H2_PROTOCOL_ERROR, "DATA on a stream that was not opened");
        return false;
    }
    if (h->len > c->in_left) {
        h2_fail(c, H2_FLOW_CONTROL_ERROR, "more DATA than the connection's window");
        return false;
    }
    c->in_left -= h->len;
    h2_tend_window(c);
    if (s == NULL && h2_was_closed(c, h->stream)) { /* else it was answered early, and forgotten */
        blame(c, h->stream, H2_STREAM_CLOSED);
    } else if (s != NULL && s->in_ended && !s->reset) {
        blame(c, h->stream, H2_STREAM_CLOSED);
    } else if (s != NULL && !s->reset) {
        if (h->len > s->in_left)
            blame(c, h->stream, H2_FLOW_CONTROL_ERROR);
        else
            s->in_left -= h->len;
    }
    return !c->closing && !c->dead;
}

static void go_on_with_data(struct h2_conn *c, const struct h2_got *g)
{
    if (g->bytes.len > 0)
        take_data(c, g);
    if (g->last)
        end_data(c, &g->head);
}

static void begin_data(struct h2_conn *c, const struct h2_got *g)
{
    const struct h2_frame_head *h = &g->head;
    if (!check_data(c, h))
        return;
    if (g->padding > 0) {
        h2_give_back(c, g->padding);
        struct h2_stream *s = h2_find(c, h->stream);
        if (s != NULL)
            s->in_due += g->padding;
    }
    if (h->len == g->padding && (h->flags & H2_END_STREAM) == 0 && !spend(c, H2_EMPTY))
        return;
    go_on_with_data(c, g);
}

/* --- header blocks --- */

static void on_part(struct h2_conn *c, const struct h2_got *g)
{
    uint64_t ns = c->site->server->read_header_timeout_ns;
    if (g->head.type == H2_HEADERS) {
        c->head_by = ns > 0 ? loop_now_ns(c->worker->loop) + ns : 0;
        h2_hurry(c);
    } else if (g->bytes.len == 0) {
        (void)spend(c, H2_EMPTY);
    }
}

static void on_block(struct h2_conn *c, const struct h2_got *g)
{
    c->head_by = 0;
    h2_on_block(c, g->head.stream, (g->head.flags & H2_END_STREAM) != 0, g->bytes);
}

/* --- the small ones --- */

static void on_priority(struct h2_conn *c, const struct h2_frame_head *h)
{
    if (h->stream == 0)
        h2_fail(c, H2_PROTOCOL_ERROR, "PRIORITY on stream 0");
    else if (h->len != 5 && was_never_open(c, h->stream)) /* which cannot be reset */
        h2_fail(c, H2_FRAME_SIZE_ERROR, "PRIORITY of the wrong length");
    else if (h->len != 5)
        blame(c, h->stream, H2_FRAME_SIZE_ERROR);
    else
        (void)spend(c, H2_CONTROL); /* RFC 9113 §5.3.2: deprecated, and not looked at */
}

static void on_rst_stream(struct h2_conn *c, const struct h2_frame_head *h)
{
    struct h2_stream *s = h2_find(c, h->stream);
    if (was_never_open(c, h->stream)) {
        h2_fail(c, H2_PROTOCOL_ERROR, "RST_STREAM on a stream that was not opened");
        return;
    }
    if (s == NULL || s->reset)
        (void)spend(c, H2_CONTROL);
    else if (spend(c, H2_RESETS))
        h2_stream_reset(s);
}

static void change_windows(struct h2_conn *c, uint32_t to)
{
    int64_t delta = (int64_t)to - c->peer_window;
    c->peer_window = to;
    for (int i = 0; c->busy != NULL && i < H2_TABLE; i++) {
        for (struct h2_stream *s = c->busy->table[i]; s != NULL; s = s->next) {
            s->send_window += delta;
            if (s->send_window > INT32_MAX)
                h2_fail(c, H2_FLOW_CONTROL_ERROR, "SETTINGS made a window too large");
            else if (delta > 0)
                h2_window_grew(s);
        }
    }
}

static void on_setting(struct h2_conn *c, unsigned id, uint32_t v)
{
    const char *why;
    enum h2_error error = h2_setting_check(id, v, &why);
    if (error != H2_NO_ERROR)
        h2_fail(c, error, why);
    else if (id == H2_SET_HEADER_TABLE_SIZE)
        hpack_encoder_limit(&c->encoder, v);
    else if (id == H2_SET_INITIAL_WINDOW_SIZE)
        change_windows(c, v);
    else if (id == H2_SET_MAX_FRAME_SIZE)
        c->peer_frame_max = v;
}

void h2_apply_settings(struct h2_conn *c, struct slice p)
{
    for (size_t i = 0; i + 6 <= p.len && !c->closing; i += 6) {
        if (i % (6 * SETTINGS_AT_ONCE) == 0 && !spend(c, H2_CONTROL))
            return;
        on_setting(c, (unsigned)(unsigned char)p.ptr[i] << 8 | (unsigned char)p.ptr[i + 1],
                   h2_read_u32(p.ptr + i + 2));
    }
}

static void on_settings(struct h2_conn *c, const struct h2_frame_head *h, struct slice p)
{
    if (!spend(c, H2_CONTROL) || (h->flags & H2_ACK) != 0)
        return;
    h2_apply_settings(c, p);
    if (!c->closing)
        (void)h2_put_frame(c, H2_SETTINGS, H2_ACK, 0, SLICE_NONE);
}

static void on_ping(struct h2_conn *c, const struct h2_frame_head *h, struct slice p)
{
    if (!spend(c, H2_CONTROL))
        return;
    if ((h->flags & H2_ACK) == 0)
        (void)h2_put_frame(c, H2_PING, H2_ACK, 0, p);
    else
        h2_end_goaway(c); /* the only one that is ever sent from here */
}

static void grow_connection(struct h2_conn *c, uint32_t n)
{
    if (n == 0) {
        h2_fail(c, H2_PROTOCOL_ERROR, "WINDOW_UPDATE of nothing");
        return;
    }
    c->send_window += n;
    if (c->send_window > INT32_MAX)
        h2_fail(c, H2_FLOW_CONTROL_ERROR, "the connection's window is too large");
    else if (c->busy != NULL && c->busy->ready_count > 0)
        h2_schedule(c);
}

static void grow_stream(struct h2_conn *c, uint32_t id, uint32_t n)
{
    struct h2_stream *s = h2_find(c, id);
    if (was_never_open(c, id)) {
        h2_fail(c, H2_PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that was not opened");
        return;
    }
    if (n == 0) {
        if (s != NULL && !s->reset)
            blame(c, id, H2_PROTOCOL_ERROR);
        return;
    }
    if (s == NULL || s->reset)
        return;
    s->send_window += n;
    if (s->send_window > INT32_MAX)
        blame(c, id, H2_FLOW_CONTROL_ERROR);
    else
        h2_window_grew(s);
}

static void on_window_update(struct h2_conn *c, const struct h2_frame_head *h, struct slice p)
{
    if (!spend(c, H2_WINDOWS))
        return;
    uint32_t n = h2_read_u32(p.ptr) & 0x7fffffff;
    if (h->stream == 0)
        grow_connection(c, n);
    else
        grow_stream(c, h->stream, n);
}

static void on_priority_update(struct h2_conn *c, struct slice p)
{
    uint32_t id = h2_read_u32(p.ptr) & 0x7fffffff;
    if (id == 0) {
        h2_fail(c, H2_PROTOCOL_ERROR, "PRIORITY_UPDATE of stream 0");
        return;
    }
    struct h2_stream *s = h2_find(c, id);
    if (!spend(c, H2_CONTROL))
        return;
    if (s != NULL && !s->reset)
        h2_set_priority(s, slice_skip(p, 4));
    else if (id > c->last_id && id % 2 == 1)
        h2_keep_priority(c, id, slice_skip(p, 4));
}

/* --- frames --- */

static void on_frame(struct h2_conn *c, const struct h2_frame_head *h, struct slice payload)
{
    switch (h->type) {
    case H2_PRIORITY:
        on_priority(c, h);
        break;
    case H2_RST_STREAM:
        on_rst_stream(c, h);
        break;
    case H2_SETTINGS:
        on_settings(c, h, payload);
        break;
    case H2_PUSH_PROMISE:
        h2_fail(c, H2_PROTOCOL_ERROR, "PUSH_PROMISE from a client");
        break;
    case H2_PING:
        on_ping(c, h, payload);
        break;
    case H2_WINDOW_UPDATE:
        on_window_update(c, h, payload);
        break;
    case H2_PRIORITY_UPDATE:
        on_priority_update(c, payload);
        break;
    default: /* RFC 9113 §5.5: unknown ones are left alone; who said GOAWAY goes on with what it has
              * asked for, then closes */
        (void)spend(c, H2_CONTROL);
        break;
    }
}

static void on_got(struct h2_conn *c, const struct h2_got *g)
{
    switch (g->kind) {
    case H2_GOT_FRAME:
        on_frame(c, &g->head, g->bytes);
        break;
    case H2_GOT_BLOCK:
        on_block(c, g);
        break;
    case H2_GOT_PART:
        on_part(c, g);
        break;
    case H2_GOT_DATA:
        begin_data(c, g);
        break;
    case H2_GOT_PIECE:
        go_on_with_data(c, g);
        break;
    case H2_GOT_BAD:
        if (g->error == H2_ENHANCE_YOUR_CALM)
            h2_calm(c, g->why);
        else
            h2_fail(c, g->error, g->why);
        break;
    }
}

static bool take_preface(struct h2_conn *c, struct slice *bytes)
{
    size_t left = (size_t)H2_PREFACE_LEN - c->preface_at;
    size_t n = bytes->len < left ? bytes->len : left;
    if (memcmp(bytes->ptr, h2_preface + c->preface_at, n) != 0) {
        h2_fail(c, H2_PROTOCOL_ERROR, "the client's preface is not HTTP/2's");
        return false;
    }
    c->preface_at += (uint8_t)n;
    *bytes = slice_skip(*bytes, n);
    return c->preface_at == H2_PREFACE_LEN;
}

void h2_feed(struct h2_conn *c, struct slice bytes)
{
    struct h2_reader *r = &c->reader;
    struct h2_got g;
    if (c->preface_at < H2_PREFACE_LEN && (bytes.len == 0 || !take_preface(c, &bytes)))
        return;
    while (!c->dead && !c->closing && h2_reader_look(r, &bytes, &g)) {
        if (h2_got_asks(&g) && !h2_make_room(c, H2_ANSWER_MAX)) {
            c->paused = true;
            break;
        }
        h2_reader_take(r, &bytes, &g);
        on_got(c, &g);
    }
    if (!c->dead && !c->closing && h2_reader_keep(r, bytes) != OK)
        h2_die(c, "the input is full");
}
