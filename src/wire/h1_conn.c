/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP/1 connection has two lives. Idle, it is one small struct with an armed lent read and a
 * timer: no fiber, no stack, no buffer. When bytes come it takes a scratch (buffers, head, exchange,
 * arena) from its worker, and once a head is complete a fiber, which serves that request and all
 * that were pipelined behind it, and then lets go of both.
 *
 * The scratch's input buffer holds the head in hand at its front for the whole exchange, since the
 * request's slices point into it; body bytes come behind it. Responses are gathered so that head,
 * first data and end leave in one send. Where nothing else is left to do, that send is put off to
 * the end of the loop's turn and needs no fiber: the answers of a turn leave one behind the other,
 * which spares the caches and wakes a busy peer less often. What the client did not send to its end
 * is read away within limits after the answer, so that closing does not reset what is still on its
 * way to it.
 */
#include "wire/h1_internal.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "loop/await.h"
#include "wire/h2_conn.h"
#include "wire/proxy_stage.h"
#include "wire/tls_stage.h"

enum {
    ARENA_CHUNK = 8192,
    SCRATCH_KEEP = 256,       /* free ones kept per worker */
};
#define DISCARD_NS (5 * NS_PER_S) /* … and for how long */
#define LINGER_NS (2 * NS_PER_S)
#define FRESH_NS NS_PER_S         /* what a drain gives a client that has just connected */

static void on_bytes(struct op *op, int result);
static void on_early_bytes(struct h1_conn *c, uint64_t timeout_ns);
static void on_timer(struct timer *t);
static void serve_all(void *arg);
static void on_flush(struct task *t);
static void refuse(struct h1_conn *c, int status);
static const struct carrier_type wire_carrier;

/* --- the worker --- */

void h1_worker_init(struct h1_worker *w, struct loop *loop, struct worker *worker)
{
    *w = (struct h1_worker){.loop = loop, .worker = worker, .date_s = -1};
    list_init(&w->conns);
    list_init(&w->stages);
    list_init(&w->handshakes);
    list_init(&w->flushes);
    list_init(&w->flush.node);
    w->flush.run = on_flush;
    w->h2 = h2_worker_create(w);
}

static void free_scratch(struct h1_scratch *s)
{
    arena_deinit(&s->arena);
    buffer_deinit(&s->out);
    mem_free(s->in);
    mem_free(s);
}

void h1_worker_deinit(struct h1_worker *w)
{
    ASSERT(w->count == 0);
    h2_worker_free(w->h2);
    while (w->scratch != NULL) {
        struct h1_scratch *s = w->scratch;
        w->scratch = s->next;
        free_scratch(s);
    }
}

static struct h1_scratch *take_scratch(struct h1_worker *w, size_t in_cap)
{
    struct h1_scratch *s = w->scratch;
    if (s != NULL) {
        w->scratch = s->next;
        w->scratch_free--;
    } else {
        s = NEW(struct h1_scratch);
        arena_init(&s->arena, ARENA_CHUNK);
        buffer_init(&s->out, RESPONSE_HEAD_MAX);
    }
    if (s->in_cap < in_cap) {
        mem_free(s->in);
        s->in = mem_alloc(in_cap);
        s->in_cap = in_cap;
    }
    s->head_len = s->at = s->len = 0;
    return s;
}

static void give_scratch(struct h1_worker *w, struct h1_scratch *s)
{
    if (w->scratch_free >= SCRATCH_KEEP) {
        free_scratch(s);
        return;
    }
    s->next = w->scratch;
    w->scratch = s;
    w->scratch_free++;
}

/* Read by the control thread, written by this one only. */
#define COUNT(counter, step) __atomic_store_n(&(counter), (counter) + (step), __ATOMIC_RELAXED)

static void check_drained(struct h1_worker *w, struct h1_site *site)
{
    if (site != NULL && site->draining && site->count == 0 && site->on_empty != NULL)
        site->on_empty(site); /* the site may be gone behind this */
    if (w->draining && w->count == 0 && w->on_drained != NULL)
        w->on_drained(w);
}

/* --- opening, waiting, closing --- */

bool h1_draining(const struct h1_conn *c)
{
    return c->worker->draining || c->site->draining;
}

/* A timer that would fire too early stays where it is, so that a request moves none. */
static void set_deadline(struct h1_conn *c, uint64_t timeout_ns)
{
    struct loop *l = c->worker->loop;
    c->deadline_ns = timeout_ns > 0 ? loop_now_ns(l) + timeout_ns : UINT64_MAX;
    if (timeout_ns > 0 && (!timer_running(&c->timer) || c->timer.deadline_ns > c->deadline_ns))
        timer_start(l, &c->timer, c->deadline_ns);
}

static void wait_bytes(struct h1_conn *c, uint64_t timeout_ns)
{
    op_recv_lent(c->worker->loop, &c->op, c->stream.fd);
    set_deadline(c, timeout_ns);
}

void h1_conn_begin(struct h1_worker *w, struct h1_site *site, int fd, struct h1_addresses *given,
                   struct tls_stream *tls)
{
    uint64_t header_ns = site->server->read_header_timeout_ns;
    struct h1_conn *c = NEW(struct h1_conn);
    c->worker = w;
    c->site = site;
    c->stream = (struct stream){.fd = fd, .tls = tls};
    c->given = given;
    c->op.on_done = on_bytes;
    timer_init(&c->timer, on_timer);
    list_append(&w->conns, &c->node);
    c->fresh = c->first = true;
    uint64_t first_ns = header_ns > 0 ? header_ns : site->server->idle_timeout_ns;
    if (h1_draining(c))
        first_ns = FRESH_NS;
    if (tls != NULL && tls_stream_ready(tls))
        on_early_bytes(c, first_ns);
    else
        wait_bytes(c, first_ns);
}

bool h1_site_hurries(const struct h1_worker *w, const struct h1_site *site)
{
    return w->draining || site->draining;
}

void h1_conn_go_on(struct h1_worker *w, struct h1_site *site, int fd, struct h1_addresses *given)
{
    if (site->tls != NULL)
        tls_stage_open(w, site, fd, given, h1_site_hurries(w, site) ? FRESH_NS : 0);
    else
        h1_conn_begin(w, site, fd, given, NULL);
}

void h1_conn_open(struct h1_worker *w, struct h1_site *site, int fd)
{
    COUNT(w->count, 1);
    site->count++;
    if (site->server->proxy == NULL) {
        h1_conn_go_on(w, site, fd, NULL);
        return;
    }
    bool draining = h1_site_hurries(w, site);
    proxy_stage_open(w, site, site->server->proxy, fd); /* the site may be gone behind this */
    if (draining)
        proxy_stage_hurry(w, site, FRESH_NS);
}

void h1_uncount(struct h1_worker *w, struct h1_site *site)
{
    COUNT(w->count, -1u);
    site->count--;
    check_drained(w, site);
}

static void free_conn(struct h1_conn *c)
{
    ASSERT(!c->op.armed && c->fiber == NULL);
    timer_stop(&c->timer);
    if (c->scratch != NULL)
        give_scratch(c->worker, c->scratch);
    list_remove(&c->node);
    mem_free(c->given);
    mem_free(c);
}

static void close_now(struct h1_conn *c)
{
    struct h1_worker *w = c->worker;
    struct h1_site *site = c->site;
    tls_stream_free(c->stream.tls);
    if (c->stream.fd >= 0)
        loop_close(w->loop, c->stream.fd);
    free_conn(c);
    h1_uncount(w, site);
}

/* Closes a connection that has no fiber. */
static void close_idle(struct h1_conn *c)
{
    c->closing = true;
    if (c->scratch == NULL && c->stream.tls != NULL && !c->lingering)
        stream_shutdown(&c->stream); /* nothing is cut: the end is said */
    if (c->op.armed)
        op_cancel(c->worker->loop, &c->op);
    else if (c->scratch == NULL || !c->scratch->deferred) /* else on_flush closes it */
        close_now(c);
}

static uint64_t write_pause(const struct h1_conn *c)
{
    uint64_t now = loop_now_ns(c->worker->loop), deadline = h1_write_deadline(c->scratch);
    return deadline > now ? deadline - now : deadline > 0;
}

static void on_timer(struct timer *t)
{
    struct h1_conn *c = CONTAINER_OF(t, struct h1_conn, timer);
    if (c->fiber != NULL || c->deadline_ns == UINT64_MAX)
        return; /* the next wait starts it again */
    if (loop_now_ns(c->worker->loop) < c->deadline_ns)
        timer_start(c->worker->loop, t, c->deadline_ns);
    else if (c->scratch != NULL && !c->scratch->deferred && !c->closing)
        refuse(c, 408); /* in the middle of a head */
    else if (c->scratch != NULL && !c->closing && h1_still_takes(c->scratch, ERR_TIMEOUT))
        set_deadline(c, write_pause(c));
    else
        close_idle(c);
}

/* Those of one site, or with NULL all of them. One that has only just come may have its request on
 * the way, and a last answer is still on its own. */
static void close_idle_ones(struct h1_worker *w, const struct h1_site *site)
{
    proxy_stage_hurry(w, site, FRESH_NS);
    h2_drain(w, site);
    tls_stage_hurry(w, site, FRESH_NS);
    LIST_FOR_SAFE(n, &w->conns)
    {
        struct h1_conn *c = CONTAINER_OF(n, struct h1_conn, node);
        if (c->scratch != NULL || c->lingering || (site != NULL && c->site != site))
            continue;
        if (c->fresh)
            set_deadline(c, FRESH_NS);
        else
            close_idle(c);
    }
}

void h1_worker_drain(struct h1_worker *w)
{
    w->draining = true;
    close_idle_ones(w, NULL);
    check_drained(w, NULL);
}

void h1_site_drain(struct h1_worker *w, struct h1_site *site)
{
    site->draining = true;
    if (site->count == 0) {
        check_drained(w, site);
        return;
    }
    close_idle_ones(w, site);
}

void h1_worker_abort(struct h1_worker *w)
{
    proxy_stage_abort(w);
    h2_abort(w);
    tls_stage_abort(w);
    LIST_FOR_SAFE(n, &w->conns)
    {
        struct h1_conn *c = CONTAINER_OF(n, struct h1_conn, node);
        if (c->fiber != NULL)
            fiber_cancel(c->fiber, ERR_CANCELLED);
        else
            close_idle(c);
    }
}

/* --- lingering --- */

/* Told the end, a client may still be sending: a close with unread bytes would reset the connection
 * and could destroy the answer before it is read. So they are taken for a while, without a fiber. */
static void begin_linger(struct h1_conn *c)
{
    char piece[4096];
    ssize_t n = 0;
    if (c->stream.tls != NULL)
        stream_shutdown(&c->stream);
    else
        n = shutdown(c->stream.fd, SHUT_WR);
    if (c->scratch != NULL)
        give_scratch(c->worker, c->scratch);
    c->scratch = NULL;
    c->lingering = true;
    c->linger_left = DISCARD_MAX;
    if (n == 0 && !c->op.armed) { /* most have said their end already */
        do
            n = recv(c->stream.fd, piece, sizeof piece, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n > 0 || (n < 0 && errno == EAGAIN)) {
            wait_bytes(c, LINGER_NS);
            return;
        }
    }
    if (n == 0 && c->op.armed)
        set_deadline(c, LINGER_NS);
    else
        close_idle(c);
}

static void go_on_lingering(struct h1_conn *c, size_t n)
{
    if (n >= c->linger_left) {
        close_now(c);
        return;
    }
    c->linger_left -= (uint32_t)n;
    op_recv_lent(c->worker->loop, &c->op, c->stream.fd);
}

/* --- heads --- */

static int refusal_status(enum h1_result r)
{
    switch (r) {
    case H1_TOO_LARGE:
        return 431;
    case H1_VERSION:
        return 505;
    case H1_CODING:
    case H1_METHOD:
        return 501;
    case H1_EXPECT:
        return 417;
    default:
        return 400;
    }
}

/* The request line did not even end within the limit, or the fields did not. */
static int too_large(const struct h1_scratch *s, uint32_t head_max)
{
    size_t skip = s->len > 2 && s->in[0] == '\r' ? 2 : 0;
    size_t n = s->len < head_max ? s->len : head_max;
    return memchr(s->in + skip, '\n', n > skip ? n - skip : 0) != NULL ? 431 : 414;
}

/* Without a fiber: sent if the socket takes it at once, which it does but for a hostile peer. */
static void refuse(struct h1_conn *c, int status)
{
    struct buffer *out = &c->scratch->out;
    if (log_wants(LOG_DEBUG))
        LOG(LOG_DEBUG, "http", "request refused", LOG_NUM("status", status),
            LOG_CSTR("reason", status == 400 && c->scratch->head.bad != NULL ? c->scratch->head.bad
                                                                             : status_text(status)));
    h1_put_refusal(out, status);
    stream_send_now(&c->stream, buffer_slice(out));
    begin_linger(c);
}

/* The parser's word, with the limits that it does not know. */
static int refusal_of(const struct h1_conn *c, enum h1_result r)
{
    const struct h1_scratch *s = c->scratch;
    uint32_t head_max = c->site->server->max_header_bytes;
    if ((r == H1_MORE && s->len > head_max) ||
        (r == H1_DONE && (s->head_len > head_max || s->head_len > s->in_cap - BODY_ROOM)))
        return too_large(s, head_max);
    return r == H1_MORE || r == H1_DONE ? 0 : refusal_status(r);
}

/* RFC 7540 §3.2. True: the connection has gone on without this one. */
static bool upgrade_to_h2(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    struct h1_addresses *given = c->given;
    char room[H2_SETTINGS_ROOM];
    struct buffer settings = {.ptr = room, .cap = sizeof room, .max = sizeof room};
    if (s->head.upgrade.len == 0 || c->stream.tls != NULL ||
        (c->site->protocols & HTTP_2_CLEAR) == 0 ||
        !h2_upgrade_asked(&s->head, &settings))
        return false;
    c->given = NULL;
    h2_conn_upgrade(c->worker, c->site, c->stream.fd, given, &s->head, buffer_slice(&settings),
                    slice_of(s->in + s->head_len, s->len - s->head_len));
    free_conn(c);
    return true;
}

/* How long a head may take: read_timeout counts from its first byte, too. */
static uint64_t head_timeout(const struct http_server *server)
{
    uint64_t head = server->read_header_timeout_ns, all = server->read_timeout_ns;
    return head == 0 || (all > 0 && all < head) ? all : head;
}

static void on_head(struct h1_conn *c, enum h1_result r, bool begins)
{
    int status = refusal_of(c, r);
    if (status > 0) {
        refuse(c, status);
        return;
    }
    if (r == H1_MORE) { /* the deadline counts from the head's first byte */
        if (c->stream.tls != NULL)
            stream_push(&c->stream);
        op_recv_lent(c->worker->loop, &c->op, c->stream.fd);
        if (begins)
            set_deadline(c, head_timeout(c->site->server));
        return;
    }
    if (upgrade_to_h2(c))
        return;
    c->deadline_ns = UINT64_MAX;
    c->first = false;
    COUNT(c->worker->busy, 1);
    if (fiber_start(c->worker->loop, serve_all, c) != OK) {
        COUNT(c->worker->busy, -1u);
        refuse(c, 503);
    }
}

/* It goes on with its socket, what has come and the place among those that are counted. */
static void become_h2(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    struct h1_addresses *given = c->given;
    c->given = NULL;
    h2_conn_begin(c->worker, c->site, c->stream.fd, given, NULL, slice_of(s->in, s->len));
    free_conn(c);
}

/* Whether the first bytes are those of HTTP/2 "with prior knowledge" (RFC 9113 §3.3). */
static enum h1_result look_for_h2(const struct h1_conn *c)
{
    const struct h1_scratch *s = c->scratch;
    size_t n = h2_preface_match(slice_of(s->in, s->len));
    if ((c->site->protocols & HTTP_2_CLEAR) == 0 || !c->first || n == 0)
        return H1_BAD;
    return n < H2_PREFACE_LEN ? H1_MORE : H1_DONE;
}

static void take_scratch_for(struct h1_conn *c)
{
    c->scratch = take_scratch(c->worker,
                              (size_t)c->site->server->max_header_bytes + BODY_ROOM + 1024);
    c->scratch->begun_ns = loop_now_ns(c->worker->loop);
}

/* Behind new bytes in the input: a head, perhaps. */
static void look_for_head(struct h1_conn *c, bool begins)
{
    struct h1_scratch *s = c->scratch;
    enum h1_result r = h1_parse_request(&s->head, slice_of(s->in, s->len), &s->head_len);
    on_head(c, r, begins);
}

/* Of clear text. */
static void look_for_protocol(struct h1_conn *c, bool begins)
{
    switch (look_for_h2(c)) {
    case H1_DONE:
        become_h2(c);
        break;
    case H1_MORE:
        on_head(c, H1_MORE, begins);
        break;
    default:
        look_for_head(c, begins);
    }
}

/* Plaintext from ciphertext that has just come, or from what was there. Not OK: none. */
static enum tls_step decrypt(struct h1_conn *c, struct slice ciphertext)
{
    struct h1_scratch *s = c->scratch;
    struct tls_stream *tls = c->stream.tls;
    size_t n;
    if (ciphertext.len > 0)
        tls_stream_feed(tls, ciphertext);
    enum tls_step step = tls_stream_read(tls, s->in + s->len, s->in_cap - s->len, &n);
    tls_stream_keep(tls);
    s->len += n;
    if (step != TLS_OK) /* else it leaves with the answer */
        stream_push(&c->stream);
    return step;
}

/* The peer has said its end, or nothing that it says can be read any more. */
static void end_encrypted(struct h1_conn *c, enum tls_step step)
{
    if (step == TLS_END)
        stream_shutdown(&c->stream);
    close_now(c);
}

static void on_encrypted(struct h1_conn *c, struct slice ciphertext, bool begins)
{
    if (begins)
        take_scratch_for(c);
    enum tls_step step = decrypt(c, ciphertext);
    if (step == TLS_OK && c->scratch->len == c->scratch->in_cap &&
        refusal_of(c, H1_MORE) > 0) { /* a head beyond its limit by far */
        refuse(c, too_large(c->scratch, c->site->server->max_header_bytes));
    } else if (step == TLS_OK) {
        look_for_head(c, begins);
    } else if (step == TLS_MORE) { /* the rest of a record is to come */
        if (begins) {
            give_scratch(c->worker, c->scratch);
            c->scratch = NULL;
        }
        op_recv_lent(c->worker->loop, &c->op, c->stream.fd);
    } else {
        end_encrypted(c, step);
    }
}

/* What came with the handshake, or behind the last request, off fibers. */
static void on_early_bytes(struct h1_conn *c, uint64_t timeout_ns)
{
    set_deadline(c, timeout_ns);
    c->fresh = false;
    on_encrypted(c, SLICE_NONE, c->scratch == NULL);
}

static void on_bytes(struct op *op, int result)
{
    struct h1_conn *c = CONTAINER_OF(op, struct h1_conn, op);
    bool begins = c->scratch == NULL;
    if (result <= 0 || c->closing) {
        close_now(c);
        return;
    }
    if (c->lingering) {
        go_on_lingering(c, (size_t)result);
        return;
    }
    c->fresh = false;
    if (c->stream.tls != NULL) {
        on_encrypted(c, op->lent, begins);
        return;
    }
    if (begins)
        take_scratch_for(c);
    struct h1_scratch *s = c->scratch;
    if (op->lent.len > s->in_cap - s->len) { /* a head beyond its limit by far */
        refuse(c, too_large(s, c->site->server->max_header_bytes));
        return;
    }
    memcpy(s->in + s->len, op->lent.ptr, op->lent.len);
    s->len += op->lent.len;
    look_for_protocol(c, begins);
}

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
    COUNT(c->worker->requests, 1);
    if (serve_exchange(x) != OK)
        s->wire_broken = true;
}

static void end_exchange(struct h1_conn *c)
{
    struct exchange *x = &c->scratch->x;
    for (struct exchange_hook *h = x->hooks; h != NULL; h = h->next)
        h->run(x, h->arg);
    c->site->done(c->site, x->generation);
}

/* The peer's address stays what it is as long as the connection: asked for once, kept in binary. */
static const struct sockaddr_storage *peer_of(struct h1_conn *c, struct sockaddr_storage *a)
{
    struct sockaddr_in *four = (void *)a;
    socklen_t len = sizeof *a;
    if (c->given != NULL)
        return &c->given->remote;
    memset(a, 0, sizeof *four);
    if (c->peer_four.sin_family == AF_INET) {
        *four = c->peer_four;
        return a;
    }
    memset(a, 0, sizeof *a);
    (void)!getpeername(c->stream.fd, (struct sockaddr *)a, &len);
    if (a->ss_family == AF_INET)
        c->peer_four = *four;
    return a;
}

static void on_addresses(struct exchange *x)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    struct sockaddr_storage a;
    peer_text(peer_of(s->conn, &a), s->remote_text, sizeof s->remote_text, s->remote_port);
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
    c->op.on_done = on_bytes;
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

static const struct carrier_type wire_carrier = {
    .read_body = h1_read_body,
    .trailers = h1_trailers,
    .take_over = h1_take_over,
    .body_ready = h1_body_ready,
    .watch = on_watch,
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

/* Moves what was pipelined to the front; true when it holds a whole next head. */
static enum h1_result next_head(struct h1_scratch *s)
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

static void go_idle(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    const struct http_server *server = c->site->server;
    if (s->len == 0) {
        c->scratch = NULL;
        give_scratch(c->worker, s);
    }
    uint64_t timeout_ns = c->scratch == NULL ? server->idle_timeout_ns : head_timeout(server);
    if (c->stream.tls != NULL && fiber_self() == NULL && tls_stream_ready(c->stream.tls))
        on_early_bytes(c, timeout_ns); /* it was pipelined */
    else
        wait_bytes(c, timeout_ns);
}

/* --- answers that leave at the turn's end --- */

static void finish_flush(struct h1_conn *c, bool sent)
{
    struct h1_scratch *s = c->scratch;
    s->deferred = false;
    s->wire_broken = !sent;
    c->op.on_done = on_bytes;
    end_exchange(c);
    arena_reset(&s->arena);
    buffer_clear(&s->out);
    COUNT(c->worker->busy, -1u);
    if (!sent || c->closing) {
        close_now(c);
    } else if (h1_draining(c)) { /* it began behind the head */
        begin_linger(c);
    } else {
        (void)next_head(s); /* empties the input: nothing was pipelined */
        go_idle(c);
    }
}

/* True when all has left; what has not is in flush_message. */
static bool skip_flushed(struct h1_scratch *s, size_t n)
{
    struct msghdr *m = &s->flush_message;
    if (s->conn->stream.tls != NULL)
        tls_stream_sent(s->conn->stream.tls, n);
    h1_wrote(s, n);
    for (; m->msg_iovlen > 0 && n >= m->msg_iov->iov_len; m->msg_iov++, m->msg_iovlen--)
        n -= m->msg_iov->iov_len;
    if (m->msg_iovlen == 0)
        return true;
    m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + n;
    m->msg_iov->iov_len -= n;
    return false;
}

static void go_on_flushing(struct h1_conn *c)
{
    op_send(c->worker->loop, &c->op, c->stream.fd, &c->scratch->flush_message, 0);
    set_deadline(c, write_pause(c));
}

static void on_flushed(struct op *op, int result)
{
    struct h1_conn *c = CONTAINER_OF(op, struct h1_conn, op);
    struct h1_scratch *s = c->scratch;
    if (result < 0 || c->closing)
        finish_flush(c, false);
    else if (skip_flushed(s, (size_t)result))
        finish_flush(c, true);
    else
        go_on_flushing(c);
}

static void flush_answer(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    h1_gather(s);
    bool broken = c->closing || (c->stream.tls != NULL && !h1_encrypt(s));
    ssize_t n = broken ? -ECANCELED : send_now(c->stream.fd, &s->flush_message, 0);
    if (n < 0 && n != -EAGAIN) {
        finish_flush(c, false);
        return;
    }
    if (skip_flushed(s, n > 0 ? (size_t)n : 0)) {
        finish_flush(c, true);
        return;
    }
    c->op.on_done = on_flushed;
    go_on_flushing(c);
}

static void on_flush(struct task *t)
{
    struct h1_worker *w = CONTAINER_OF(t, struct h1_worker, flush);
    for (struct list *n; (n = list_pop(&w->flushes)) != NULL;)
        flush_answer(CONTAINER_OF(n, struct h1_scratch, flush)->conn);
}

static void defer_flush(struct h1_conn *c)
{
    struct h1_worker *w = c->worker;
    c->fiber = NULL;
    if (list_empty(&w->flush.node))
        loop_defer(w->loop, &w->flush);
    list_append(&w->flushes, &c->scratch->flush);
}

/* Behind an exchange, on its fiber: the next head in what has come already. */
static enum h1_result find_next(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    enum h1_result r = next_head(s);
    while (r == H1_MORE && c->stream.tls != NULL && tls_stream_ready(c->stream.tls) &&
           s->len < s->in_cap && decrypt(c, SLICE_NONE) == TLS_OK)
        r = h1_parse_request(&s->head, slice_of(s->in, s->len), &s->head_len);
    return r;
}

static void serve_all(void *arg)
{
    struct h1_conn *c = arg;
    enum h1_result r = H1_MORE;
    enum fate fate;
    int status = 0;
    c->fiber = fiber_self();
    do {
        serve_one(c);
        if (c->scratch->deferred) {
            defer_flush(c);
            return;
        }
        end_exchange(c);
        fate = finish_exchange(c);
        if (fate == FATE_KEEP) {
            r = find_next(c);
            status = refusal_of(c, r);
        }
    } while (fate == FATE_KEEP && r == H1_DONE && status == 0);
    if (fate == FATE_GOODBYE)
        (void)!stream_say_end(&c->stream, loop_now_ns(c->worker->loop) + LINGER_NS);
    c->fiber = NULL;
    COUNT(c->worker->busy, -1u);
    if (fate == FATE_CUT)
        close_now(c);
    else if (fate == FATE_GOODBYE)
        begin_linger(c);
    else if (status > 0)
        refuse(c, status);
    else
        go_idle(c);
}
