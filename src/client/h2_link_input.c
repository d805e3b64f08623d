/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames from a server (RFC 9113 §5, §6), read where they lie in the bytes that the loop lends, by
 * wire/h2_reader.h.
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

static void take_data(struct h2_link *c, const struct h2_got *g)
{
    struct h2_call *k = h2_call_find(c, g->head.stream);
    if (k != NULL && k->fate == H2_CALL_GOES_ON && !k->ended)
        h2_call_on_data(k, g->bytes, g->whole);
}

static void end_data(struct h2_link *c, const struct h2_frame_head *h)
{
    struct h2_call *k = h2_call_find(c, h->stream);
    if ((h->flags & H2_END_STREAM) != 0 && k != NULL && k->fate == H2_CALL_GOES_ON && !k->ended)
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

static void go_on_with_data(struct h2_link *c, const struct h2_got *g)
{
    if (g->bytes.len > 0)
        take_data(c, g);
    if (g->last)
        end_data(c, &g->head);
}

static void begin_data(struct h2_link *c, const struct h2_got *g)
{
    const struct h2_frame_head *h = &g->head;
    if (!check_data(c, h))
        return;
    if (g->padding > 0) {
        struct h2_call *k = h2_call_find(c, h->stream);
        if (k != NULL)
            k->in_due += g->padding;
    }
    if (h->len == g->padding && (h->flags & H2_END_STREAM) == 0 && !spend(c, H2_EMPTY))
        return;
    go_on_with_data(c, g);
}

/* --- header blocks --- */

static void on_block(struct h2_link *c, const struct h2_got *g)
{
    if (was_never_open(c, g->head.stream))
        h2_link_fail(c, H2_PROTOCOL_ERROR, "HEADERS on a stream that was not opened");
    else if (g->kind == H2_GOT_BLOCK)
        h2_call_on_block(c, g->head.stream, (g->head.flags & H2_END_STREAM) != 0, g->bytes);
    else if (g->head.type == H2_CONTINUATION && g->bytes.len == 0)
        (void)spend(c, H2_EMPTY);
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
    struct h2_call *k = h2_call_find(c, h->stream);
    uint32_t code = h2_read_u32(p.ptr);
    bool late = k == NULL || k->fate != H2_CALL_GOES_ON; /* else each has cost it a call of ours */
    if ((late && !spend(c, H2_CONTROL)) || k == NULL)
        return;
    bool refused = code == H2_REFUSED_STREAM && !k->began;
    h2_call_set_fate(k, refused ? H2_CALL_REFUSED : H2_CALL_RESET, reset_text(code, k->arena));
}

/* What it has not looked at may be asked elsewhere, the rest it will answer. Whose head has not left (it has
 * waited for SETTINGS) does not ask here any more, whatever its number was to be. */
static void on_goaway(struct h2_link *c, struct slice p)
{
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
            if (!k->head_out || (k->id > last && !k->began))
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
    const char *why;
    enum h2_error error = h2_setting_check(id, v, &why);
    if (error != H2_NO_ERROR)
        h2_link_fail(c, error, why);
    else if (id == H2_SET_ENABLE_PUSH && v != 0)
        h2_link_fail(c, H2_PROTOCOL_ERROR, "ENABLE_PUSH from a server");
    else if (id == H2_SET_HEADER_TABLE_SIZE)
        hpack_encoder_limit(&c->encoder, v);
    else if (id == H2_SET_MAX_CONCURRENT_STREAMS)
        c->peer_calls = v;
    else if (id == H2_SET_ENABLE_CONNECT_PROTOCOL)
        c->connect_allowed |= v == 1;
    else if (id == H2_SET_INITIAL_WINDOW_SIZE)
        change_windows(c, v);
    else if (id == H2_SET_MAX_FRAME_SIZE)
        c->peer_frame_max = v;
}

static void on_settings(struct h2_link *c, const struct h2_frame_head *h, struct slice p)
{
    if (!spend(c, H2_CONTROL) || (h->flags & H2_ACK) != 0)
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
    if (spend(c, H2_CONTROL) && (h->flags & H2_ACK) == 0)
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
        on_goaway(c, payload);
        break;
    case H2_WINDOW_UPDATE:
        on_window_update(c, h, payload);
        break;
    case H2_PRIORITY_UPDATE: /* RFC 9218 §7.1 */
        h2_link_fail(c, H2_PROTOCOL_ERROR, "PRIORITY_UPDATE from a server");
        break;
    default:
        (void)spend(c, H2_CONTROL); /* RFC 9113 §5.5: unknown ones are left alone */
        break;
    }
}

static void on_bad(struct h2_link *c, const struct h2_got *g)
{
    if (!c->settled && slice_starts(g->bytes, SLICE("HTTP/1.")))
        h2_link_fail(c, g->error, "the server speaks HTTP/1, not HTTP/2");
    else
        h2_link_fail(c, g->error, g->why);
}

static void on_got(struct h2_link *c, const struct h2_got *g)
{
    switch (g->kind) {
    case H2_GOT_FRAME:
        on_frame(c, &g->head, g->bytes);
        break;
    case H2_GOT_BLOCK:
    case H2_GOT_PART:
        on_block(c, g);
        break;
    case H2_GOT_DATA:
        begin_data(c, g);
        break;
    case H2_GOT_PIECE:
        go_on_with_data(c, g);
        break;
    case H2_GOT_BAD:
        on_bad(c, g);
        break;
    }
}

void h2_link_feed(struct h2_link *c, struct slice bytes)
{
    struct h2_reader *r = &c->reader;
    struct h2_got g;
    while (!c->dead && !c->closing && h2_reader_look(r, &bytes, &g)) {
        if (h2_got_asks(&g) && !h2_link_has_room(c)) {
            c->paused = true;
            break;
        }
        h2_reader_take(r, &bytes, &g);
        on_got(c, &g);
    }
    if (!c->dead && !c->closing && h2_reader_keep(r, bytes) != OK)
        h2_link_die(c, "the input is full");
}
