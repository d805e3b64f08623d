/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upgraded connections: after a 101 the two streams are joined. When one side says its end, the other
 * is told and has some seconds to finish what it is saying. They go on without their exchange
 * (tunnel_kept.c).
 *
 * A tunnel lives longer than the configuration that made it only for stream_close_delay. Then, as at
 * a drain, WebSockets are told 1001 (going away) on both sides (RFC 6455 §5.5.1) and all are cut.
 */
#include "proxy/tunnel.h"

#include <stdio.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "base/mem.h"
#include "loop/await.h"
#include "pki/sha1.h"
#include "upstream/iobuf.h"

#define LOGGER "http.handlers.reverse_proxy"
#define LAST_WORDS_NS (100 * NS_PER_MS) /* for what is on its way when a tunnel is ended */

/* Only where there is one. */
struct tunnel_limit {
    struct timer timer;
    struct tunnel *tunnel;
};

static _Thread_local struct list tunnels;
static _Thread_local const struct generation *newest; /* NULL at a drain */

/* --- all of a worker's --- */

/* A WebSocket's Close frame with 1001; a client's (towards the upstream) is masked. */
static void say_going_away(struct stream *to, bool masked)
{
    unsigned char frame[8] = {0x88, 0x02, 0x03, 0xe9}, key[4];
    size_t len = 4;
    if (masked && getrandom(key, sizeof key, GRND_NONBLOCK) == (ssize_t)sizeof key) {
        frame[1] |= 0x80;
        memcpy(frame + 2, key, 4);
        frame[6] = 0x03 ^ key[0];
        frame[7] = 0xe9 ^ key[1];
        len = 8;
    }
    stream_send_now(to, slice_of((const char *)frame, len));
}

/* Bytes are on their way, in whose middle nothing can be said. */
static bool is_speaking(const struct tunnel *t, const struct direction *d)
{
    return t->clear && d->held != NULL;
}

void tunnel_end_now(struct tunnel *t)
{
    bool says = t->going && t->websocket;
    if (says && !t->last_words && (is_speaking(t, &t->up) || is_speaking(t, &t->down))) {
        t->last_words = true;
        tunnel_end_within(t, LAST_WORDS_NS);
        return;
    }
    if (says && !is_speaking(t, &t->down))
        say_going_away(t->taken.stream, false);
    if (says && !is_speaking(t, &t->up))
        say_going_away(t->upstream, true);
    tunnel_cut(t);
}

static void on_timer(struct timer *timer)
{
    tunnel_end_now(CONTAINER_OF(timer, struct tunnel_limit, timer)->tunnel);
}

void tunnel_end_within(struct tunnel *t, uint64_t ns)
{
    uint64_t deadline = loop_now_ns(loop_self()) + ns;
    if (t->limit == NULL) {
        t->limit = NEW(struct tunnel_limit);
        t->limit->tunnel = t;
        timer_init(&t->limit->timer, on_timer);
    }
    struct timer *timer = &t->limit->timer;
    if (!timer_running(timer) || timer->deadline_ns > deadline)
        timer_start(loop_self(), timer, deadline);
}

void tunnels_retire_others(const struct generation *g)
{
    newest = g;
    if (tunnels.next == NULL)
        return;
    LIST_FOR_SAFE(n, &tunnels)
    {
        struct tunnel *t = CONTAINER_OF(n, struct tunnel, node);
        if (t->going || t->taken.generation == g)
            continue;
        t->going = true;
        if (t->g->stream_close_ns > 0)
            tunnel_end_within(t, t->g->stream_close_ns);
        else
            tunnel_end_now(t);
    }
}

static bool is_websocket(const struct round *r)
{
    return slice_eq_nocase(r->x->req.upgrade, SLICE("websocket"));
}

void tunnel_begin(struct tunnel *t, const struct round *r)
{
    t->taken.generation = r->x->generation;
    t->g = r->g;
    t->websocket = is_websocket(r);
    t->start_ns = clock_mono_ns();
    if (tunnels.next == NULL)
        list_init(&tunnels);
    list_append(&tunnels, &t->node);
    if (r->g->stream_ns > 0)
        tunnel_end_within(t, r->g->stream_ns);
    t->going = t->taken.generation != newest; /* its configuration went while the upstream thought */
    if (t->going)
        tunnel_end_within(t, t->g->stream_close_ns);
}

void tunnel_end(struct tunnel *t)
{
    if (t->limit != NULL)
        timer_stop(&t->limit->timer);
    mem_free(t->limit);
    list_remove(&t->node);
}

/* --- bytes --- */

static enum err move(struct stream *from, struct stream *to, char *buf, size_t cap, bool *end,
                     uint64_t *moved)
{
    for (;;) {
        size_t n, sent;
        enum err e;
        if (!stream_recv_now(from, buf, cap, &n, &e))
            return OK;
        TRY(e);
        *end = n == 0;
        if (n == 0)
            return OK;
        struct iovec part = {buf, n};
        TRY(stream_send(to, &part, 1, 0, 0, &sent));
        *moved += n;
        if (n < cap / 2)
            return OK;
    }
}

enum err tunnel_move(const struct tunnel *t, struct stream *from, struct stream *to, bool *end,
                     uint64_t *n)
{
    size_t piece = t->g->stream_buffer > 0 ? t->g->stream_buffer : IOBUF_SIZE;
    bool own = piece > IOBUF_SIZE;
    char *buf = own ? mem_alloc(piece) : iobuf_take();
    enum err e = move(from, to, buf, piece, end, n);
    if (own)
        mem_free(buf);
    else
        iobuf_give(buf);
    return e;
}

enum err tunnel_send(struct stream *to, struct slice s)
{
    struct iovec part = {(char *)(uintptr_t)s.ptr, s.len};
    size_t sent;
    return s.len > 0 ? stream_send(to, &part, 1, 0, 0, &sent) : OK;
}

/* --- the upgrade --- */

/* What a WebSocket's key is answered with (RFC 6455 §4.2.2). An upstream of HTTP/2 never saw it. */
static void add_accept(struct round *r)
{
    struct slice key;
    uint8_t digest[SHA1_LEN];
    char text[32];
    struct buffer b = {.ptr = text, .cap = sizeof text, .max = sizeof text};
    struct arena *arena = r->x->arena;
    if (!fields_get(&r->x->req.fields, SLICE("Sec-WebSocket-Key"), &key))
        return;
    struct slice salted = arena_join(
        arena, (struct slice[]){key, SLICE("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")}, 2);
    if (sha1(salted, digest) &&
        base64_encode(&b, slice_of((const char *)digest, sizeof digest)) == OK)
        fields_add(&r->x->res.fields, SLICE("Sec-WebSocket-Accept"),
                   arena_copy(arena, buffer_slice(&b)));
}

static enum err set_head(struct round *r, struct slice upgrade)
{
    struct exchange *x = r->x;
    struct fields *to = &x->res.fields;
    if (fields_has(&r->answer_fields, SLICE("Server"))) /* there is no Via here: one name, not two */
        fields_remove(to, SLICE("Server"));
    for (uint32_t i = 0; i < r->answer_fields.count; i++) {
        const struct field *f = &r->answer_fields.items[i];
        bool accept = r->call != NULL && slice_eq_nocase(f->name, SLICE("Sec-WebSocket-Accept"));
        if (!is_hop_by_hop(f->name) && !accept)
            fields_add(to, f->name, f->value);
    }
    fields_add(to, SLICE("Upgrade"), upgrade);
    if (r->call != NULL && is_websocket(r))
        add_accept(r);
    x->res.status = 101;
    return OK;
}

/* A tunnel's bytes come behind the request's body, which an upstream has read before it switches
 * (RFC 9110 §7.8). */
static bool body_has_left(const struct round *r)
{
    return !r->has_body || r->body_whole || (r->upload != NULL && r->upload->ended);
}

enum err gateway_upgrade(struct round *r)
{
    struct exchange *x = r->x;
    struct slice upgrade;
    fields_get(&r->answer_fields, SLICE("Upgrade"), &upgrade);
    if (r->call != NULL) /* RFC 8441: agreed to by its status */
        upgrade = x->req.upgrade;
    if (!r->upgrade || !slice_eq_nocase(upgrade, x->req.upgrade)) {
        r->error = exchange_fail(x, 502, "backend tried to switch to unexpected protocol");
        return gateway_round_error(r, FAILURE_HANDLED, 0, "unexpected protocol");
    }
    if (!body_has_left(r)) {
        r->error = exchange_fail(x, 502, "backend switched protocols before the request had ended");
        return gateway_round_error(r, FAILURE_HANDLED, 0, "switched too early");
    }
    if (r->watching)
        x->carrier->watch(x, false);
    r->watching = false;
    TRY(set_head(r, upgrade));
    LOG(LOG_DEBUG, LOGGER, "upgrading connection", LOG_STR("upstream", r->address.text));
    struct slice early = client_answer_rest(r->answer);
    enum err e = tunnel_keep(r, early);
    r->error = e;
    return e == OK ? OK : gateway_round_error(r, FAILURE_HANDLED, 0, "the tunnel was not joined");
}
