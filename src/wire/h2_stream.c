/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: from a header block to an exchange on a fiber, and from the fiber's end to the stream's.
 *
 * A stream is the memory of one exchange, recycled by its worker. It lives from its header block
 * until its fiber has ended, be the stream closed long before (a client that resets it does not make
 * room for another one while its handler is still at work: that is what makes resets cheap for the
 * client and dear for the server). So the fiber alone frees it; a tunnel that goes on behind its exchange
 * has none, and is freed by who holds it.
 */
#include "wire/h2_internal.h"

#include <net/if.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "wire/h1_head.h"
#include "wire/h1_internal.h"

enum { ARENA_CHUNK = 8192, STREAMS_KEPT = 512, IN_KEPT = 32768 };

/* Read by the control thread, written by this one only. */
#define COUNT(counter, step) __atomic_store_n(&(counter), (counter) + (step), __ATOMIC_RELAXED)

/* --- memory --- */

static void free_stream(struct h2_stream *s)
{
    arena_deinit(&s->arena);
    buffer_deinit(&s->in);
    mem_free(s);
}

void h2_free_streams(struct h2_worker *w)
{
    while (w->streams != NULL) {
        struct h2_stream *s = w->streams;
        w->streams = s->next;
        free_stream(s);
    }
}

static struct h2_stream *take_stream(struct h2_conn *c, uint32_t id)
{
    struct h2_worker *w = c->shared;
    struct h2_stream *s = w->streams;
    if (s != NULL) {
        w->streams = s->next;
        w->streams_free--;
    } else {
        s = NEW(struct h2_stream);
        arena_init(&s->arena, ARENA_CHUNK);
        buffer_init(&s->in, 2 * H2_STREAM_WINDOW_MAX);
        list_init(&s->ready);
        list_init(&s->room);
    }
    s->conn = c;
    s->id = id;
    return s;
}

static void give_stream(struct h2_worker *w, struct h2_stream *s)
{
    arena_reset(&s->arena);
    buffer_clear(&s->in);
    if (s->in.cap > IN_KEPT)
        buffer_deinit(&s->in);
    if (w->streams_free >= STREAMS_KEPT) {
        free_stream(s);
        return;
    }
    s->next = w->streams;
    w->streams = s;
    w->streams_free++;
}

static struct h2_busy *busy_of(struct h2_conn *c)
{
    struct h2_worker *w = c->shared;
    struct h2_busy *b = c->busy;
    if (b != NULL)
        return b;
    b = w->busies;
    if (b != NULL) {
        w->busies = b->next;
        w->busies_free--;
    } else {
        b = NEW(struct h2_busy);
        for (int i = 0; i < H2_URGENCIES; i++)
            list_init(&b->ready[i]);
        list_init(&b->room);
    }
    c->busy = b;
    c->quiet_by = c->goaway == H2_STAYS ? 0 : c->quiet_by;
    return b;
}

/* --- by number --- */

static unsigned bucket_of(uint32_t id)
{
    return (id >> 1) % H2_TABLE;
}

struct h2_stream *h2_find(const struct h2_conn *c, uint32_t id)
{
    struct h2_stream *s = c->busy != NULL ? c->busy->table[bucket_of(id)] : NULL;
    while (s != NULL && s->id != id)
        s = s->next;
    return s;
}

static void link_stream(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    struct h2_stream **at = &busy_of(c)->table[bucket_of(s->id)];
    s->next = *at;
    *at = s;
    c->streams++;
}

static void unlink_stream(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    struct h2_stream **at = &c->busy->table[bucket_of(s->id)];
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    c->streams--;
}

static void note_closed(struct h2_conn *c, uint32_t id, bool was_reset)
{
    if (c->closed == NULL)
        c->closed = mem_zalloc(H2_CLOSED_KEPT * sizeof *c->closed);
    c->closed[c->closed_at] = id << 1 | was_reset;
    c->closed_at = (uint8_t)((c->closed_at + 1) % H2_CLOSED_KEPT);
}

static bool closed_as(const struct h2_conn *c, uint32_t mark)
{
    for (int i = 0; c->closed != NULL && i < H2_CLOSED_KEPT; i++) {
        if (c->closed[i] == mark)
            return true;
    }
    return false;
}

bool h2_was_reset(const struct h2_conn *c, uint32_t id)
{
    struct h2_stream *s = h2_find(c, id);
    return (s != NULL && s->reset) || closed_as(c, id << 1 | 1);
}

bool h2_was_closed(const struct h2_conn *c, uint32_t id)
{
    return closed_as(c, id << 1);
}

/* --- resets --- */

void h2_stream_reset(struct h2_stream *s)
{
    if (s->reset)
        return;
    s->reset = true;
    h2_unschedule(s);
    list_remove(&s->room);
    if (s->out_waiting)
        waiter_wake(&s->out_waiter, ERR_CLOSED);
    if (s->in_waiting)
        waiter_wake(&s->in_waiter, ERR_CLOSED);
    s->awaited = false;
    if (s->watcher != NULL)
        s->watcher->type->broken(s->watcher);
    if (s->watched && s->fiber != fiber_self())
        fiber_cancel(s->fiber, ERR_CLOSED);
}

void h2_stream_fail(struct h2_stream *s, enum h2_error code)
{
    if (s->reset)
        return;
    (void)h2_put_reset(s->conn, s->id, code);
    h2_stream_reset(s);
}

void h2_set_priority(struct h2_stream *s, struct slice value)
{
    bool scheduled = !list_empty(&s->ready);
    if (scheduled)
        h2_unschedule(s);
    s->urgency = H2_URGENCY_DEFAULT;
    s->incremental = false;
    h2_priority_parse(value, &s->urgency, &s->incremental);
    if (scheduled)
        h2_window_grew(s);
}

/* --- an exchange --- */

static void begin_exchange(struct h2_stream *s, const struct http_server *server,
                           struct generation *g)
{
    struct exchange *x = &s->x;
    x->carrier = &h2_carrier;
    x->tls = s->conn->tls;
    x->server = server;
    x->generation = g;
    x->worker = s->conn->worker->worker;
    x->body_max = UINT64_MAX;
    x->res.content_length = -1;
    fields_init(&x->res.fields, &s->arena);
    fields_add(&x->res.fields, SLICE("Server"), SLICE("portico"));
    s->sink = (struct sink){.type = &h2_sink, .exchange = x};
    x->sink = &s->sink;
    s->hard_write_ns = server->write_timeout_ns > 0 ? x->start_ns + server->write_timeout_ns : 0;
    s->hard_read_ns = server->read_timeout_ns > 0 ? x->start_ns + server->read_timeout_ns : 0;
}

/* What the client has not sent to its end is not wanted any more (RFC 9113 §8.1). */
void h2_stream_end(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    if (!s->reset && !c->dead && !s->out_ended)
        (void)h2_put_reset(c, s->id, H2_INTERNAL_ERROR);
    else if (!s->reset && !c->dead && !s->in_ended)
        (void)h2_put_reset(c, s->id, H2_NO_ERROR);
    h2_give_back(c, (uint32_t)(s->in.len - s->in_at));
    note_closed(c, s->id, s->reset || !s->in_ended || !s->out_ended);
    if (!s->reset)
        h2_refund(&c->budgets, H2_RESETS, 1);
    unlink_stream(s);
    if (s->x.close_after && s->x.error.status == 0)
        h2_begin_goaway(c); /* a handler wants the connection closed, as Go does with its field */
    give_stream(c->shared, s);
    h2_schedule(c); /* it may be the last one */
}

/* A tunnel goes on: of the exchange nothing is needed any more. */
static void leave_to_holder(struct h2_stream *s, struct generation *g)
{
    s->x.taken->generation = g; /* until it is let go of */
    s->fiber = NULL;
    arena_deinit(&s->arena);
}

static void serve(void *arg)
{
    struct h2_stream *s = arg;
    struct h2_conn *c = s->conn;
    struct generation *g;
    s->fiber = fiber_self();
    const struct http_server *server = c->site->current(c->site, &g);
    begin_exchange(s, server, g);
    COUNT(c->worker->requests, 1);
    if (serve_exchange(&s->x) != OK)
        s->sink.type->abort(&s->sink, ERR_CLOSED);
    for (struct exchange_hook *h = s->x.hooks; h != NULL; h = h->next)
        h->run(&s->x, h->arg);
    COUNT(c->worker->busy, -1u);
    if (s->x.taken != NULL) {
        leave_to_holder(s, g);
        return;
    }
    c->site->done(c->site, g);
    h2_stream_end(s);
}

/* --- header blocks --- */

static void prepare(struct h2_stream *s, bool ends)
{
    struct h2_conn *c = s->conn;
    struct exchange *x = &s->x;
    memset(x, 0, sizeof *x);
    x->arena = &s->arena;
    x->start_ns = loop_now_ns(c->worker->loop);
    s->fiber = NULL;
    s->send_window = c->peer_window;
    s->in_at = 0;
    s->in_length = -1;
    s->in_seen = 0;
    s->in_window = H2_STREAM_WINDOW;
    s->in_left = H2_STREAM_WINDOW;
    s->in_due = 0;
    s->in_ended = ends;
    s->in_waiting = s->in_touched = s->expect_continue = s->has_trailers = false;
    s->source = (struct h2_source){.left = 0};
    s->pending = SLICE_NONE;
    s->out_waiting = s->head_out = s->out_ended = s->reset = s->watched = false;
    s->taken_over = s->awaited = false;
    s->watcher = NULL;
    s->urgency = H2_URGENCY_DEFAULT;
    s->incremental = true; /* who says nothing gets of all streams alike */
    s->mark_epoch = 0;
    s->reading = s->writing = (struct pace){0};
}

static struct h2_block block_of(const struct h2_conn *c, struct arena *arena, bool ends,
                                struct slice bytes)
{
    return (struct h2_block){.bytes = bytes, .arena = arena, .ends = ends, .connect_allowed = true,
                             .tls = c->tls != NULL,
                             .list_max = c->site->server->max_header_bytes};
}

/* RFC 8441 §4. What follows is no body: it belongs to whoever takes the stream over. */
static void want_tunnel(struct h2_stream *s, struct slice protocol)
{
    s->x.req.upgrade = protocol;
    s->x.req.has_body = false;
    s->x.req.content_length = 0;
}

static enum h2_verdict read_request(struct h2_stream *s, struct slice bytes)
{
    struct h2_conn *c = s->conn;
    struct h2_block block = block_of(c, &s->arena, s->in_ended, bytes);
    struct h2_head head = {.length = -1};
    enum h2_verdict v = h2_request_decode(&c->decoder, &block, c->site->server, &s->x.req, &head);
    s->in_length = head.length;
    s->expect_continue = head.expect_continue;
    if (head.protocol.len > 0)
        want_tunnel(s, head.protocol);
    if (head.priority.len > 0)
        h2_set_priority(s, head.priority);
    h2_use_priority(s);
    if (v == H2_VERDICT_MALFORMED && head.bad != NULL && log_wants(LOG_DEBUG))
        LOG(LOG_DEBUG, "http", "request refused", LOG_CSTR("reason", head.bad));
    return v;
}

static void begin_stream(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    link_stream(s);
    COUNT(c->worker->busy, 1);
    if (fiber_start(c->worker->loop, serve, s) == OK)
        return; /* the stream may be gone */
    COUNT(c->worker->busy, -1u);
    (void)h2_put_reset(c, s->id, H2_REFUSED_STREAM);
    note_closed(c, s->id, true);
    unlink_stream(s);
    give_stream(c->shared, s);
    h2_schedule(c);
}

static void refuse_stream(struct h2_stream *s, enum h2_error code, bool clients_doing)
{
    struct h2_conn *c = s->conn;
    uint32_t id = s->id;
    give_stream(c->shared, s);
    note_closed(c, id, true);
    if (clients_doing && !h2_spend(&c->budgets, H2_RESETS, loop_now_ns(c->worker->loop)))
        h2_calm(c, h2_budget_name(H2_RESETS));
    else
        (void)h2_put_reset(c, id, code);
}

static void refuse_with(struct h2_stream *s, int status)
{
    struct h2_conn *c = s->conn;
    uint32_t id = s->id;
    bool ended = s->in_ended;
    give_stream(c->shared, s);
    note_closed(c, id, true);
    h2_answer_alone(c, id, status);
    if (!ended)
        (void)h2_put_reset(c, id, H2_NO_ERROR);
}

/* When a worker's fibers become scarce, no connection may hold many of them: else a few dozen clients
 * with slow bodies could take them all. */
static unsigned streams_allowed(const struct h2_conn *c)
{
    unsigned live = fiber_live(c->worker->loop);
    if (live < FIBER_MAX / 2)
        return H2_STREAMS_MAX;
    if (live < FIBER_MAX / 4 * 3)
        return H2_STREAMS_MAX / 4;
    return live < FIBER_MAX / 10 * 9 ? H2_STREAMS_MAX / 16 : H2_STREAMS_MAX / 64;
}

static void open_stream(struct h2_conn *c, uint32_t id, bool ends, struct slice block)
{
    struct h2_stream *s = take_stream(c, id);
    c->last_id = id;
    prepare(s, ends);
    enum h2_verdict v = read_request(s, block);
    if (v == H2_VERDICT_BROKEN) {
        give_stream(c->shared, s);
        h2_fail(c, H2_COMPRESSION_ERROR, "a header block that cannot be decoded");
    } else if (c->goaway == H2_GOES) {
        give_stream(c->shared, s); /* behind the last one that is served: it will be asked elsewhere */
        note_closed(c, id, true);
    } else if (v == H2_VERDICT_MALFORMED || (ends && s->in_length > 0)) {
        refuse_stream(s, H2_PROTOCOL_ERROR, true);
    } else if (c->streams >= streams_allowed(c)) {
        refuse_stream(s, H2_REFUSED_STREAM, true);
    } else if (v == H2_VERDICT_TOO_LARGE || v == H2_VERDICT_EXPECTS) {
        refuse_with(s, v == H2_VERDICT_EXPECTS ? 417 : 431);
    } else {
        h2_refund(&c->budgets, H2_CONTROL, 1);
        begin_stream(s);
    }
}

void h2_open_upgraded(struct h2_conn *c, const struct h1_head *h)
{
    struct h2_stream *s = take_stream(c, 1);
    c->last_id = 1;
    prepare(s, true);
    h2_fill_upgraded(s, h);
    begin_stream(s);
}

static void end_with_trailers(struct h2_stream *s)
{
    s->has_trailers = s->trailers.count > 0;
    h2_on_input_end(s);
}

static void on_trailers(struct h2_stream *s, bool ends, struct slice block)
{
    struct h2_conn *c = s->conn;
    struct h2_block trailers = block_of(c, &s->arena, ends, block);
    const char *bad = NULL;
    if (!s->has_trailers)
        fields_init(&s->trailers, &s->arena);
    enum h2_verdict v = h2_trailers_decode(&c->decoder, &trailers, c->site->server,
                                             &s->trailers, &bad);
    if (v == H2_VERDICT_BROKEN)
        h2_fail(c, H2_COMPRESSION_ERROR, "trailers that cannot be decoded");
    else if (v != H2_VERDICT_OK || !ends)
        h2_stream_fail(s, H2_PROTOCOL_ERROR);
    else
        end_with_trailers(s);
}

/* On a stream that was reset, or (`s` is there and was not) that the client had ended. */
static void on_late_block(struct h2_conn *c, struct h2_stream *s, struct slice block)
{
    const char *bad = NULL;
    bool ended = s != NULL && !s->reset;
    enum h2_budget kind = ended ? H2_RESETS : H2_CONTROL;
    if (!h2_block_skip(&c->decoder, block, &c->shared->scrap, &bad))
        h2_fail(c, H2_COMPRESSION_ERROR, "a header block that cannot be decoded");
    else if (!h2_spend(&c->budgets, kind, loop_now_ns(c->worker->loop)))
        h2_calm(c, h2_budget_name(kind));
    else if (ended)
        h2_stream_fail(s, H2_STREAM_CLOSED);
    arena_reset(&c->shared->scrap);
}

void h2_on_block(struct h2_conn *c, uint32_t id, bool ends, struct slice block)
{
    struct h2_stream *s = h2_find(c, id);
    if (id % 2 == 0) {
        h2_fail(c, H2_PROTOCOL_ERROR, "HEADERS on a stream that is not the client's");
    } else if (s != NULL && !s->reset && !s->in_ended) {
        on_trailers(s, ends, block);
    } else if (id > c->last_id) {
        open_stream(c, id, ends, block);
    } else if (s != NULL || h2_was_reset(c, id)) {
        on_late_block(c, s, block);
    } else {
        h2_fail(c, h2_was_closed(c, id) ? H2_STREAM_CLOSED : H2_PROTOCOL_ERROR,
                "HEADERS on a stream that was closed");
    }
}
