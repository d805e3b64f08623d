/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to a server that speaks HTTP/2. It takes over a link, of which it uses the socket and the
 * TLS stream; the link's own read is never armed. The loop's lent reads feed it (h2_link_input.c),
 * what its calls send leaves at the end of the turn (h2_link_output.c).
 *
 * It says the preface, SETTINGS and a wider window at once, and a request behind them; others wait for the
 * server's SETTINGS, unless the connection before was told how many there may be.
 *
 * It ends in peace when it is idle for too long, or when either side has said GOAWAY and the last
 * call is over; at an error of the server's, with GOAWAY and a code; at once when the server is gone.
 * Its calls hear why (h2_call_set_fate).
 */
#include "client/h2_link_internal.h"

#include <errno.h>

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#define LOGGER "http.reverse_proxy.transport.http"
#define SWEEP_NS NS_PER_S

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static void on_bytes(struct op *op, int result);
static void on_too_many(struct idle *i);

/* --- opening --- */

static void put_settings(struct h2_link *c)
{
    uint64_t head = c->options.head_max < UINT32_MAX ? c->options.head_max : UINT32_MAX;
    const struct {
        uint16_t id;
        uint32_t value;
    } all[] = {
        {H2_SET_ENABLE_PUSH, 0},
        {H2_SET_INITIAL_WINDOW_SIZE, H2_CALL_WINDOW},
        {H2_SET_MAX_HEADER_LIST_SIZE, (uint32_t)head},
    };
    size_t count = sizeof all / sizeof all[0];
    char *at = h2_link_begin_frame(c, H2_SETTINGS, 0, 0, count * 6);
    for (size_t i = 0; i < count; i++, at += 6) {
        at[0] = 0;
        at[1] = (char)all[i].id;
        h2_write_u32(at + 2, all[i].value);
    }
    h2_link_put_u32(c, H2_WINDOW_UPDATE, 0, H2_LINK_WINDOW - H2_WINDOW_DEFAULT);
}

static void put_preface(struct h2_link *c)
{
    char *at = h2_link_begin_block(c, sizeof preface - 1);
    memcpy(at, preface, sizeof preface - 1);
    c->out->len += sizeof preface - 1;
    c->gathered += sizeof preface - 1;
}

static size_t block_max(const struct h2_link_options *o)
{
    return o->head_max > H2_LINK_BLOCK_MAX ? (size_t)o->head_max : H2_LINK_BLOCK_MAX;
}

static void init(struct h2_link *c, struct link *link, struct slice key,
                 const struct h2_link_options *o)
{
    struct h2_thread *t = h2_mine();
    c->link = link;
    c->options = *o;
    c->group = h2_group_of(key);
    c->group->known = H2_SPOKEN;
    list_prepend(&c->group->links, &c->node);
    list_init(&c->idle.node);
    c->idle.end = on_too_many;
    list_init(&c->flush);
    list_init(&c->ready);
    c->read.on_done = on_bytes;
    h2_reader_init(&c->reader, block_max(o));
    hpack_decoder_init(&c->decoder);
    hpack_encoder_init(&c->encoder);
    h2_budgets_init(&c->budgets, h2_now());
    c->serial = ++t->serial;
    c->opened_ns = c->idle_ns = c->heard_ns = h2_now();
    c->send_window = c->peer_window = H2_WINDOW_DEFAULT;
    c->peer_frame_max = H2_FRAME_MAX_DEFAULT;
    c->peer_calls = H2_CALLS_MAX;
    c->in_left = H2_LINK_WINDOW;
    c->next_id = 1;
    t->open++;
    if (!timer_running(&t->sweep))
        timer_start(loop_self(), &t->sweep, h2_now() + SWEEP_NS);
}

/* Ciphertext, or nothing: what has been kept of it. */
static void feed_encrypted(struct h2_link *c, struct slice lent)
{
    struct h2_thread *t = h2_mine();
    struct tls_stream *tls = c->link->stream.tls;
    enum tls_step step = TLS_OK;
    if (t->plain == NULL)
        t->plain = mem_alloc(TLS_RECORD_MAX);
    if (lent.len > 0)
        tls_stream_feed(tls, lent);
    while (step == TLS_OK && !c->paused && !c->dead && !c->closing) {
        size_t n;
        step = tls_stream_read(tls, t->plain, TLS_RECORD_MAX, &n);
        if (step == TLS_OK)
            h2_link_feed(c, slice_of(t->plain, n));
    }
    tls_stream_keep(tls);
    if (step == TLS_FAILED) {
        memcpy(c->why_text, "tls: ", 6);
        tls_client_why(tls, c->why_text + 5, sizeof c->why_text - 5);
    }
    if (step == TLS_END || step == TLS_FAILED) {
        c->read_ended = true;
        h2_link_die(c, step == TLS_FAILED ? c->why_text : NULL);
    } else if (tls_stream_out(tls).len > 0) {
        h2_link_schedule(c);
    }
}

struct h2_call *h2_link_begin(struct link *link, struct slice key,
                              const struct h2_link_options *options, struct arena *arena)
{
    struct h2_link *c = NEW(struct h2_link);
    ASSERT(!link->op.armed && link->wait == NULL);
    init(c, link, key, options);
    put_preface(c);
    put_settings(c);
    struct h2_call *k = h2_call_begin(c, arena);
    k->first_of_link = true;
    if (link->stream.tls != NULL)
        feed_encrypted(c, SLICE_NONE);
    h2_link_schedule(c); /* which arms its read as well */
    return k;
}

/* --- new calls --- */

static uint32_t calls_allowed(const struct h2_link *c)
{
    if (c->options.single)
        return c->next_id == 1;
    uint32_t told = c->settled ? c->peer_calls : c->group->told;
    if (!c->settled && told == 0) /* its SETTINGS come at once, and some allow very few */
        return 1;
    return told < H2_CALLS_MAX ? told : H2_CALLS_MAX;
}

unsigned h2_link_room(const struct h2_link *c)
{
    uint32_t allowed = calls_allowed(c);
    bool stalled = c->sending != NULL &&
                   (h2_now() - c->blocked_ns > H2_STALLED_NS ||
                    (c->out != NULL && c->out->len > H2_LINK_OUT / 2));
    if (c->dead || c->closing || c->going || stalled)
        return 0;
    return allowed > c->calls ? allowed - c->calls : 0;
}

void h2_link_retire(struct h2_link *c)
{
    if (c->going)
        return;
    c->going = true;
    idle_end(&c->idle);
    list_remove(&c->node);
    list_append(&c->group->links, &c->node);
}

static void on_too_many(struct idle *i)
{
    struct h2_link *c = CONTAINER_OF(i, struct h2_link, idle);
    h2_link_retire(c);
    h2_link_schedule(c);
}

/* --- ending --- */

static void say_why(const struct h2_link *c, const char *why)
{
    if (log_wants(LOG_INFO))
        LOG(LOG_INFO, LOGGER, "HTTP/2 connection to an upstream ended", LOG_CSTR("reason", why),
            LOG_STR("upstream", c->link->endpoint->name));
}

static void tell_calls(struct h2_link *c, enum h2_fate fate)
{
    for (int i = 0; i < H2_LINK_TABLE; i++) {
        for (struct h2_call *k = c->table[i]; k != NULL; k = k->next)
            h2_call_set_fate(k, fate, c->why);
    }
}

void h2_link_die(struct h2_link *c, const char *why)
{
    if (c->dead)
        return;
    if (why != NULL && c->why == NULL)
        c->why = why;
    c->dead = true;
    h2_link_retire(c);
    tell_calls(c, H2_CALL_LOST);
    h2_link_schedule(c); /* whoever finds it dead may stand on a fiber */
}

void h2_link_fail(struct h2_link *c, enum h2_error code, const char *why)
{
    if (c->dead || c->closing)
        return;
    say_why(c, why);
    c->why = why;
    c->closing = true;
    h2_link_retire(c);
    char *at = h2_link_begin_frame(c, H2_GOAWAY, 0, 0, 8);
    if (at != NULL) {
        h2_write_u32(at, 0);
        h2_write_u32(at + 4, code);
    }
    tell_calls(c, H2_CALL_BROKEN);
    h2_link_schedule(c);
}

static void end_now(struct h2_link *c)
{
    struct h2_group *g = c->group;
    h2_mine()->open--;
    list_remove(&c->flush);
    list_remove(&c->node);
    h2_link_drop_output(c);
    h2_reader_deinit(&c->reader);
    hpack_decoder_deinit(&c->decoder);
    hpack_encoder_deinit(&c->encoder);
    if (c->read_ended)
        c->link->end = 0; /* nothing is said to it any more */
    link_close(c->link);
    mem_free(c);
    h2_group_wake(g); /* there is room for another one */
    h2_group_leave(g);
}

static void say_end(struct h2_link *c)
{
    if (c->said_end)
        return;
    c->said_end = true;
    if (!c->closing) {
        char *at = h2_link_begin_frame(c, H2_GOAWAY, 0, 0, 8);
        if (at != NULL)
            memset(at, 0, 8);
    }
    if (!c->dead)
        h2_link_send(c);
}

void h2_link_settle(struct h2_link *c)
{
    if (!c->dead && (c->closing || (c->going && c->calls == 0))) {
        say_end(c);
        if (c->sending == NULL)
            h2_link_die(c, c->why);
    }
    if (c->dead) {
        op_cancel(loop_self(), &c->read);
        op_cancel(loop_self(), &c->write);
        if (c->calls == 0 && !c->read.armed && !c->write.armed)
            end_now(c);
        return;
    }
    if (c->paused && h2_link_has_room(c)) {
        c->paused = false;
        h2_link_feed(c, SLICE_NONE);
        if (c->link->stream.tls != NULL && !c->paused)
            feed_encrypted(c, SLICE_NONE);
        h2_link_settle(c); /* once: it is not paused, or has no room */
        return;
    }
    if (!c->read.armed && !c->paused && !c->read_ended)
        op_recv_lent(loop_self(), &c->read, c->link->stream.fd);
}

static void on_bytes(struct op *op, int result)
{
    struct h2_link *c = CONTAINER_OF(op, struct h2_link, read);
    if (result <= 0) {
        c->read_ended = true;
        if (result < 0 && result != -ECANCELED && c->why == NULL)
            c->why = "read: connection reset by peer";
        h2_link_die(c, NULL);
    } else if (!c->dead && !c->closing) {
        c->heard_ns = h2_now();
        if (c->link->stream.tls != NULL)
            feed_encrypted(c, op->lent);
        else
            h2_link_feed(c, op->lent);
    }
    h2_link_settle(c);
}
