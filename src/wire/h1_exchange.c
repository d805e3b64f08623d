/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fiber of an HTTP/1 connection: it serves the request whose head was read, and then all that
 * were pipelined behind it. Between two of them it decides what becomes of the connection.
 */
#include "wire/h1_internal.h"

#include <errno.h>
#include <poll.h>

#include "loop/await.h"

#define DISCARD_NS (5 * NS_PER_S) /* how long the rest of a body is read away */

static const struct carrier_type wire_carrier;

/* --- one exchange --- */

static void fill_request(struct h1_scratch *s, const struct http_server *server)
{
    struct request *q = &s->x.req;
    const struct h1_head *h = &s->head;
    fields_init(&q->fields, &s->arena);
    for (unsigned i = 0; i < h->count; i++) {
        if (!h->fields[i].odd || field_wanted(server, h->fields[i].name))
            fields_add(&q->fields, h->fields[i].name, h->fields[i].value);
    }
    q->method = q->original_method = h->method;
    q->method_id = method_parse(h->method);
    q->target = h->target;
    q->host = q->original_host = h->host;
    q->scheme = s->x.tls != NULL ? SLICE("https") : SLICE("http");
    q->major = 1;
    q->minor = h->minor;
    q->upgrade = h->upgrade;
    q->has_body = h->body != H1_BODY_NONE;
    q->content_length = h->body == H1_BODY_CHUNKED ? -1 : (int64_t)h->content_length;
}

static void begin_exchange(struct h1_conn *c, const struct http_server *server,
                           struct generation *g)
{
    struct h1_scratch *s = c->scratch;
    struct exchange *x = &s->x;
    uint64_t now = loop_now_ns(c->worker->loop);
    memset(x, 0, sizeof *x);
    x->arena = &s->arena;
    x->carrier = &wire_carrier;
    x->tls = c->stream.tls;
    x->server = server;
    x->generation = g;
    x->worker = c->worker->worker;
    x->body_max = UINT64_MAX;
    x->start_ns = now;
    x->close_after = !s->head.keep_alive || h1_draining(c);
    x->res.content_length = -1;
    fields_init(&x->res.fields, &s->arena);
    fields_add(&x->res.fields, SLICE("Server"), SLICE("portico"));
    fill_request(s, server);
    s->conn = c;
    s->sink = (struct sink){.type = &h1_sink, .exchange = x};
    x->sink = &s->sink;
    buffer_clear(&s->out);
    s->pending = SLICE_NONE;
    chunked_init(&s->chunked);
    s->framing = s->head.body;
    s->body_left = s->head.content_length;
    s->body_done = s->framing == H1_BODY_NONE;
    s->expect_continue = s->head.expect_continue;
    s->chunked_out = s->wire_broken = s->out_ended = s->taken_over = s->has_trailers = false;
    s->deferred = false;
    s->at = s->head_len;
    s->hard_write_ns = server->write_timeout_ns > 0 ? now + server->write_timeout_ns : 0;
    s->hard_read_ns = server->read_timeout_ns > 0 ? s->begun_ns + server->read_timeout_ns : 0;
    s->reading = s->writing = (struct pace){0};
    s->unsent = 0;
}

static void serve_one(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    struct generation *g;
    const struct http_server *server = c->site->current(c->site, &g);
    begin_exchange(c, server, g);
    struct exchange *x = &s->x;
    H1_COUNT(c->worker->requests, 1);
    if (serve_exchange(x) != OK)
        s->wire_broken = true;
}

static void run_hooks(struct exchange *x)
{
    for (struct exchange_hook *h = x->hooks; h != NULL; h = h->next)
        h->run(x, h->arg);
    if (x->taken != NULL)
        x->taken->generation = x->generation; /* until it is let go of */
}

void h1_end_exchange(struct h1_conn *c)
{
    struct exchange *x = &c->scratch->x;
    run_hooks(x);
    if (x->taken == NULL)
        c->site->done(c->site, x->generation);
}

static void on_addresses(struct exchange *x)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    struct h1_conn *c = s->conn;
    struct sockaddr_storage a;
    peer_text(c->given != NULL ? &c->given->remote : peer_address(c->stream.fd, &c->peer_four, &a),
              s->remote_text, sizeof s->remote_text, s->remote_port);
    x->remote_host = slice_from(s->remote_text);
    x->remote_port = slice_from(s->remote_port);
}

static void on_local_addresses(struct exchange *x)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof a;
    if (s->conn->given != NULL)
        a = s->conn->given->local;
    else
        (void)!getsockname(s->conn->stream.fd, (struct sockaddr *)&a, &len);
    peer_text(&a, s->local_text, sizeof s->local_text, s->local_port);
    x->local_host = slice_from(s->local_text);
    x->local_port = slice_from(s->local_port);
}

/* --- the client's leaving --- */

static void on_left(struct op *op, int result)
{
    struct h1_conn *c = CONTAINER_OF(op, struct h1_conn, op);
    c->op.on_done = h1_on_bytes;
    if (c->unwatching)
        fiber_resume(c->fiber);
    else if (result != -ECANCELED)
        fiber_cancel(c->fiber, ERR_CLOSED);
}

/* A client that has sent more requests already is still there for their answers, and one whose body
 * is not all here is heard when it is read. */
static void on_watch(struct exchange *x, bool on)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    struct h1_conn *c = s->conn;
    if (on) {
        if (c->op.armed || s->at < s->len || !s->body_done ||
            (c->stream.tls != NULL && tls_stream_ready(c->stream.tls)))
            return;
        c->op.on_done = on_left;
        op_poll(c->worker->loop, &c->op, c->stream.fd, POLLRDHUP);
    } else if (c->op.armed) {
        c->unwatching = true;
        op_cancel(c->worker->loop, &c->op);
        fiber_suspend();
        c->unwatching = false;
    }
}

/* A reset; an end would stand behind what has not been read. */
static bool on_has_left(struct exchange *x)
{
    struct pollfd p = {.fd = CONTAINER_OF(x, struct h1_scratch, x)->conn->stream.fd};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

static const struct carrier_type wire_carrier = {
    .read_body = h1_read_body,
    .trailers = h1_trailers,
    .may_trail = h1_may_trail,
    .take_over = h1_take_over,
    .keep = h1_keep,
    .body_ready = h1_body_ready,
    .watch = on_watch,
    .has_left = on_has_left,
    .addresses = on_addresses,
    .local_addresses = on_local_addresses,
};

/* --- behind an exchange --- */

/* Reads away what the handler left of the body. False when that is too much or too slow. */
static bool discard_body(struct h1_scratch *s)
{
    char piece[4096];
    size_t n, total = 0;
    if (s->framing == H1_BODY_LENGTH && s->body_left > DISCARD_MAX)
        return false;
    uint64_t limit = loop_now_ns(s->conn->worker->loop) + DISCARD_NS;
    if (s->hard_read_ns == 0 || s->hard_read_ns > limit)
        s->hard_read_ns = limit;
    while (!s->body_done) {
        if (total > DISCARD_MAX || h1_read_body(&s->x, piece, sizeof piece, &n) != OK)
            return false;
        total += n;
    }
    return true;
}

enum h1_result h1_next_head(struct h1_scratch *s)
{
    size_t left = s->len - s->at;
    if (left > 0)
        memmove(s->in, s->in + s->at, left);
    s->at = 0;
    s->len = left;
    s->head_len = 0;
    s->begun_ns = loop_now_ns(s->conn->worker->loop);
    return left > 0 ? h1_parse_request(&s->head, slice_of(s->in, left), &s->head_len) : H1_MORE;
}

enum fate { FATE_KEEP, FATE_GOODBYE, FATE_CUT };

/* What becomes of the connection behind an exchange. */
static enum fate finish_exchange(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    bool keep = !s->wire_broken && !s->x.close_after && !h1_draining(c) &&
                c->fiber->cancelled == OK;
    if (keep && (!discard_body(s) || h1_draining(c))) /* discarding waits: a drain may begin */
        keep = false;
    arena_reset(&s->arena);
    if (keep)
        return FATE_KEEP;
    return s->wire_broken || s->taken_over || c->fiber->cancelled != OK ? FATE_CUT : FATE_GOODBYE;
}

/* Behind an exchange, on its fiber: the next head in what has come already. */
static enum h1_result find_next(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    enum h1_result r = h1_next_head(s);
    while (r == H1_MORE && c->stream.tls != NULL && tls_stream_ready(c->stream.tls) &&
           s->len < s->in_cap && h1_decrypt(c, SLICE_NONE) == TLS_OK)
        r = h1_parse_request(&s->head, slice_of(s->in, s->len), &s->head_len);
    return r;
}

/* The connection is a tunnel's now, which has armed its own operations. */
static void leave_to_holder(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    struct takeover *holder = s->x.taken;
    arena_reset(&s->arena);
    c->fiber = NULL;
    H1_COUNT(c->worker->busy, -1u);
    h1_leave_to(c, holder);
}

void h1_serve_all(void *arg)
{
    struct h1_conn *c = arg;
    enum h1_result r = H1_MORE;
    enum fate fate;
    int status = 0;
    c->fiber = fiber_self();
    do {
        serve_one(c);
        if (c->scratch->deferred) {
            h1_defer_flush(c);
            return;
        }
        run_hooks(&c->scratch->x);
        if (c->scratch->x.taken != NULL) {
            leave_to_holder(c);
            return;
        }
        fate = finish_exchange(c); /* reading its body away is by its server's limits */
        c->site->done(c->site, c->scratch->x.generation);
        if (fate == FATE_KEEP) {
            r = find_next(c);
            status = h1_refusal_of(c, r);
        }
    } while (fate == FATE_KEEP && r == H1_DONE && status == 0);
    if (fate == FATE_GOODBYE)
        (void)!stream_say_end(&c->stream, loop_now_ns(c->worker->loop) + LINGER_NS);
    c->fiber = NULL;
    H1_COUNT(c->worker->busy, -1u);
    if (fate == FATE_CUT)
        h1_close_now(c);
    else if (fate == FATE_GOODBYE)
        h1_begin_linger(c);
    else if (status > 0)
        h1_refuse(c, status);
    else
        h1_go_idle(c);
}
