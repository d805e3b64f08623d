/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upstreams over HTTP/2 (in clear text, or over TLS): many requests on one connection at once, each with
 * the plan of its attempt, tunnels among them (extended CONNECT, RFC 8441). Faults are of a stream
 * (RST_STREAM, an answer that stops or contradicts itself, a refusal) or of the whole connection, which ends
 * within a frame then, and which its other requests are excused for.
 */
#include "fault_h2_upstream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_MAX = 65536, LIES = 6, REFUSED_STREAM = 7 };

static struct up *ups;

unsigned h2_upstreams_busy(void)
{
    unsigned n = 0;
    for (struct up *u = ups; u != NULL; u = u->next)
        for (unsigned i = 0; i < CALLS_MAX && !u->c.dead; i++)
            n += u->calls[i].id != 0 && !u->calls[i].silent;
    return n;
}

void h2_upstreams_blame(void)
{
    for (struct up *u = ups; u != NULL; u = u->next) {
        for (unsigned i = 0; i < CALLS_MAX && !u->c.dead; i++) {
            const struct call *k = &u->calls[i];
            if (k->id != 0 && !k->silent)
                violation(k->r, "is still stream %u of an upstream, that no client waits for:%s%s %zu bytes up, "
                          "%zu down, windows %lld and %lld", k->id, k->asked ? " asked" : "",
                          k->answering ? " answering" : "", k->tally.got, k->sent, (long long)k->window,
                          (long long)u->window);
        }
    }
}

void h2_upstreams_check(void)
{
    for (struct up *u = ups; u != NULL; u = u->next) {
        if (u->c.hung && !u->c.dead)
            conn_faults_ns[u->group] = loop_time;
        for (unsigned i = 0; i < CALLS_MAX && !u->c.dead; i++) {
            struct call *k = &u->calls[i];
            if (k->id == 0 || k->r->left_ns == 0 || loop_time < k->r->left_ns + 8000 * MS)
                continue;
            if (++k->late < LATE_CHECKS)
                continue;
            violation(k->r, "its client left eight seconds ago, its stream is still open");
            k->id = 0;
        }
    }
}

static void on_free(struct conn *c)
{
    struct up *u = (struct up *)c;
    *u->link = u->next;
    if (u->next != NULL)
        u->next->link = u->link;
    hpack_decoder_deinit(&u->decoder);
    free(u->block.at);
    free(u);
}

static struct call *call_of(struct up *u, uint32_t id)
{
    for (unsigned i = 0; i < CALLS_MAX; i++)
        if (u->calls[i].id == id)
            return &u->calls[i];
    return NULL;
}

static void reset_stream(struct up *u, struct call *k, uint32_t code)
{
    h2_put_number(&u->c, H2_RST_STREAM, k->id, code);
    k->id = 0;
}

static void refuse(struct up *u, struct call *k)
{
    k->r->acted -= k->r->acted > 0;
    k->r->refusals++;
    reset_stream(u, k, REFUSED_STREAM);
}

/* Of the connection: all that runs on it is excused. */
void up_note_fault(struct up *u)
{
    conn_faults_ns[u->group] = loop_time;
    for (unsigned i = 0; i < CALLS_MAX; i++)
        if (u->calls[i].id != 0)
            u->calls[i].r->faults++;
}

static void break_now(struct up *u)
{
    up_note_fault(u);
    if (u->by_reset)
        conn_reset(&u->c);
    else
        u->said ? conn_close(&u->c) : conn_cut(&u->c);
}

void up_break_off(struct up *u, bool by_reset, bool said)
{
    u->by_reset = by_reset;
    u->said = said;
    u->breaking = true;
    u->c.stop_at = u->c.sent + u->c.out.len;
    if (u->c.stop_at == u->c.sent)
        break_now(u);
    else
        conn_update(&u->c);
}

/* Somewhere in what it has to say. */
static void break_connection(struct up *u, bool by_reset, const struct plan *p)
{
    size_t n = u->c.out.len - u->c.sealed, back = p->lie * 5;
    u->by_reset = by_reset;
    u->said = p->said;
    u->breaking = true;
    up_note_fault(u);
    u->c.stop_at = u->c.sent + u->c.sealed + n - (back < n ? back : n);
    u->c.chop = p->lie % 3;
    if (u->c.stop_at == u->c.sent)
        break_now(u);
    else
        conn_update(&u->c);
}

/* Somewhere in its TLS. */
static void on_cut(struct conn *c)
{
    struct up *u = (struct up *)c;
    up_note_fault(u);
    if (c->cut_at % 3 == 0)
        c->hung = true;
    else
        c->cut_at % 3 == 1 ? conn_reset(c) : conn_cut(c);
}

/* A bit of a record is another: what comes behind is nobody's. */
static void spoil_record(struct up *u)
{
    up_note_fault(u);
    u->c.flip_at = u->c.sent + u->c.out.len;
    h2_put_frame(&u->c, H2_PING, 0, 0, "a secret", 8);
}

/* --- answers --- */

/* Before it has come to its end. */
static bool stops(const struct plan *p)
{
    return (p->fault >= FAULT_RESET && p->fault <= FAULT_HANG) || p->fault == FAULT_FLIP;
}

static void put_interims(struct up *u, struct call *k)
{
    struct bytes b = {0};
    h2_put_field(&b, ":status", "103");
    h2_put_field(&b, "link", "</a>");
    for (int i = 0; i < k->p->interim; i++)
        h2_put_frame(&u->c, H2_HEADERS, H2_END_HEADERS, k->id, b.at, b.len);
    free(b.at);
}

static void put_head(struct up *u, struct call *k)
{
    struct plan *p = k->p;
    struct bytes b = {0};
    char text[32];
    bool lies = p->fault == FAULT_LIE;
    put_interims(u, k);
    snprintf(text, sizeof text, "%d", k->tunnel ? 200 : p->status);
    if (!lies || p->lie % LIES != 1)
        h2_put_field(&b, ":status", text);
    snprintf(text, sizeof text, "%08x", k->r->token);
    h2_put_field(&b, lies && p->lie % LIES == 2 ? "X-Token" : "x-token", text);
    snprintf(text, sizeof text, "%x", k->attempt);
    h2_put_field(&b, "x-attempt", text);
    if (lies && p->lie % LIES == 3)
        h2_put_field(&b, "connection", "close");
    if (lies && p->lie % LIES == 4)
        h2_put_field(&b, "x-split", "a\r\nb: c");
    snprintf(text, sizeof text, "%zu", p->size + (lies ? 1 : 0));
    if (p->framing == BY_LENGTH || (lies && !k->tunnel))
        h2_put_field(&b, "content-length", text);
    bool ends = (p->bodiless || p->size == 0) && !stops(p) && !k->tunnel;
    h2_put_frame(&u->c, H2_HEADERS, H2_END_HEADERS | (ends ? H2_END_STREAM : 0), k->id, b.at, b.len);
    free(b.at);
    k->over = ends;
}

static void end_call(struct up *u, struct call *k)
{
    k->told = true;
    if (k->tunnel)
        round_half(k->r);
    if (k->tunnel && !k->heard)
        return;
    if (!k->asked)
        h2_put_number(&u->c, H2_RST_STREAM, k->id, 0); /* the rest is not needed */
    k->id = 0;
}

static void begin_answer(struct up *u, struct call *k)
{
    struct plan *p = k->p;
    if (p->fault == FAULT_LIE && p->lie % LIES == 0) {
        put_interims(u, k);
        k->r->acted += p->interim > 0; /* it has begun, whatever it says */
        reset_stream(u, k, REFUSED_STREAM);
        return;
    }
    if (p->refuses && k->r->refusals < 3) {
        refuse(u, k);
        return;
    }
    if (k->id > u->mood.acted)
        u->mood.acted = k->id;
    k->answering = true;
    p->needed = p->bodiless ? 0 : p->size;
    if (stops(p))
        p->at = p->at % 3 == 0 ? p->needed - (p->needed > 0 ? p->at / 3 % 2 : 0) : p->at / 3 % (p->needed + 1);
    put_head(u, k);
    if (k->over)
        end_call(u, k);
}

static void put_end(struct up *u, struct call *k)
{
    struct bytes b = {0};
    if (k->p->trailers) {
        h2_put_field(&b, "x-trail", "a");
        h2_put_frame(&u->c, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, k->id, b.at, b.len);
        free(b.at);
    } else {
        h2_put_frame(&u->c, H2_DATA, H2_END_STREAM, k->id, "", 0);
    }
    end_call(u, k);
}

/* At byte `at` of its body. */
static void fault_of_call(struct up *u, struct call *k)
{
    k->silent = k->p->fault == FAULT_HANG || k->p->fault == FAULT_FLIP;
    if (k->p->fault == FAULT_FLIP)
        spoil_record(u);
    else if (k->silent)
        return;
    else if (k->p->fault == FAULT_END && k->tunnel && k->p->lie % 2)
        put_end(u, k);
    else if (k->p->fault == FAULT_RESET && k->p->lie % 3 != 0)
        reset_stream(u, k, k->p->lie % 5 == 0 ? REFUSED_STREAM : k->p->lie % 2 ? 2 : 8);
    else if (k->p->fault == FAULT_END && k->p->lie % 2 && k->p->framing == BY_LENGTH && k->p->at < k->p->needed) {
        h2_put_frame(&u->c, H2_DATA, H2_END_STREAM, k->id, "", 0); /* less than announced */
        end_call(u, k);
    } else {
        break_connection(u, k->p->fault == FAULT_RESET, k->p);
    }
}

static bool goes_on(const struct up *u, const struct call *k)
{
    return !u->c.dead && !u->breaking && k->id != 0 && !k->silent && !k->told;
}

static void send_more(struct up *u, struct call *k)
{
    struct plan *p = k->p;
    bool breaks = stops(p), paced = p->piece > 0 && loop_time < k->begun_ns + PATIENCE_MS * MS;
    size_t stop = breaks ? p->at : p->needed;
    char piece[H2_FRAME_MAX];
    while (goes_on(u, k) && u->c.out.len < OUT_MAX && k->next_ns <= loop_time) {
        size_t n = stop - k->sent, pieces = k->tunnel ? 20 : 100;
        size_t most = paced ? p->piece + p->size / pieces : H2_FRAME_MAX;
        most = most < H2_FRAME_MAX ? most : H2_FRAME_MAX;
        n = n < most ? n : most;
        if (k->sent == stop) {
            breaks ? fault_of_call(u, k) : put_end(u, k);
            return;
        }
        n = (int64_t)n < k->window ? n : k->window > 0 ? (size_t)k->window : 0;
        n = (int64_t)n < u->window ? n : u->window > 0 ? (size_t)u->window : 0;
        if (n == 0)
            return;
        body_fill(piece, n, k->r->token, 'D', k->attempt, k->sent);
        k->sent += n;
        k->window -= (int64_t)n;
        u->window -= (int64_t)n;
        k->next_ns = loop_time + (paced ? p->pause_ms * MS : 0);
        h2_put_frame(&u->c, H2_DATA, 0, k->id, piece, n);
    }
}

static void send_all(struct up *u)
{
    for (unsigned i = 0; i < CALLS_MAX && !u->c.dead && !u->breaking; i++) {
        struct call *k = &u->calls[i];
        if (k->id != 0 && k->asked && !k->answering && !k->silent && k->next_ns <= loop_time)
            begin_answer(u, k);
        if (k->id != 0 && k->answering)
            send_more(u, k);
    }
}

/* --- requests --- */

static bool fault_of_reading(struct up *u, struct call *k)
{
    if (k->p->fault < FAULT_READ_RESET || k->p->fault > FAULT_READ_HANG || k->tally.got < k->p->at)
        return false;
    if (k->p->fault == FAULT_READ_HANG)
        k->silent = true;
    else if (k->p->fault == FAULT_READ_END && k->p->lie % 2)
        break_connection(u, false, k->p);
    else
        reset_stream(u, k, 2);
    return true;
}

static void request_whole(struct up *u, struct call *k)
{
    k->asked = true;
    if (k->tally.wrong)
        violation(k->r, "upload is not its own %s", k->tally.note);
    else if (k->tally.got != k->r->upload)
        violation(k->r, "%zu bytes look like its whole upload", k->tally.got);
    if (k->answering || fault_of_reading(u, k))
        return;
    k->next_ns = loop_time + k->p->wait_ms * MS;
}

static unsigned open_calls(const struct up *u)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CALLS_MAX; i++)
        n += u->calls[i].id != 0;
    return n;
}

static void begin_tunnel(struct call *k, bool ends)
{
    k->tunnel = k->p->status == 101;
    k->asked = true;
    k->next_ns = loop_time + k->p->wait_ms * MS;
    if (ends)
        violation(k->r, "has ended before it began");
}

/* Bytes have come up a tunnel, or its end. */
static void on_tunnel(struct up *u, struct call *k, size_t n, bool ends)
{
    if (k->tally.wrong)
        violation(k->r, "upload is not its own %s", k->tally.note);
    if (k->heard || !k->answering)
        violation(k->r, "has something behind its end, or before its beginning");
    if (n > 0 && !ends) /* also who says nothing takes it: else the client would wait for ever */
        mood_window(u, k, n);
    if (k->silent || fault_of_reading(u, k) || !ends)
        return;
    k->heard = true;
    tunnel_heard(k->r, k->tally.got);
    if (k->told)
        k->id = 0;
}

static void begin_call(struct up *u, uint32_t id, const char *path, const char *protocol, bool ends)
{
    bool connects = strcmp(protocol, "fault") == 0;
    const char *token = strlen(path) > 3 ? path + 3 : "";
    struct round *r = round_by_token((uint32_t)strtoul(token, NULL, 16));
    struct call *k = call_of(u, 0);
    if (r != NULL && mood_disowns(u, id)) {
        r->refusals++;
        r->faults += u->doomed;
        return;
    }
    if (r == NULL || k == NULL) {
        violation(r, "an upstream is asked for \"%.40s\"", path);
        conn_close(&u->c);
        return;
    }
    *k = (struct call){.id = id, .r = r, .begun_ns = loop_time, .window = u->initial,
                       .in_left = u->mood.holds.window, .tally = {.token = r->token, .way = 'U'}};
    r->lost = u->doomed || u->c.hung || u->breaking || (u->c.tls != NULL && u->c.flip_at != SIZE_MAX);
    r->faults += r->lost;
    k->p = attempt_make(r, &k->attempt);
    if (k->p == NULL) {
        k->id = 0;
        conn_close(&u->c);
        return;
    }
    if (k->p->fault >= FAULT_READ_RESET && k->p->fault <= FAULT_READ_HANG)
        k->p->at = k->p->at % 3 == 0 ? 0 : k->p->at % (r->upload + 1);
    if (connects != r->tunnel)
        violation(r, "is asked for by another method: protocol \"%s\"", protocol);
    attempts_reused += u->used;
    u->used = true;
    u->mood.calls_begun++;
    if (!r->lost && !group_is_faulty(u->group) && open_calls(u) > u->mood.holds.calls)
        violation(r, "comes as stream %u beyond a limit of %u: %u are open", id, u->mood.holds.calls,
                  open_calls(u));
    if (k->p->refuses && k->p->lie % 2 && r->refusals < 3) {
        refuse(u, k);
        return;
    }
    if (r->tunnel) {
        begin_tunnel(k, ends);
        return;
    }
    if (k->p->fault == FAULT_EARLY)
        begin_answer(u, k);
    if (k->id != 0 && ends)
        request_whole(u, k);
}

static void on_block(struct up *u)
{
    struct arena arena;
    struct hpack_reader reader;
    struct hpack_field f;
    enum hpack_event e;
    char path[64] = "", protocol[16] = "";
    arena_init(&arena, 4096);
    hpack_read(&reader, &u->decoder, slice_of(u->block.at, u->block.len), &arena, 1 << 20);
    while ((e = hpack_next(&reader, &f)) == HPACK_FIELD) {
        if (slice_is(f.name, ":path"))
            snprintf(path, sizeof path, "%.*s", (int)f.value.len, f.value.ptr);
        if (slice_is(f.name, ":protocol"))
            snprintf(protocol, sizeof protocol, "%.*s", (int)f.value.len, f.value.ptr);
    }
    arena_deinit(&arena);
    u->block.len = 0;
    if (e != HPACK_DONE)
        violation(NULL, "a header block that goes up cannot be read");
    struct call *k = call_of(u, u->block_stream);
    if (u->block_stream > u->last) {
        u->last = u->block_stream;
        begin_call(u, u->block_stream, path, protocol, u->block_flags & H2_END_STREAM);
        mood_turn(u);
    } else if (k != NULL && (u->block_flags & H2_END_STREAM)) {
        request_whole(u, k); /* trailers */
    }
}

static void on_data(struct up *u, struct call *k, const char *bytes, size_t n, bool ends)
{
    u->in_left -= (int64_t)n;
    if (u->in_left < 0 || n > u->mood.holds.frame)
        violation(k != NULL ? k->r : NULL, "%zu bytes come at once, %lld beyond all windows", n,
                  (long long)-u->in_left);
    if (n > 0)
        mood_window(u, NULL, n);
    if (k == NULL)
        return;
    k->in_left -= (int64_t)n;
    if (n > 0 && k->in_left < 0)
        violation(k->r, "%lld bytes come beyond its window", (long long)-k->in_left);
    tally_add(&k->tally, bytes, n);
    if (k->tunnel) {
        on_tunnel(u, k, n, ends);
        return;
    }
    if (k->asked)
        violation(k->r, "has something behind its upload's end");
    if (k->silent)
        return;
    if (n > 0 && !ends)
        mood_window(u, k, n);
    if (ends)
        request_whole(u, k);
    else if (!k->answering)
        fault_of_reading(u, k);
}

static void on_settings(struct up *u, int flags, const unsigned char *b, size_t n)
{
    if (flags & H2_ACK) {
        mood_acknowledged(u);
        return;
    }
    for (size_t i = 0; i + 6 <= n; i += 6) {
        if ((b[i] << 8 | b[i + 1]) != 4)
            continue;
        int64_t more = (int64_t)h2_number(b + i + 2) - u->initial;
        u->initial += more;
        for (unsigned k = 0; k < CALLS_MAX; k++)
            u->calls[k].window += more;
    }
    h2_put_frame(&u->c, H2_SETTINGS, H2_ACK, 0, "", 0);
}

static void on_frame(struct up *u, int type, int flags, uint32_t id, const unsigned char *b, size_t n)
{
    struct call *k = id > 0 ? call_of(u, id) : NULL;
    if (type == H2_DATA) {
        on_data(u, k, (const char *)b, n, flags & H2_END_STREAM);
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
    } else if (type == H2_RST_STREAM && k != NULL) {
        k->id = 0;
    } else if (type == H2_WINDOW_UPDATE && n == 4) {
        *(id == 0 ? &u->window : k != NULL ? &k->window : &(int64_t){0}) += h2_number(b);
    } else if (type == H2_GOAWAY && n >= 8 && h2_number(b + 4) != 0 && !group_is_faulty(u->group)) {
        violation(NULL, "an upstream that behaves is told GOAWAY %u: %.*s", h2_number(b + 4), (int)(n - 8), b + 8);
    }
}

static void on_input(struct conn *c)
{
    struct up *u = (struct up *)c;
    size_t at = 0;
    if (!u->greeted && c->in.len >= 24) {
        if (memcmp(c->in.at, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24) != 0)
            violation(NULL, "no preface comes up");
        u->greeted = true;
        at = 24;
    }
    while (u->greeted && !c->dead && c->in.len - at >= 9) {
        const unsigned char *b = (const unsigned char *)c->in.at + at;
        size_t n = (size_t)b[0] << 16 | (size_t)b[1] << 8 | b[2];
        if (c->in.len - at < 9 + n)
            break;
        on_frame(u, b[3], b[4], h2_number(b + 5) & 0x7fffffff, b + 9, n);
        at += 9 + n;
    }
    if (c->dead)
        return;
    bytes_drop(&c->in, at);
    send_all(u);
    if (!c->dead && (c->eof || c->broken))
        conn_close(c);
}

static void on_sent(struct conn *c)
{
    struct up *u = (struct up *)c;
    if (u->breaking) {
        break_now(u);
        return;
    }
    send_all(u);
    mood_part(u);
}

static void on_wake(struct conn *c)
{
    c->wake_ns = loop_time + 2 * MS;
    send_all((struct up *)c);
    mood_turn((struct up *)c);
}

void h2_upstream_begin(int fd, unsigned group, bool tls)
{
    struct up *u = calloc(1, sizeof *u);
    *u = (struct up){.c = {.on_input = on_input, .on_sent = on_sent, .on_wake = on_wake, .on_free = on_free,
                           .on_cut = on_cut, .luck = dice_of_conn(group)},
                     .group = group, .next = ups, .link = &ups, .window = H2_WINDOW, .initial = H2_WINDOW};
    if (ups != NULL)
        ups->link = &u->next;
    ups = u;
    hpack_decoder_init(&u->decoder);
    if (tls)
        tls_begin(&u->c, true, group_is_faulty(group));
    conn_start(&u->c, fd);
    if (group_is_faulty(group) && dice_percent(&u->c.luck, 3)) {
        u->by_reset = true;
        break_now(u);
        return;
    }
    mood_begin(u);
    u->c.wake_ns = loop_time + MS;
}
