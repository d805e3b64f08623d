/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients over HTTP/2 (with prior knowledge): some rounds on one connection at once, tunnels among them
 * (extended CONNECT, RFC 8441). Frames are made by hand, header blocks of literals only; those that come are read by the project's own HPACK.
 */
#include "fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "wire/hpack.h"

struct stream {
    struct round *r;
    uint32_t id;
    int64_t window;
    size_t up;     /* of the upload that was sent */
    bool asked, judged, headed, bare; /* bare: no H2_END_STREAM was sent yet */
    bool open;     /* a tunnel is */
    int64_t length;
    struct seen seen;
    size_t down;
    uint64_t next_ns;
};

struct client {
    struct conn c;
    struct stream streams[STREAMS_MAX];
    unsigned count;
    int64_t window;
    int64_t initial;
    struct hpack_decoder decoder;
    struct bytes block;
    uint32_t block_stream;
    uint8_t block_flags;
    bool gone;
    uint64_t done_ns; /* all answers are there since then */
};

void h2_put_frame(struct conn *c, int type, int flags, uint32_t stream, const void *payload, size_t n)
{
    const unsigned char head[9] = {(unsigned char)(n >> 16), (unsigned char)(n >> 8), (unsigned char)n,
                                   (unsigned char)type, (unsigned char)flags, (unsigned char)(stream >> 24),
                                   (unsigned char)(stream >> 16), (unsigned char)(stream >> 8),
                                   (unsigned char)stream};
    bytes_add(&c->out, head, sizeof head);
    bytes_add(&c->out, payload, n);
    conn_update(c);
}

void h2_put_number(struct conn *c, int type, uint32_t stream, uint32_t value)
{
    const unsigned char n[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16),
                                (unsigned char)(value >> 8), (unsigned char)value};
    h2_put_frame(c, type, 0, stream, n, sizeof n);
}

void h2_put_field(struct bytes *b, const char *name, const char *value)
{
    const char first[2] = {0, (char)strlen(name)}, second = (char)strlen(value);
    bytes_add(b, first, 2);
    bytes_add(b, name, strlen(name));
    bytes_add(b, &second, 1);
    bytes_add(b, value, strlen(value));
}

/* --- out --- */

static void ask(struct client *u, struct stream *s)
{
    const struct round *r = s->r;
    struct bytes b = {0};
    char text[64];
    snprintf(text, sizeof text, "/%c/%08x", r->route->name, r->token);
    h2_put_field(&b, ":method", r->tunnel ? "CONNECT" : r->method);
    if (r->tunnel)
        h2_put_field(&b, ":protocol", "fault");
    h2_put_field(&b, ":scheme", "http");
    h2_put_field(&b, ":path", text);
    h2_put_field(&b, ":authority", "fault");
    snprintf(text, sizeof text, "%zu", r->upload);
    if (r->upload > 0 && !r->chunked_up && !r->tunnel)
        h2_put_field(&b, "content-length", text);
    s->bare = r->upload > 0 || r->tunnel;
    h2_put_frame(&u->c, H2_HEADERS, H2_END_HEADERS | (s->bare ? 0 : H2_END_STREAM), s->id, b.at, b.len);
    free(b.at);
    s->asked = true;
    round_begin(s->r);
}

/* What goes up a tunnel must not be lost with the connection. */
static void close_when_done(struct client *u)
{
    if (u->done_ns == 0 || u->c.out.len > 0)
        return;
    for (unsigned i = 0; i < u->count && loop_time < u->done_ns + 6000 * MS; i++) {
        const struct stream *s = &u->streams[i];
        if (s->open && s->seen.complete && !s->r->heard && s->r->faults == 0 && s->r->left_ns == 0)
            return;
    }
    conn_close(&u->c);
}

static void judge(struct client *u, struct stream *s)
{
    if (s->judged)
        return;
    s->judged = true;
    if (s->seen.complete && s->length >= 0 && !s->r->is_head && s->seen.status != 304 &&
        (uint64_t)s->length != s->seen.tally.got)
        violation(s->r, "%zu bytes come of a length of %lld", s->seen.tally.got, (long long)s->length);
    round_judge(s->r, &s->seen);
    for (unsigned i = 0; i < u->count; i++)
        if (!u->streams[i].judged)
            return;
    u->done_ns = loop_time;
    close_when_done(u);
}

static void end_all(struct client *u, bool by_reset)
{
    for (unsigned i = 0; i < u->count; i++)
        judge(u, &u->streams[i]);
    by_reset ? conn_reset(&u->c) : conn_close(&u->c);
}

static void leave(struct client *u, struct stream *s)
{
    if (s->r->leaving == LEAVES_BY_END) {
        round_leave(s->r);
        h2_put_number(&u->c, H2_RST_STREAM, s->id, 8);
        s->bare = false;
        judge(u, s);
        return;
    }
    for (unsigned i = 0; i < u->count; i++)
        if (!u->streams[i].judged || u->streams[i].open)
            round_leave(u->streams[i].r);
    end_all(u, true);
}

static void upload(struct client *u, struct stream *s)
{
    const struct round *r = s->r;
    char piece[H2_FRAME_MAX];
    bool paced = r->piece > 0 && loop_time < r->begun_ns + PATIENCE_MS * MS;
    if (r->tunnel && !s->open)
        return;
    if (s->bare && r->upload == 0) {
        s->bare = false;
        round_half(s->r);
        h2_put_frame(&u->c, H2_DATA, H2_END_STREAM, s->id, "", 0);
    }
    while (s->bare && !u->c.dead && u->c.out.len < 4 * H2_FRAME_MAX && s->next_ns <= loop_time) {
        size_t n = r->upload - s->up, most = paced && r->piece < H2_FRAME_MAX ? r->piece : H2_FRAME_MAX;
        n = n < most ? n : most;
        n = (int64_t)n < s->window ? n : s->window > 0 ? (size_t)s->window : 0;
        n = (int64_t)n < u->window ? n : u->window > 0 ? (size_t)u->window : 0;
        if (n == 0)
            return;
        if (r->leaving != STAYS && r->leaves_asking && s->up + n > r->leave_at) {
            leave(u, s);
            return;
        }
        body_fill(piece, n, r->token, 'U', 0, s->up);
        s->up += n;
        s->window -= (int64_t)n;
        u->window -= (int64_t)n;
        s->bare = s->up < r->upload;
        s->next_ns = loop_time + (paced ? r->pause_ms * MS : 0);
        if (s->open && !s->bare)
            round_half(s->r);
        h2_put_frame(&u->c, H2_DATA, s->bare ? 0 : H2_END_STREAM, s->id, piece, n);
    }
    if (s->open && !s->bare && s->seen.complete)
        judge(u, s);
}

static void upload_all(struct client *u)
{
    for (unsigned i = 0; i < u->count && !u->c.dead; i++)
        upload(u, &u->streams[i]);
}

/* --- in --- */

static struct stream *stream_of(struct client *u, uint32_t id)
{
    for (unsigned i = 0; i < u->count; i++)
        if (u->streams[i].id == id)
            return &u->streams[i];
    return NULL;
}

/* The other way of a tunnel goes on. */
static void ended(struct client *u, struct stream *s)
{
    s->seen.complete = true;
    if (!s->open || !s->bare)
        judge(u, s);
}

static void note_field(struct stream *s, const struct hpack_field *f)
{
    char value[64];
    size_t n = f->value.len < sizeof value ? f->value.len : sizeof value - 1;
    memcpy(value, f->value.ptr, n);
    value[n] = 0;
    if (slice_is(f->name, ":status"))
        s->seen.status = atoi(value);
    if (slice_is(f->name, "x-token")) {
        s->seen.has_token = true;
        s->seen.token = (uint32_t)strtoul(value, NULL, 16);
    }
    if (slice_is(f->name, "x-attempt"))
        s->seen.attempt = s->seen.tally.attempt = (unsigned)strtoul(value, NULL, 16);
    if (slice_is(f->name, "content-length"))
        s->length = (int64_t)strtoull(value, NULL, 10);
}

static void on_block(struct client *u)
{
    struct stream *s = stream_of(u, u->block_stream), other = {0};
    struct arena arena;
    struct hpack_reader reader;
    struct hpack_field f;
    enum hpack_event e;
    if (s == NULL)
        s = &other;
    bool trailers = s->headed;
    arena_init(&arena, 4096);
    hpack_read(&reader, &u->decoder, slice_of(u->block.at, u->block.len), &arena, 1 << 20);
    while ((e = hpack_next(&reader, &f)) == HPACK_FIELD)
        if (!trailers)
            note_field(s, &f);
    arena_deinit(&arena);
    if (e != HPACK_DONE)
        violation(s->r, "a header block cannot be read");
    u->block.len = 0;
    if (s->r == NULL || s->judged)
        return;
    s->headed = s->seen.status >= 200;
    s->seen.tally.weak = s->r->weak || !s->seen.has_token;
    s->open = s->r->tunnel && s->seen.status == 200;
    if (u->block_flags & H2_END_STREAM)
        ended(u, s);
}

static void on_data(struct client *u, struct stream *s, const char *bytes, size_t n, bool ends)
{
    if (n > 0)
        h2_put_number(&u->c, H2_WINDOW_UPDATE, 0, (uint32_t)n);
    if (s == NULL || s->judged)
        return;
    tally_add(&s->seen.tally, bytes, n);
    s->down += n;
    if (s->r->leaving != STAYS && !s->r->leaves_asking && s->down > s->r->leave_at) {
        leave(u, s);
        return;
    }
    if (n > 0 && !ends)
        h2_put_number(&u->c, H2_WINDOW_UPDATE, s->id, (uint32_t)n);
    if (ends)
        ended(u, s);
}

uint32_t h2_number(const unsigned char *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void on_settings(struct client *u, int flags, const unsigned char *b, size_t n)
{
    if (flags & H2_ACK)
        return;
    for (size_t i = 0; i + 6 <= n; i += 6) {
        if ((b[i] << 8 | b[i + 1]) != 4)
            continue;
        int64_t more = (int64_t)h2_number(b + i + 2) - u->initial;
        u->initial += more;
        for (unsigned k = 0; k < u->count; k++)
            u->streams[k].window += more;
    }
    h2_put_frame(&u->c, H2_SETTINGS, H2_ACK, 0, "", 0);
}

static void on_frame(struct client *u, int type, int flags, uint32_t id, const unsigned char *b, size_t n)
{
    struct stream *s = stream_of(u, id);
    if (s != NULL && s->seen.complete && (type == H2_DATA || type == H2_HEADERS))
        violation(s->r, "has something behind its end");
    if (type == H2_DATA) {
        on_data(u, s, (const char *)b, n, flags & H2_END_STREAM);
    } else if (type == H2_HEADERS || type == H2_CONTINUATION) {
        if (type == H2_HEADERS) {
            u->block_stream = id;
            u->block_flags = (uint8_t)flags;
        }
        bytes_add(&u->block, b, n);
        if (flags & H2_END_HEADERS)
            on_block(u);
    } else if (type == H2_SETTINGS) {
        on_settings(u, flags, b, n);
    } else if (type == H2_PING && !(flags & H2_ACK)) {
        h2_put_frame(&u->c, H2_PING, H2_ACK, 0, b, n);
    } else if (type == H2_RST_STREAM && s != NULL) {
        s->bare = false;
        judge(u, s);
    } else if (type == H2_WINDOW_UPDATE && n == 4) {
        *(id == 0 ? &u->window : s != NULL ? &s->window : &(int64_t){0}) += h2_number(b);
    } else if (type == H2_GOAWAY) {
        if (n >= 8 && h2_number(b + 4) != 0)
            violation(NULL, "H2_GOAWAY with code %u: %.*s", h2_number(b + 4), (int)(n - 8), b + 8);
        u->gone = true;
    }
}

static void on_input(struct conn *c)
{
    struct client *u = (struct client *)c;
    size_t at = 0;
    while (!c->dead && c->in.len - at >= 9) {
        const unsigned char *b = (const unsigned char *)c->in.at + at;
        size_t n = (size_t)b[0] << 16 | (size_t)b[1] << 8 | b[2];
        if (c->in.len - at < 9 + n)
            break;
        on_frame(u, b[3], b[4], h2_number(b + 5) & 0x7fffffff, b + 9, n);
        at += 9 + n;
    }
    bytes_drop(&c->in, at);
    if (c->dead)
        return;
    upload_all(u);
    if (u->streams[0].r->deaf)
        c->deaf_until_ns = loop_time + 15 * MS;
    if (!c->dead && (c->eof || c->broken))
        end_all(u, false);
}

static void on_sent(struct conn *c)
{
    struct client *u = (struct client *)c;
    upload_all(u);
    close_when_done(u);
}

/* Every few milliseconds, until there is nothing more to be sent, or it is too late. */
static void on_wake(struct conn *c)
{
    struct client *u = (struct client *)c;
    upload_all(u);
    if (!c->dead)
        close_when_done(u);
    if (c->dead)
        return;
    c->wake_ns = loop_time + 5 * MS;
    for (unsigned i = 0; i < u->count; i++) {
        const struct stream *s = &u->streams[i];
        if (s->judged || loop_time < s->r->begun_ns + 30000 * MS)
            continue;
        violation(s->r, "has no answer after half a minute");
        end_all(u, true);
        return;
    }
}

static void on_free(struct conn *c)
{
    struct client *u = (struct client *)c;
    hpack_decoder_deinit(&u->decoder);
    free(u->block.at);
    clients_count(-1);
    free(u);
}

void h2_client_begin(uint16_t port, struct round **own, unsigned count, struct dice *d)
{
    struct client *u = calloc(1, sizeof *u);
    *u = (struct client){.c = {.on_input = on_input, .on_sent = on_sent, .on_wake = on_wake, .on_free = on_free},
                         .count = count, .window = H2_WINDOW, .initial = H2_WINDOW};
    hpack_decoder_init(&u->decoder);
    clients_count(1);
    conn_start(&u->c, client_connect(port));
    conn_send(&u->c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    h2_put_frame(&u->c, H2_SETTINGS, 0, 0, "", 0);
    for (unsigned i = 0; i < count; i++) {
        struct stream *s = &u->streams[i];
        *s = (struct stream){.r = own[i], .id = 1 + 2 * i, .window = H2_WINDOW, .length = -1,
                             .seen.tally = {.token = own[i]->token, .way = 'D'}};
        ask(u, s);
    }
    upload_all(u);
    if (!u->c.dead)
        u->c.wake_ns = loop_time + (1 + dice_below(d, 5)) * MS;
}
