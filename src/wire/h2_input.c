/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames from the client (RFC 9113 §4 to §6). They are read where they lie, in the bytes that the
 * loop lends; one that is not whole is kept until it is, but for DATA, which goes to its stream piece
 * by piece. A header block in several frames is gathered; nothing else may come in between.
 *
 * What a peer may get wrong is either its connection's end (h2_fail) or its stream's (h2_stream_fail);
 * what it may repeat without end is counted (h2_budget.h). When the output has no room left for what
 * a frame may ask to be said, reading stops where it is, and goes on when the socket has taken some.
 */
#include "wire/h2_internal.h"

#include "base/clock.h"
#include "base/mem.h"

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

static void take_data(struct h2_conn *c, struct slice piece)
{
    struct h2_stream *s = h2_find(c, c->data_id);
    if (s != NULL && !s->reset && !s->in_ended)
        h2_on_data(s, piece);
    else
        h2_give_back(c, (uint32_t)piece.len);
}

static void end_data(struct h2_conn *c)
{
    struct h2_stream *s = h2_find(c, c->data_id);
    if (c->data_ends && s != NULL && !s->reset && !s->in_ended)
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

static void begin_data(struct h2_conn *c, const struct h2_frame_head *h, const char *payload)
{
    bool padded = (h->flags & H2_PADDED) != 0;
    uint32_t len = h->len, pad = 0;
    if (!check_data(c, h))
        return;
    if (padded && len == 0) {
        h2_fail(c, H2_FRAME_SIZE_ERROR, "padded DATA without the padding's length");
        return;
    }
    if (padded) {
        pad = (unsigned char)payload[0];
        len--;
        if (pad > len) {
            h2_fail(c, H2_PROTOCOL_ERROR, "more padding than DATA");
            return;
        }
        h2_give_back(c, 1 + pad);
        struct h2_stream *s = h2_find(c, h->stream);
        if (s != NULL)
            s->in_due += 1 + pad;
    }
    if (len == pad && (h->flags & H2_END_STREAM) == 0 && !spend(c, H2_EMPTY))
        return;
    c->data_id = h->stream;
    c->data_left = len - pad;
    c->pad_left = pad;
    c->data_ends = (h->flags & H2_END_STREAM) != 0;
    if (c->data_left == 0 && c->pad_left == 0)
        end_data(c);
}

/* Bytes of a DATA frame in hand; returns how many were its own. */
static size_t go_on_with_data(struct h2_conn *c, struct slice bytes)
{
    size_t n = bytes.len < c->data_left ? bytes.len : c->data_left;
    if (n > 0) {
        c->data_left -= (uint32_t)n;
        take_data(c, slice_of(bytes.ptr, n));
    }
    size_t pad = bytes.len - n < c->pad_left ? bytes.len - n : c->pad_left;
    if (c->data_left == 0)
        c->pad_left -= (uint32_t)pad;
    else
        pad = 0;
    if (c->data_left == 0 && c->pad_left == 0)
        end_data(c);
    return n + pad;
}

/* --- HEADERS and CONTINUATION --- */

static struct h2_kept *kept_of(struct h2_conn *c)
{
    uint32_t head_max = c->site->server->max_header_bytes;
    if (c->kept != NULL)
        return c->kept;
    c->kept = NEW(struct h2_kept);
    buffer_init(&c->kept->in, H2_INPUT_MAX);
    buffer_init(&c->kept->block,
                head_max > H2_BLOCK_MAX / 2 ? head_max * (size_t)2 : H2_BLOCK_MAX);
    return c->kept;
}

static void gather_block(struct h2_conn *c, struct slice piece)
{
    if (buffer_append(&kept_of(c)->block, piece) != OK)
        h2_calm(c, "a header block is too long");
}

static void end_block(struct h2_conn *c)
{
    uint32_t id = c->block_id;
    c->block_id = 0;
    c->head_by = 0;
    h2_on_block(c, id, (c->block_flags & H2_END_STREAM) != 0, buffer_slice(&c->kept->block));
    buffer_clear(&c->kept->block);
}

static void on_headers(struct h2_conn *c, const struct h2_frame_head *h, struct slice p)
{
    size_t pad = 0, skip = 0;
    if ((h->flags & H2_PADDED) != 0) {
        pad = p.len > 0 ? (unsigned char)p.ptr[0] : 0;
        skip = 1;
    }
    if ((h->flags & H2_PRIORITY_FLAG) != 0)
        skip += 5;
    if (p.len < skip) {
        h2_fail(c, H2_FRAME_SIZE_ERROR, "HEADERS too short for what its flags say");
        return;
    }
    if (pad > p.len - skip) {
        h2_fail(c, H2_PROTOCOL_ERROR, "more padding than HEADERS");
        return;
    }
    struct slice block = slice_of(p.ptr + skip, p.len - skip - pad);
    if ((h->flags & H2_END_HEADERS) != 0) {
        h2_on_block(c, h->stream, (h->flags & H2_END_STREAM) != 0, block);
        return;
    }
    uint64_t ns = c->site->server->read_header_timeout_ns;
    c->block_id = h->stream;
    c->block_flags = h->flags;
    c->continuations = 0;
    c->head_by = ns > 0 ? loop_now_ns(c->worker->loop) + ns : 0;
    h2_hurry(c);
    gather_block(c, block);
}

static void on_continuation(struct h2_conn *c, const struct h2_frame_head *h, struct slice p)
{
    if (c->block_id == 0 || h->stream != c->block_id) {
        h2_fail(c, H2_PROTOCOL_ERROR, "CONTINUATION without HEADERS before it");
        return;
    }
    if (++c->continuations > H2_CONTINUATIONS_MAX) {
        h2_calm(c, "too many CONTINUATION frames");
        return;
    }
    if (p.len == 0 && (h->flags & H2_END_HEADERS) == 0 && !spend(c, H2_EMPTY))
        return;
    gather_block(c, p);
    if ((h->flags & H2_END_HEADERS) != 0 && !c->closing)
        end_block(c);
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
    if (h->len != 4) {
        h2_fail(c, H2_FRAME_SIZE_ERROR, "RST_STREAM of the wrong length");
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
    switch (id) {
    case H2_SET_HEADER_TABLE_SIZE:
        hpack_encoder_limit(&c->encoder, v);
        break;
    case H2_SET_ENABLE_PUSH:
    case H2_SET_ENABLE_CONNECT_PROTOCOL:
    case H2_SET_NO_RFC7540_PRIORITIES:
        if (v > 1)
            h2_fail(c, H2_PROTOCOL_ERROR, "a setting that is neither 0 nor 1");
        break;
    case H2_SET_INITIAL_WINDOW_SIZE:
        if (v > INT32_MAX)
            h2_fail(c, H2_FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE too large");
        else
            change_windows(c, v);
        break;
    case H2_SET_MAX_FRAME_SIZE:
        if (v < H2_FRAME_MAX_DEFAULT || v > 0xffffff)
            h2_fail(c, H2_PROTOCOL_ERROR, "MAX_FRAME_SIZE out of bounds");
        else
            c->peer_frame_max = v;
        break;
    default:
        break;
    }
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
    bool ack = (h->flags & H2_ACK) != 0;
    if (h->stream != 0) {
        h2_fail(c, H2_PROTOCOL_ERROR, "SETTINGS on a stream");
        return;
    }
    if (ack ? p.len != 0 : p.len % 6 != 0) {
        h2_fail(c, H2_FRAME_SIZE_ERROR, "SETTINGS of the wrong length");
        return;
    }
    if (!spend(c, H2_CONTROL) || ack)
        return;
    h2_apply_settings(c, p);
    c->settled = true;
    if (!c->closing)
        (void)h2_put_frame(c, H2_SETTINGS, H2_ACK, 0, SLICE_NONE);
}

static void on_ping(struct h2_conn *c, const struct h2_frame_head *h, struct slice p)
{
    if (h->stream != 0)
        h2_fail(c, H2_PROTOCOL_ERROR, "PING on a stream");
    else if (p.len != 8)
        h2_fail(c, H2_FRAME_SIZE_ERROR, "PING of the wrong length");
    else if (!spend(c, H2_CONTROL))
        return;
    else if ((h->flags & H2_ACK) == 0)
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
    if (p.len != 4) {
        h2_fail(c, H2_FRAME_SIZE_ERROR, "WINDOW_UPDATE of the wrong length");
        return;
    }
    if (!spend(c, H2_WINDOWS))
        return;
    uint32_t n = h2_read_u32(p.ptr) & 0x7fffffff;
    if (h->stream == 0)
        grow_connection(c, n);
    else
        grow_stream(c, h->stream, n);
}

static void on_priority_update(struct h2_conn *c, const struct h2_frame_head *h, struct slice p)
{
    if (h->stream != 0) {
        h2_fail(c, H2_PROTOCOL_ERROR, "PRIORITY_UPDATE on a stream");
        return;
    }
    if (p.len < 4) {
        h2_fail(c, H2_FRAME_SIZE_ERROR, "PRIORITY_UPDATE too short");
        return;
    }
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

static void on_goaway(struct h2_conn *c, const struct h2_frame_head *h)
{
    if (h->stream != 0)
        h2_fail(c, H2_PROTOCOL_ERROR, "GOAWAY on a stream");
    else if (h->len < 8)
        h2_fail(c, H2_FRAME_SIZE_ERROR, "GOAWAY too short");
    else
        (void)spend(c, H2_CONTROL); /* it goes on with what it has asked for, then closes */
}

/* --- frames --- */

static void on_frame(struct h2_conn *c, const struct h2_frame_head *h, struct slice payload)
{
    switch (h->type) {
    case H2_HEADERS:
        on_headers(c, h, payload);
        break;
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
    case H2_GOAWAY:
        on_goaway(c, h);
        break;
    case H2_WINDOW_UPDATE:
        on_window_update(c, h, payload);
        break;
    case H2_CONTINUATION:
        on_continuation(c, h, payload);
        break;
    case H2_PRIORITY_UPDATE:
        on_priority_update(c, h, payload);
        break;
    default:
        (void)spend(c, H2_CONTROL); /* RFC 9113 §5.5: unknown ones are left alone */
        break;
    }
}

/* What holds for every frame. */
static bool check_frame(struct h2_conn *c, const struct h2_frame_head *h)
{
    if (h->len > H2_FRAME_MAX_DEFAULT)
        h2_fail(c, H2_FRAME_SIZE_ERROR, "a frame that is too long");
    else if (!c->settled && (h->type != H2_SETTINGS || (h->flags & H2_ACK) != 0))
        h2_fail(c, H2_PROTOCOL_ERROR, "the first frame is not SETTINGS");
    else if (c->block_id != 0 && h->type != H2_CONTINUATION)
        h2_fail(c, H2_PROTOCOL_ERROR, "a frame in the middle of a header block");
    return !c->closing && !c->dead;
}

/* Deals with the frame at the front; 0: it is not whole, or there is no room for an answer. */
static size_t take_frame(struct h2_conn *c, struct slice in)
{
    struct h2_frame_head h = {0};
    if (c->data_left > 0 || c->pad_left > 0)
        return go_on_with_data(c, in);
    if (in.len >= H2_FRAME_HEAD) {
        h = h2_read_head(in.ptr);
        if (!check_frame(c, &h))
            return 0;
    }
    size_t n = h2_frame_wanted(in, &h);
    if (in.len < n)
        return 0;
    if (!h2_make_room(c, H2_ANSWER_MAX)) {
        c->paused = true;
        return 0;
    }
    if (h.type == H2_DATA)
        begin_data(c, &h, in.ptr + H2_FRAME_HEAD);
    else
        on_frame(c, &h, slice_of(in.ptr + H2_FRAME_HEAD, h.len));
    return n;
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

/* Frames from the front of `bytes`; returns what is left. */
static struct slice take_frames(struct h2_conn *c, struct slice bytes)
{
    while (bytes.len > 0 && !c->dead && !c->closing) {
        size_t n = take_frame(c, bytes);
        if (n == 0)
            break;
        bytes = slice_skip(bytes, n);
    }
    return bytes;
}

/* A frame that began in an earlier piece is made whole with as little copying as may be. */
static struct slice complete_frame(struct h2_conn *c, struct slice bytes)
{
    while (h2_kept_len(c) > 0 && bytes.len > 0 && !c->paused && !c->dead && !c->closing) {
        struct buffer *kept = &c->kept->in;
        struct slice in = buffer_slice(kept);
        struct h2_frame_head h = {0};
        if (in.len >= H2_FRAME_HEAD)
            h = h2_read_head(in.ptr);
        size_t want = h2_frame_wanted(in, &h), n = want > in.len ? want - in.len : 0;
        n = n < bytes.len ? n : bytes.len;
        (void)!buffer_append(kept, slice_of(bytes.ptr, n)); /* at most a frame */
        bytes = slice_skip(bytes, n);
        in = take_frames(c, buffer_slice(kept));
        buffer_consume(kept, kept->len - in.len);
    }
    return bytes;
}

/* What had no room for its answers. */
static void feed_again(struct h2_conn *c)
{
    struct buffer kept = c->kept->in;
    c->kept->in = (struct buffer){.max = kept.max};
    struct slice rest = take_frames(c, buffer_slice(&kept));
    (void)!buffer_append(&c->kept->in, rest);
    buffer_deinit(&kept);
}

void h2_feed(struct h2_conn *c, struct slice bytes)
{
    if (c->preface_at < H2_PREFACE_LEN && (bytes.len == 0 || !take_preface(c, &bytes)))
        return;
    if (bytes.len == 0 && h2_kept_len(c) > 0) {
        feed_again(c);
        return;
    }
    bytes = complete_frame(c, bytes);
    if (h2_kept_len(c) == 0)
        bytes = take_frames(c, bytes);
    if (bytes.len > 0 && !c->dead && !c->closing &&
        buffer_append(&kept_of(c)->in, bytes) != OK)
        h2_die(c, "the input is full");
}
