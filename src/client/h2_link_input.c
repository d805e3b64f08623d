/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames from a server (RFC 9113 §4 to §6), read where they lie in the bytes that the loop lends. One
 * that is not whole is kept until it is, but for DATA, which goes to its call piece by piece.
 *
 * What a server may get wrong is either its connection's end (h2_link_fail) or its call's
 * (h2_call_fail); what it may repeat without end is counted (h2_budget.h). When the output has no room
 * for what a frame may call for, reading stops where it is.
 */
#include "client/h2_link_internal.h"

#include "base/check.h"

enum { SETTINGS_AT_ONCE = 8 }; /* for one unit of the budget: each may change all windows */

static bool spend(struct h2_link *c, enum h2_budget kind)
{
    if (h2_spend(&c->budgets, kind, h2_now()))
        return true;
    h2_link_fail(c, H2_ENHANCE_YOUR_CALM, h2_budget_name(kind));
    return false;
}

static bool was_never_open(const struct h2_link *c, uint32_t id)
{
    return id == 0 || id > c->last_id || id % 2 == 0;
}

/* --- windows --- */

/* Whoever takes the bytes, and when: what calls may hold is bounded by their own windows, and one that
 * holds its own must not stop the others. */
static void give_back(struct h2_link *c, uint32_t n)
{
    c->in_left -= n;
    c->in_due += n;
    if (c->in_due < H2_LINK_WINDOW / 2)
        return;
    h2_link_put_u32(c, H2_WINDOW_UPDATE, 0, c->in_due);
    c->in_left += c->in_due;
    c->in_due = 0;
}

/* --- DATA --- */

static void take_data(struct h2_link *c, struct slice piece, bool whole)
{
    struct h2_call *k = h2_call_find(c, c->data_id);
    if (k != NULL && k->fate == H2_CALL_GOES_ON && !k->ended)
        h2_call_on_data(k, piece, whole);
}

static void end_data(struct h2_link *c)
{
    struct h2_call *k = h2_call_find(c, c->data_id);
    if (c->data_ends && k != NULL && k->fate == H2_CALL_GOES_ON && !k->ended)
        h2_call_on_end(k);
}

static void check_call_data(struct h2_link *c, struct h2_call *k, const struct h2_frame_head *h)
{
    if (k->ended)
        h2_link_fail(c, H2_STREAM_CLOSED, "DATA behind the end of an answer");
    else if (!k->head_came)
        h2_call_fail(k, H2_PROTOCOL_ERROR, "DATA before a response's head");
    else if (h->len > k->in_left)
        h2_call_fail(k, H2_FLOW_CONTROL_ERROR, "more DATA than the stream's window");
    else
        k->in_left -= h->len;
}

/* Of a call that was given up, which the server may not have known yet. */
static bool check_late_data(struct h2_link *c, const struct h2_frame_head *h)
{
    if (h->len == 0 || h->len > c->late_left)
        return spend(c, H2_CONTROL);
    c->late_left -= h->len;
    return true;
}

/* What a DATA frame's head says. False: the connection is at its end. */
static bool check_data(struct h2_link *c, const struct h2_frame_head *h)
{
    if (was_never_open(c, h->stream)) {
        h2_link_fail(c, H2_PROTOCOL_ERROR, "DATA on a stream that was not opened");
        return false;
    }
    if (h->len > c->in_left) {
        h2_link_fail(c, H2_FLOW_CONTROL_ERROR, "more DATA than the connection's window");
        return false;
    }
    give_back(c, h->len);
    struct h2_call *k = h2_call_find(c, h->stream);
    if (k == NULL || k->fate != H2_CALL_GOES_ON)
        return check_late_data(c, h);
    check_call_data(c, k, h);
    return !c->closing && !c->dead;
}

static void begin_data(struct h2_link *c, const struct h2_frame_head *h, const char *payload)
{
    bool padded = (h->flags & H2_PADDED) != 0;
    uint32_t len = h->len, pad = 0;
    if (!check_data(c, h))
        return;
    if (padded && len == 0) {
        h2_link_fail(c, H2_FRAME_SIZE_ERROR, "padded DATA without the padding's length");
        return;
    }
    if (padded) {
        pad = (unsigned char)payload[0];
        len--;
        if (pad > len) {
            h2_link_fail(c, H2_PROTOCOL_ERROR, "more padding than DATA");
            return;
        }
        struct h2_call *k = h2_call_find(c, h->stream);
        if (k != NULL)
            k->in_due += 1 + pad;
    }
    if (len == pad && (h->flags & H2_END_STREAM) == 0 && !spend(c, H2_EMPTY))
        return;
    c->data_id = h->stream;
    c->data_left = c->data_len = len - pad;
    c->pad_left = pad;
    c->data_ends = (h->flags & H2_END_STREAM) != 0;
    if (c->data_left == 0 && c->pad_left == 0)
        end_data(c);
}

/* Bytes of a DATA frame in hand; returns how many were its own. */
static size_t go_on_with_data(struct h2_link *c, struct slice bytes)
{
    size_t n = bytes.len < c->data_left ? bytes.len : c->data_left;
    if (n > 0) {
        c->data_left -= (uint32_t)n;
        take_data(c, slice_of(bytes.ptr, n), c->data_ends && n == c->data_len);
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

static void gather_block(struct h2_link *c, struct slice piece)
{
    if (buffer_append(&c->block, piece) != OK)
        h2_link_fail(c, H2_ENHANCE_YOUR_CALM, "a header block is too long");
}

static void end_block(struct h2_link *c)
{
    uint32_t id = c->block_id;
    c->block_id = 0;
    h2_call_on_block(c, id, (c->block_flags & H2_END_STREAM) != 0, buffer_slice(&c->block));
    buffer_clear(&c->block);
}

static void on_headers(struct h2_link *c, const struct h2_frame_head *h, struct slice p)
{
    size_t pad = 0, skip = 0;
    if ((h->flags & H2_PADDED) != 0) {
        pad = p.len > 0 ? (unsigned char)p.ptr[0] : 0;
        skip = 1;
    }
    if ((h->flags & H2_PRIORITY_FLAG) != 0)
        skip += 5;
    if (was_never_open(c, h->stream)) {
        h2_link_fail(c, H2_PROTOCOL_ERROR, "HEADERS on a stream that was not opened");
        return;
    }
    if (p.len < skip || pad > p.len - skip) {
        h2_link_fail(c, p.len < skip ? H2_FRAME_SIZE_ERROR : H2_PROTOCOL_ERROR,
                     "HEADERS too short for what they say");
        return;
    }
    struct slice block = slice_of(p.ptr + skip, p.len - skip - pad);
    if ((h->flags & H2_END_HEADERS) != 0) {
        h2_call_on_block(c, h->stream, (h->flags & H2_END_STREAM) != 0, block);
        return;
    }
    c->block_id = h->stream;
    c->block_flags = h->flags;
    c->continuations = 0;
    gather_block(c, block);
}

static void on_continuation(struct h2_link *c, const struct h2_frame_head *h, struct slice p)
{
    if (c->block_id == 0 || h->stream != c->block_id) {
        h2_link_fail(c, H2_PROTOCOL_ERROR, "CONTINUATION without HEADERS before it");
        return;
    }
    if (++c->continuations > 32 + c->block.max / H2_FRAME_MAX_DEFAULT) {
        h2_link_fail(c, H2_ENHANCE_YOUR_CALM, "too many CONTINUATION frames");
        return;
    }
    if (p.len == 0 && (h->flags & H2_END_HEADERS) == 0 && !spend(c, H2_EMPTY))
        return;
    gather_block(c, p);
    if ((h->flags & H2_END_HEADERS) != 0 && !c->closing)
        end_block(c);
}

/* --- the ends of streams --- */

static const char *code_text(uint32_t code)
{
    static const char *const texts[] = {
        "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
        "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
        "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"};
    return code < sizeof texts / sizeof texts[0] ? texts[code] : "an unknown code";
}

static const char *reset_text(uint32_t code, struct arena *arena)
{
    if (arena == NULL) /* a tunnel's, which nobody asks why */
        return code_text(code);
    return arena_printf(arena, "the server reset the stream: %s%c", code_text(code), 0).ptr;
}

static void on_rst_stream(struct h2_link *c, const struct h2_frame_head *h, struct slice p)
{
    if (was_never_open(c, h->stream)) {
        h2_link_fail(c, H2_PROTOCOL_ERROR, "RST_STREAM on a stream that was not opened");
        return;
    }
    if (p.len != 4) {
        h2_link_fail(c, H2_FRAME_SIZE_ERROR, "RST_STREAM of the wrong length");
        return;
    }
    struct h2_call *k = h2_call_find(c, h->stream);
    uint32_t code = h2_read_u32(p.ptr);
    bool late = k == NULL || k->fate != H2_CALL_GOES_ON; /* else each has cost it a call of ours */
    if ((late && !spend(c, H2_CONTROL)) || k == NULL)
        return;
    bool refused = code == H2_REFUSED_STREAM && !k->began;
    h2_call_set_fate(k, refused ? H2_CALL_REFUSED : H2_CALL_RESET, reset_text(code, k->arena));
}

/* What it has not looked at may be asked elsewhere, the rest it will answer. */
static void on_goaway(struct h2_link *c, const struct h2_frame_head *h, struct slice p)
{
    if (h->stream != 0 || p.len < 8) {
        h2_link_fail(c, h->stream != 0 ? H2_PROTOCOL_ERROR : H2_FRAME_SIZE_ERROR,
                     "malformed GOAWAY");
        return;
    }
    if (!spend(c, H2_CONTROL))
        return;
    uint32_t last = h2_read_u32(p.ptr) & 0x7fffffff, code = h2_read_u32(p.ptr + 4);
    h2_link_retire(c);
    if (code != H2_NO_ERROR && c->why == NULL) {
        snprintf(c->why_text, sizeof c->why_text, "the server said GOAWAY: %s", code_text(code));
        c->why = c->why_text;
    }
    for (int i = 0; i < H2_LINK_TABLE; i++) {
        for (struct h2_call *k = c->table[i]; k != NULL; k = k->next) {
            if (k->id > last && !k->began)
                h2_call_set_fate(k, H2_CALL_REFUSED, "the server said GOAWAY before the request");
        }
    }
}

/* --- settings --- */

static void change_windows(struct h2_link *c, uint32_t to)
{
    int64_t delta = (int64_t)to - c->peer_window;
    c->peer_window = to;
    for (int i = 0; i < H2_LINK_TABLE && !c->closing; i++) {
        for (struct h2_call *k = c->table[i]; k != NULL; k = k->next) {
            k->send_window += delta;
            if (k->send_window > INT32_MAX)
                h2_link_fail(c, H2_FLOW_CONTROL_ERROR, "SETTINGS made a window too large");
            else if (k->send_window <= 0 && k->source.len > 0)
                list_remove(&k->ready); /* it may have waited for the connection's window */
            else if (delta > 0)
                h2_call_window_grew(k);
        }
    }
}

static void on_setting(struct h2_link *c, unsigned id, uint32_t v)
{
    switch (id) {
    case H2_SET_HEADER_TABLE_SIZE:
        hpack_encoder_limit(&c->encoder, v);
        break;
    case H2_SET_ENABLE_PUSH:
        if (v != 0)
            h2_link_fail(c, H2_PROTOCOL_ERROR, "ENABLE_PUSH from a server");
        break;
    case H2_SET_MAX_CONCURRENT_STREAMS:
        c->peer_calls = v;
        break;
    case H2_SET_ENABLE_CONNECT_PROTOCOL:
        if (v > 1)
            h2_link_fail(c, H2_PROTOCOL_ERROR, "a setting that is neither 0 nor 1");
        c->connect_allowed |= v == 1;
        break;
    case H2_SET_INITIAL_WINDOW_SIZE:
        if (v > INT32_MAX)
            h2_link_fail(c, H2_FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE too large");
        else
            change_windows(c, v);
        break;
    case H2_SET_MAX_FRAME_SIZE:
        if (v < H2_FRAME_MAX_DEFAULT || v > 0xffffff)
            h2_link_fail(c, H2_PROTOCOL_ERROR, "MAX_FRAME_SIZE out of bounds");
        else
            c->peer_frame_max = v;
        break;
    default:
        break;
    }
}

static void on_settings(struct h2_link *c, const struct h2_frame_head *h, struct slice p)
{
    bool ack = (h->flags & H2_ACK) != 0;
    if (h->stream != 0) {
        h2_link_fail(c, H2_PROTOCOL_ERROR, "SETTINGS on a stream");
        return;
    }
    if (ack ? p.len != 0 : p.len % 6 != 0) {
        h2_link_fail(c, H2_FRAME_SIZE_ERROR, "SETTINGS of the wrong length");
        return;
    }
    if (!spend(c, H2_CONTROL) || ack)
        return;
    for (size_t i = 0; i < p.len && !c->closing; i += 6) {
        if (i > 0 && i % (6 * SETTINGS_AT_ONCE) == 0 && !spend(c, H2_CONTROL))
            return;
        on_setting(c, (unsigned)(unsigned char)p.ptr[i] << 8 | (unsigned char)p.ptr[i + 1],
                   h2_read_u32(p.ptr + i + 2));
    }
    if (c->closing)
        return;
    c->settled = true;
    c->group->told = c->peer_calls;
    h2_link_put(c, H2_SETTINGS, H2_ACK, 0, SLICE_NONE);
    for (int i = 0; i < H2_LINK_TABLE; i++) {
        for (struct h2_call *k = c->table[i]; k != NULL; k = k->next)
            h2_call_wake_out(k); /* it may have waited for them */
    }
    h2_group_wake(c->group);
}

/* --- the small ones --- */

static void on_ping(struct h2_link *c, const struct h2_frame_head *h, struct slice p)
{
    if (h->stream != 0)
        h2_link_fail(c, H2_PROTOCOL_ERROR, "PING on a stream");
    else if (p.len != 8)
        h2_link_fail(c, H2_FRAME_SIZE_ERROR, "PING of the wrong length");
    else if (spend(c, H2_CONTROL) && (h->flags & H2_ACK) == 0)
        h2_link_put(c, H2_PING, H2_ACK, 0, p);
}

static void grow_connection(struct h2_link *c, uint32_t n)
{
    c->send_window += n;
    if (n == 0)
        h2_link_fail(c, H2_PROTOCOL_ERROR, "WINDOW_UPDATE of nothing");
    else if (c->send_window > INT32_MAX)
        h2_link_fail(c, H2_FLOW_CONTROL_ERROR, "the connection's window is too large");
    else if (!list_empty(&c->ready))
        h2_link_schedule(c);
}

static void grow_call(struct h2_link *c, uint32_t id, uint32_t n)
{
    struct h2_call *k = h2_call_find(c, id);
    if (was_never_open(c, id)) {
        h2_link_fail(c, H2_PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that was not opened");
        return;
    }
    if (k == NULL || k->fate != H2_CALL_GOES_ON)
        return;
    k->send_window += n;
    if (n == 0)
        h2_call_fail(k, H2_PROTOCOL_ERROR, "WINDOW_UPDATE of nothing");
    else if (k->send_window > INT32_MAX)
        h2_call_fail(k, H2_FLOW_CONTROL_ERROR, "the stream's window is too large");
    else
        h2_call_window_grew(k);
}

static void on_window_update(struct h2_link *c, const struct h2_frame_head *h, struct slice p)
{
    if (p.len != 4) {
        h2_link_fail(c, H2_FRAME_SIZE_ERROR, "WINDOW_UPDATE of the wrong length");
        return;
    }
    if (!spend(c, H2_WINDOWS))
        return;
    uint32_t n = h2_read_u32(p.ptr) & 0x7fffffff;
    if (h->stream == 0)
        grow_connection(c, n);
    else
        grow_call(c, h->stream, n);
}

static void on_priority(struct h2_link *c, const struct h2_frame_head *h)
{
    if (h->stream == 0 || h->len != 5)
        h2_link_fail(c, h->stream == 0 ? H2_PROTOCOL_ERROR : H2_FRAME_SIZE_ERROR,
                     "malformed PRIORITY");
    else
        (void)spend(c, H2_CONTROL);
}

/* --- frames --- */

static void on_frame(struct h2_link *c, const struct h2_frame_head *h, struct slice payload)
{
    switch (h->type) {
    case H2_HEADERS:
        on_headers(c, h, payload);
        break;
    case H2_PRIORITY:
        on_priority(c, h);
        break;
    case H2_RST_STREAM:
        on_rst_stream(c, h, payload);
        break;
    case H2_SETTINGS:
        on_settings(c, h, payload);
        break;
    case H2_PUSH_PROMISE:
        h2_link_fail(c, H2_PROTOCOL_ERROR, "PUSH_PROMISE, which was not allowed");
        break;
    case H2_PING:
        on_ping(c, h, payload);
        break;
    case H2_GOAWAY:
        on_goaway(c, h, payload);
        break;
    case H2_WINDOW_UPDATE:
        on_window_update(c, h, payload);
        break;
    case H2_CONTINUATION:
        on_continuation(c, h, payload);
        break;
    default:
        (void)spend(c, H2_CONTROL); /* RFC 9113 §5.5: unknown ones are left alone */
        break;
    }
}

/* What holds for every frame. */
static bool check_frame(struct h2_link *c, const struct h2_frame_head *h, const char *in)
{
    if (!c->settled && memcmp(in, "HTTP/1.", 7) == 0)
        h2_link_fail(c, H2_PROTOCOL_ERROR, "the server speaks HTTP/1, not HTTP/2");
    else if (!c->settled && (h->type != H2_SETTINGS || (h->flags & H2_ACK) != 0))
        h2_link_fail(c, H2_PROTOCOL_ERROR, "the server's first frame is not SETTINGS");
    else if (h->len > H2_FRAME_MAX_DEFAULT)
        h2_link_fail(c, H2_FRAME_SIZE_ERROR, "a frame that is too long");
    else if (c->block_id != 0 && h->type != H2_CONTINUATION)
        h2_link_fail(c, H2_PROTOCOL_ERROR, "a frame in the middle of a header block");
    return !c->closing && !c->dead;
}

/* Deals with the frame at the front; 0: it is not whole, or there is no room for an answer. */
static size_t take_frame(struct h2_link *c, struct slice in)
{
    struct h2_frame_head h = {0};
    if (c->data_left > 0 || c->pad_left > 0)
        return go_on_with_data(c, in);
    if (in.len >= H2_FRAME_HEAD) {
        h = h2_read_head(in.ptr);
        if (!check_frame(c, &h, in.ptr))
            return 0;
    }
    size_t n = h2_frame_wanted(in, &h);
    if (in.len < n)
        return 0;
    if (!h2_link_has_room(c)) {
        c->paused = true;
        return 0;
    }
    if (h.type == H2_DATA)
        begin_data(c, &h, in.ptr + H2_FRAME_HEAD);
    else
        on_frame(c, &h, slice_of(in.ptr + H2_FRAME_HEAD, h.len));
    return n;
}

/* Frames from the front of `bytes`; returns what is left. */
static struct slice take_frames(struct h2_link *c, struct slice bytes)
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
static struct slice complete_frame(struct h2_link *c, struct slice bytes)
{
    while (c->in.len > 0 && bytes.len > 0 && !c->paused && !c->dead && !c->closing) {
        struct slice in = buffer_slice(&c->in);
        struct h2_frame_head h = {0};
        if (in.len >= H2_FRAME_HEAD)
            h = h2_read_head(in.ptr);
        size_t want = h2_frame_wanted(in, &h), n = want > in.len ? want - in.len : 0;
        n = n < bytes.len ? n : bytes.len;
        (void)!buffer_append(&c->in, slice_of(bytes.ptr, n)); /* at most a frame */
        bytes = slice_skip(bytes, n);
        in = take_frames(c, buffer_slice(&c->in));
        buffer_consume(&c->in, c->in.len - in.len);
    }
    return bytes;
}

/* What had no room for its answers. */
static void feed_again(struct h2_link *c)
{
    struct buffer kept = c->in;
    c->in = (struct buffer){.max = kept.max};
    struct slice rest = take_frames(c, buffer_slice(&kept));
    (void)!buffer_append(&c->in, rest);
    buffer_deinit(&kept);
}

void h2_link_feed(struct h2_link *c, struct slice bytes)
{
    if (bytes.len == 0 && c->in.len > 0) {
        feed_again(c);
        return;
    }
    bytes = complete_frame(c, bytes);
    if (c->in.len == 0)
        bytes = take_frames(c, bytes);
    if (bytes.len > 0 && !c->dead && !c->closing && buffer_append(&c->in, bytes) != OK)
        h2_link_die(c, "the input is full");
}
