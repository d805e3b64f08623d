/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 to upstreams: over TLS where ALPN agreed on it, and in clear text where the transport's
 * versions name "h2c". How a request comes to a call: on a connection that has room, or on a new one,
 * which one request dials while the others wait for it. Where a handshake finds HTTP/1.1, the link is used
 * for that, and the next ones do not wait for each other.
 *
 * What an upstream has not looked at (REFUSED_STREAM, a GOAWAY with a lower number, a head that never
 * left) may be sent again whatever it was: docs/gateway.md has the table.
 */
#include <stdio.h>

#include "base/clock.h"
#include "loop/await.h"
#include "proxy/gateway.h"

#define LOOK_NS (50 * NS_PER_MS) /* while all links that are allowed are open, some by other threads */

bool gateway_may_speak_h2(const struct round *r)
{
    const struct http_transport *t = r->g->transport;
    return r->address.tls ? t->h2_offered && !r->upgrade : t->h2c;
}

/* --- connecting --- */

static struct h2_link_options options_of(const struct http_transport *t)
{
    return (struct h2_link_options){.limits = t->limits, .head_max = t->head_max,
                                    .single = !t->keep_alive};
}

static bool has_agreed(const struct round *r)
{
    struct tls_facts f;
    if (!r->address.tls)
        return true;
    tls_stream_facts(r->link->stream.tls, &f);
    return slice_is(f.alpn, "h2");
}

/* In a place that was reserved. `turn`: others wait for what becomes of it. */
static enum err open_one(struct round *r, bool turn)
{
    enum err e = gateway_open_link(r);
    if (e != OK) {
        if (turn) /* a client who left says nothing about the upstream */
            h2_dial_end(r->address.key, H2_UNKNOWN, r->fail_status,
                        r->failure == FAILURE_DIAL ? r->why : NULL);
        return e;
    }
    bool spoken = has_agreed(r);
    if (spoken) {
        struct h2_link_options options = options_of(r->g->transport);
        r->call = h2_link_begin(r->link, r->address.key, &options, r->x->arena);
        r->protocol = &protocol_h2;
        r->link = NULL;
    }
    if (turn)
        h2_dial_end(r->address.key, spoken ? H2_SPOKEN : H2_NOT_SPOKEN, 0, NULL);
    return OK;
}

static enum err await_dial_turn(struct round *r, uint64_t deadline, uint64_t look)
{
    struct h2_turn turn; /* not the arena's: who waits for room may ask for many */
    gateway_watch(r); /* this may take as long as the upstream does */
    uint64_t until = look > 0 && (deadline == 0 || look < deadline) ? look : deadline;
    enum err e = await_h2_turn(r->address.key, until, &turn);
    if (e == ERR_TIMEOUT && until == look && look > 0)
        return OK;
    if (e != OK)
        return gateway_dial_failed(r, e, err_text(e));
    return turn.failed ? gateway_round_error(r, FAILURE_DIAL, turn.status,
                                             arena_str(r->x->arena, slice_from(turn.why)))
                       : OK;
}

static bool all_open(const struct round *r)
{
    uint32_t most = r->g->transport->limits.links;
    return most > 0 && atomic_load_explicit(&r->upstream->endpoint->links,
                                            memory_order_relaxed) >= (int)most;
}

static bool take_call(struct round *r, uint64_t after)
{
    bool once = !gateway_idempotent(r) || (r->has_body && !r->body_whole);
    r->call = h2_call_take(r->address.key, &r->g->transport->limits, after, once, r->x->arena);
    if (r->call != NULL)
        r->protocol = &protocol_h2;
    return r->call != NULL;
}

/* Where HTTP/1.1 was spoken at the last handshake. */
static enum err connect_as_before(struct round *r)
{
    TRY(gateway_await_room(r));
    return r->link != NULL ? OK : open_one(r, false);
}

static enum err connect_alone(struct round *r)
{
    uint64_t limit = r->g->transport->dial_ns;
    uint64_t deadline = limit > 0 ? loop_now_ns(loop_self()) + limit : 0;
    while (!link_reserve(r->upstream->endpoint, &r->g->transport->limits))
        TRY(await_dial_turn(r, deadline, loop_now_ns(loop_self()) + LOOK_NS));
    return open_one(r, false);
}

enum err gateway_connect_h2(struct round *r, bool fresh)
{
    uint64_t after = fresh ? r->call_after : 0, limit = r->g->transport->dial_ns;
    uint64_t deadline = limit > 0 ? loop_now_ns(loop_self()) + limit : 0;
    bool turn;
    r->link = NULL;
    r->call_sent = 0;
    if (!r->g->transport->keep_alive) /* others may have left some of that key */
        return connect_alone(r);
    for (;;) {
        if (take_call(r, after))
            return OK;
        if (r->address.tls && !fresh && (r->link = link_take(r->address.key)) != NULL)
            return OK;
        if (all_open(r) && take_call(r, 0)) /* there will be no other one */
            return OK;
        if (!h2_dial_begin(r->address.key, &turn)) {
            TRY(await_dial_turn(r, deadline, 0));
            continue;
        }
        if (!turn)
            return connect_as_before(r);
        if (link_reserve(r->upstream->endpoint, &r->g->transport->limits))
            return open_one(r, true);
        h2_dial_end(r->address.key, H2_UNKNOWN, 0, NULL);
        TRY(await_dial_turn(r, deadline, loop_now_ns(loop_self()) + LOOK_NS));
    }
}

/* --- the request --- */

static int64_t length_of(const struct round *r)
{
    bool announced = slice_is(r->method, "POST") || slice_is(r->method, "PUT") ||
                     slice_is(r->method, "PATCH");
    if (r->chunked_up)
        return -1;
    if (r->has_body)
        return r->body_length;
    return announced ? 0 : -1;
}

/* An upgrade becomes an extended CONNECT (RFC 8441), if the upstream takes those. */
static enum err prepare_tunnel(struct round *r, struct h2_request_head *h, struct fields *fs)
{
    bool allowed = false;
    uint64_t limit = r->g->transport->dial_ns;
    gateway_watch(r);
    enum err e = await_h2_connect_allowed(
        r->call, limit > 0 ? loop_now_ns(loop_self()) + limit : 0, &allowed);
    if (e == ERR_CLOSED && h2_call_fate(r->call) != H2_CALL_GOES_ON)
        return OK; /* the answer's reader finds out why */
    if (e != OK)
        return gateway_dial_failed(r, e, err_text(e));
    if (!allowed)
        return gateway_round_error(r, FAILURE_UPSTREAM, 502, "the upstream speaks HTTP/2 and takes "
                                   "no upgrades there (RFC 8441)");
    fields_remove(fs, SLICE("Sec-WebSocket-Key"));
    h->method = SLICE("CONNECT");
    h->protocol = r->x->req.upgrade;
    h->length = -1;
    return OK;
}

static struct slice authority_of(const struct round *r, const struct fields *fs)
{
    struct slice host;
    if (fields_get(fs, SLICE("Host"), &host))
        return host;
    return r->address.is_unix ? SLICE("localhost") : r->address.hostport;
}

/* Those of the request as they go up; NULL: none. */
static const struct fields *trailers_of(const struct round *r)
{
    const struct fields *from = r->probe ? NULL : r->x->carrier->trailers(r->x);
    struct fields *to;
    if (from == NULL)
        return NULL;
    to = ARENA_NEW(r->x->arena, struct fields);
    fields_init(to, r->x->arena);
    for (uint32_t i = 0; i < from->count; i++) {
        if (!is_hop_by_hop(from->items[i].name))
            fields_add(to, from->items[i].name, from->items[i].value);
    }
    return to;
}

static enum err send_request(struct round *r)
{
    struct fields fs = gateway_fields(r);
    bool whole = r->has_body && r->body_whole;
    struct h2_request_head h = {
        .method = r->method, .scheme = r->address.tls ? SLICE("https") : SLICE("http"),
        .authority = authority_of(r, &fs), .path = r->target, .fields = &fs,
        .length = length_of(r)};
    if (r->upgrade)
        TRY(prepare_tunnel(r, &h, &fs));
    h2_call_request(r->call, &h, !r->has_body && !r->upgrade);
    if (whole)
        h2_call_put(r->call, r->body, trailers_of(r));
    return OK;
}

/* Else the body's last frame is the request's end as well. */
static bool may_trail(struct exchange *x)
{
    return x->carrier->may_trail(x) || x->carrier->trailers(x) != NULL;
}

static enum err send_piece(struct round *r, char *buf, size_t n)
{
    const struct http_transport *t = r->g->transport;
    uint64_t deadline = t->write_ns > 0 ? loop_now_ns(loop_self()) + t->write_ns : r->write_by;
    r->call_sent += n;
    bool last = r->body_length >= 0 && r->call_sent == (uint64_t)r->body_length &&
                !may_trail(r->x);
    enum err e = await_h2_send(r->call, slice_of(buf + BODY_FRONT, n), last, deadline);
    if (e == ERR_TIMEOUT)
        h2_call_give_up(r->call, "write: i/o timeout");
    return e;
}

static enum err send_end(struct round *r, char *buf)
{
    (void)buf;
    h2_call_put_end(r->call, trailers_of(r));
    return OK;
}

/* --- the answer --- */

static struct client_answer *begin(struct round *r)
{
    return h2_call_answer(r->call, r->x->arena, r->g->transport->head_max);
}

static void end(struct round *r)
{
    client_answer_end(r->answer);
}

static void cut(struct round *r)
{
    h2_call_give_up(r->call, "the request's body could not be sent");
}

static void interrupt(struct round *r)
{
    h2_call_interrupt(r->call);
}

static enum err lost(struct round *r)
{
    struct h2_call *k = r->call;
    const char *why = h2_call_why(k);
    bool began = h2_call_began(k);
    r->unacted = h2_call_unsent(k);
    if (why == NULL)
        why = began ? "unexpected EOF" : "EOF";
    else
        why = arena_str(r->x->arena, slice_from(why)); /* it may be the connection's */
    bool stale = !began && (h2_call_reused(k) || r->unacted);
    return gateway_round_error(r, stale ? FAILURE_STALE : FAILURE_UPSTREAM, 502, why);
}

enum err gateway_h2_failed(struct round *r, enum err e)
{
    struct h2_call *k = r->call;
    r->call_after = h2_links_opened();
    if (e == ERR_TIMEOUT) {
        h2_call_doubt(k);
        return gateway_round_error(r, FAILURE_UPSTREAM, 504, "timeout awaiting response headers");
    }
    switch (h2_call_fate(k)) {
    case H2_CALL_REFUSED:
        r->unacted = true;
        r->unasked = h2_call_unsent(k);
        return gateway_round_error(r, FAILURE_STALE, 502, h2_call_why(k));
    case H2_CALL_LOST:
        return lost(r);
    default:
        return gateway_round_error(r, FAILURE_UPSTREAM, 502,
                                   h2_call_why(k) != NULL
                                       ? arena_str(r->x->arena, slice_from(h2_call_why(k)))
                                       : err_text(e));
    }
}

const struct protocol protocol_h2 = {
    .send = send_request,
    .send_piece = send_piece,
    .send_end = send_end,
    .begin = begin,
    .end = end,
    .read_head = h2_call_read_head,
    .read_body = h2_call_read_body,
    .cut = cut,
    .interrupt = interrupt,
};
