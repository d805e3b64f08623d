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
#include "wire/h1_conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/uri.h"
#include "loop/await.h"
#include "wire/chunked.h"
#include "wire/h1_head.h"

enum {
    ARENA_CHUNK = 8192,
    BODY_ROOM = 16384,        /* of the input buffer, behind the largest head */
    SCRATCH_KEEP = 256,       /* free ones kept per worker */
    RESPONSE_HEAD_MAX = 65536,
    DISCARD_MAX = 256 * 1024, /* of a body that nobody read */
    TRAILERS_MAX = 32,
    GATHER_MAX = 1024,        /* body bytes that are copied behind the head */
    ADDRESS_TEXT = INET6_ADDRSTRLEN + 1 + IF_NAMESIZE, /* "fe80::1%eth0" */
    DEFER_MAX = 32 * 1024,    /* of an answer that is sent at the turn's end */
};
#define LINGER_NS (2 * NS_PER_S)

struct h1_scratch {
    struct h1_scratch *next;
    struct h1_conn *conn;
    char *in;            /* in[0 … head_len): the head; in[at … len): not yet used */
    size_t in_cap, head_len, at, len;
    struct buffer out;   /* the response's head, and chunk lines */
    struct slice pending; /* stable body bytes that wait for the end */
    struct arena arena;
    struct exchange x;
    struct sink sink;
    struct chunked chunked;
    uint64_t body_left;  /* of a body with a length */
    uint64_t hard_write_ns, hard_read_ns; /* 0: none */
    enum h1_body framing;
    bool chunked_out, body_done, expect_continue, wire_broken, out_ended, taken_over;
    bool deferred;       /* the whole answer is gathered; the fiber has ended */
    struct list flush;
    struct msghdr flush_message;
    struct iovec flush_parts[2];
    struct fields trailers;
    bool has_trailers;
    char remote_text[ADDRESS_TEXT], local_text[ADDRESS_TEXT];
    char remote_port[8], local_port[8];
    struct h1_head head;
};

struct h1_conn {
    struct list node;
    struct op op;
    struct timer timer;
    struct h1_worker *worker;
    struct h1_site *site;
    struct h1_scratch *scratch; /* NULL: idle */
    struct fiber *fiber;        /* the one that serves, or NULL */
    uint64_t deadline_ns;       /* when the wait in hand ends; the timer may fire before and looks */
    int fd;
    bool closing;
};

static void on_bytes(struct op *op, int result);
static void on_timer(struct timer *t);
static void serve_all(void *arg);
static void on_flush(struct task *t);
static const struct sink_type wire_sink;
static const struct carrier_type wire_carrier;

/* --- the worker --- */

void h1_worker_init(struct h1_worker *w, struct loop *loop, struct worker *worker)
{
    *w = (struct h1_worker){.loop = loop, .worker = worker, .date_s = -1};
    list_init(&w->conns);
    list_init(&w->flushes);
    w->flush.run = on_flush;
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

static void check_drained(struct h1_worker *w, struct h1_site *site)
{
    if (site != NULL && site->draining && site->count == 0 && site->on_empty != NULL)
        site->on_empty(site); /* the site may be gone behind this */
    if (w->draining && w->count == 0 && w->on_drained != NULL)
        w->on_drained(w);
}

/* --- opening, waiting, closing --- */

static bool is_draining(const struct h1_conn *c)
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
    op_recv_lent(c->worker->loop, &c->op, c->fd);
    set_deadline(c, timeout_ns);
}

void h1_conn_open(struct h1_worker *w, struct h1_site *site, int fd)
{
    uint64_t header_ns = site->server->read_header_timeout_ns;
    struct h1_conn *c = NEW(struct h1_conn);
    c->worker = w;
    c->site = site;
    c->fd = fd;
    c->op.on_done = on_bytes;
    timer_init(&c->timer, on_timer);
    list_append(&w->conns, &c->node);
    w->count++;
    site->count++;
    wait_bytes(c, header_ns > 0 ? header_ns : site->server->idle_timeout_ns);
}

static void close_now(struct h1_conn *c)
{
    struct h1_worker *w = c->worker;
    ASSERT(!c->op.armed && c->fiber == NULL);
    timer_stop(&c->timer);
    if (c->scratch != NULL)
        give_scratch(w, c->scratch);
    if (c->fd >= 0)
        loop_close(w->loop, c->fd);
    struct h1_site *site = c->site;
    list_remove(&c->node);
    w->count--;
    site->count--;
    mem_free(c);
    check_drained(w, site);
}

/* Closes a connection that has no fiber. */
static void close_idle(struct h1_conn *c)
{
    c->closing = true;
    if (c->op.armed)
        op_cancel(c->worker->loop, &c->op);
    else if (c->scratch == NULL || !c->scratch->deferred) /* else on_flush closes it */
        close_now(c);
}

static void on_timer(struct timer *t)
{
    struct h1_conn *c = CONTAINER_OF(t, struct h1_conn, timer);
    if (c->fiber != NULL || c->deadline_ns == UINT64_MAX)
        return; /* the next wait starts it again */
    if (loop_now_ns(c->worker->loop) < c->deadline_ns)
        timer_start(c->worker->loop, t, c->deadline_ns);
    else
        close_idle(c);
}

/* Those of one site, or with NULL all of them. */
static void close_idle_ones(struct h1_worker *w, const struct h1_site *site)
{
    LIST_FOR_SAFE(n, &w->conns)
    {
        struct h1_conn *c = CONTAINER_OF(n, struct h1_conn, node);
        if (c->scratch == NULL && (site == NULL || c->site == site))
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
    LIST_FOR_SAFE(n, &w->conns)
    {
        struct h1_conn *c = CONTAINER_OF(n, struct h1_conn, node);
        if (c->fiber != NULL)
            fiber_cancel(c->fiber, ERR_CANCELLED);
        else
            close_idle(c);
    }
}

/* --- heads --- */

/* A last word to a client whose request cannot be served; the connection closes behind it. */
static void put_refusal(struct buffer *out, int status)
{
    const char *text = status_text(status);
    buffer_clear(out);
    (void)!buffer_append_f(out,
                           "HTTP/1.1 %d %s\r\nServer: portico\r\nContent-Type: text/plain; "
                           "charset=utf-8\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%d %s",
                           status, text, strlen(text) + 4, status, text);
}

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

/* Without a fiber: sent if the socket takes it at once, which it does but for a hostile peer. */
static void refuse(struct h1_conn *c, int status)
{
    struct buffer *out = &c->scratch->out;
    put_refusal(out, status);
    (void)!send(c->fd, out->ptr, out->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    shutdown(c->fd, SHUT_WR);
    close_idle(c);
}

static void on_head(struct h1_conn *c, enum h1_result r, bool begins)
{
    struct h1_scratch *s = c->scratch;
    uint32_t head_max = c->site->server->max_header_bytes;
    if ((r == H1_MORE && s->len > head_max) || (r == H1_DONE && s->head_len > head_max))
        r = H1_TOO_LARGE;
    if (r == H1_MORE) { /* the deadline counts from the head's first byte */
        op_recv_lent(c->worker->loop, &c->op, c->fd);
        if (begins)
            set_deadline(c, c->site->server->read_header_timeout_ns);
        return;
    }
    if (r != H1_DONE) {
        refuse(c, refusal_status(r));
        return;
    }
    c->worker->busy++;
    if (fiber_start(c->worker->loop, serve_all, c) != OK) {
        c->worker->busy--;
        refuse(c, 503);
    }
}

static void on_bytes(struct op *op, int result)
{
    struct h1_conn *c = CONTAINER_OF(op, struct h1_conn, op);
    bool begins = c->scratch == NULL;
    if (result <= 0 || c->closing) {
        close_now(c);
        return;
    }
    if (begins)
        c->scratch = take_scratch(c->worker,
                                  (size_t)c->site->server->max_header_bytes + BODY_ROOM + 1024);
    struct h1_scratch *s = c->scratch;
    if (op->lent.len > s->in_cap - s->len) { /* a head beyond its limit by far */
        refuse(c, 431);
        return;
    }
    memcpy(s->in + s->len, op->lent.ptr, op->lent.len);
    s->len += op->lent.len;
    enum h1_result r = h1_parse_request(&s->head, slice_of(s->in, s->len), &s->head_len);
    on_head(c, r, begins);
}

/* --- one exchange --- */

/* A link-local address means something on its link only. */
static void put_zone(const struct sockaddr_in6 *a, char *host, size_t cap)
{
    char name[IF_NAMESIZE];
    size_t len = strlen(host);
    if (a->sin6_scope_id == 0)
        return;
    if (if_indextoname(a->sin6_scope_id, name) != NULL)
        snprintf(host + len, cap - len, "%%%s", name);
    else
        snprintf(host + len, cap - len, "%%%u", a->sin6_scope_id);
}

static void text_of(const struct sockaddr_storage *a, char *host, size_t cap, char port[8])
{
    const struct sockaddr_in *four = (const void *)a;
    const struct sockaddr_in6 *six = (const void *)a;
    struct in_addr mapped;
    host[0] = port[0] = '\0';
    if (a->ss_family == AF_INET) {
        inet_ntop(AF_INET, &four->sin_addr, host, (socklen_t)cap);
        snprintf(port, 8, "%u", ntohs(four->sin_port));
    } else if (a->ss_family == AF_INET6) {
        snprintf(port, 8, "%u", ntohs(six->sin6_port));
        if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
            memcpy(&mapped, six->sin6_addr.s6_addr + 12, 4);
            inet_ntop(AF_INET, &mapped, host, (socklen_t)cap);
        } else {
            inet_ntop(AF_INET6, &six->sin6_addr, host, (socklen_t)cap);
            put_zone(six, host, cap);
        }
    } else {
        snprintf(host, cap, "@");
    }
}

static bool named_in(const struct slice *names, size_t count, struct slice name)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq_nocase(names[i], name))
            return true;
    }
    return false;
}

/* Names with '_' or '.' could pass for others behind a gateway (CGI makes '_' of '-'). */
static bool wanted_field(const struct http_server *server, struct slice name)
{
    if (memchr(name.ptr, '_', name.len) != NULL &&
        !named_in(server->underscore_headers, server->underscore_count, name))
        return false;
    return memchr(name.ptr, '.', name.len) == NULL ||
           named_in(server->dot_headers, server->dot_count, name);
}

static void fill_request(struct h1_scratch *s, const struct http_server *server)
{
    struct request *q = &s->x.req;
    const struct h1_head *h = &s->head;
    fields_init(&q->fields, &s->arena);
    for (unsigned i = 0; i < h->count; i++) {
        if (wanted_field(server, h->fields[i].name))
            fields_add(&q->fields, h->fields[i].name, h->fields[i].value);
    }
    q->method = q->original_method = h->method;
    q->method_id = method_parse(h->method);
    q->target = h->target;
    q->host = q->original_host = h->host;
    q->scheme = SLICE("http");
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
    x->server = server;
    x->generation = g;
    x->worker = c->worker->worker;
    x->body_max = UINT64_MAX;
    x->start_ns = now;
    x->close_after = !s->head.keep_alive || is_draining(c);
    x->res.content_length = -1;
    fields_init(&x->res.fields, &s->arena);
    fields_add(&x->res.fields, SLICE("Server"), SLICE("portico"));
    fill_request(s, server);
    s->conn = c;
    s->sink = (struct sink){.type = &wire_sink, .exchange = x};
    x->sink = &s->sink;
    buffer_clear(&s->out);
    s->pending = SLICE_NONE;
    chunked_init(&s->chunked);
    s->framing = s->head.body;
    s->body_left = s->head.content_length;
    s->body_done = s->framing == H1_BODY_NONE;
    s->expect_continue = s->head.expect_continue;
    s->deferred = s->chunked_out = s->wire_broken = s->out_ended = s->taken_over = s->has_trailers = false;
    s->at = s->head_len;
    s->hard_write_ns = server->write_timeout_ns > 0 ? now + server->write_timeout_ns : 0;
    s->hard_read_ns = server->read_timeout_ns > 0 ? now + server->read_timeout_ns : 0;
}

static void serve_one(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    struct generation *g;
    struct slice authority;
    const struct http_server *server = c->site->current(c->site, &g);
    begin_exchange(c, server, g);
    struct exchange *x = &s->x;
    c->worker->requests++;
    if (x->req.method_id == METHOD_CONNECT ||
        uri_parse(x->req.target, &x->req.uri, &authority, x->arena) != OK) {
        x->req.uri = (struct uri){.path = SLICE("/"), .raw_path = SLICE("/")};
        x->close_after = true;
        x->res.content_length = 0;
        x->res.status = x->req.method_id == METHOD_CONNECT ? 405 : 400;
        if (exchange_end(x) != OK)
            s->wire_broken = true;
    } else {
        x->req.original_uri = x->req.uri;
        http_server_serve(server, x);
    }
}

static void end_exchange(struct h1_conn *c)
{
    struct exchange *x = &c->scratch->x;
    for (struct exchange_hook *h = x->hooks; h != NULL; h = h->next)
        h->run(x, h->arg);
    c->site->done(c->site, x->generation);
}

/* --- the request's body --- */

static uint64_t read_deadline(const struct h1_scratch *s)
{
    uint64_t idle = s->x.server->read_idle_timeout_ns;
    uint64_t soft = idle > 0 ? loop_now_ns(s->conn->worker->loop) + idle : 0;
    return soft == 0 || (s->hard_read_ns > 0 && s->hard_read_ns < soft) ? s->hard_read_ns : soft;
}

static uint64_t write_deadline(const struct h1_scratch *s)
{
    uint64_t idle = s->x.server->write_idle_timeout_ns;
    uint64_t soft = idle > 0 ? loop_now_ns(s->conn->worker->loop) + idle : 0;
    return soft == 0 || (s->hard_write_ns > 0 && s->hard_write_ns < soft) ? s->hard_write_ns : soft;
}

static enum err broken(struct h1_scratch *s, enum err e)
{
    s->wire_broken = true;
    s->x.close_after = true;
    return e;
}

static enum err say_continue(struct h1_scratch *s)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec v = {(char *)(uintptr_t)text, sizeof text - 1};
    size_t sent;
    s->expect_continue = false;
    if (s->x.res.head_sent)
        return OK;
    return await_send(s->conn->fd, &v, 1, 0, write_deadline(s), &sent);
}

/* More bytes behind the head; all earlier ones are used up. */
static enum err refill(struct h1_scratch *s)
{
    size_t n;
    ASSERT(s->at == s->len);
    s->at = s->len = s->head_len;
    TRY(await_recv(s->conn->fd, s->in + s->len, s->in_cap - s->len, read_deadline(s), &n));
    s->len += n;
    return n > 0 ? OK : ERR_CLOSED;
}

static enum err read_length(struct h1_scratch *s, char *buf, size_t cap, size_t *n)
{
    if (cap > s->body_left)
        cap = (size_t)s->body_left;
    if (s->at < s->len) {
        *n = s->len - s->at < cap ? s->len - s->at : cap;
        memcpy(buf, s->in + s->at, *n);
        s->at += *n;
    } else {
        TRY(await_recv(s->conn->fd, buf, cap, read_deadline(s), n));
        if (*n == 0)
            return ERR_CLOSED;
    }
    s->body_left -= *n;
    s->body_done = s->body_left == 0;
    return OK;
}

static void keep_trailers(struct h1_scratch *s, const struct h1_field *fields, unsigned count)
{
    static const char *const forbidden[] = {"Content-Length", "Transfer-Encoding", "Host",
                                            "Trailer", "Connection", "Content-Type",
                                            "Authorization", "Cookie", "Content-Encoding", NULL};
    fields_init(&s->trailers, &s->arena);
    for (unsigned i = 0; i < count; i++) {
        const char *const *f = forbidden;
        while (*f != NULL && !slice_eq_nocase(fields[i].name, slice_from(*f)))
            f++;
        if (*f == NULL)
            fields_add(&s->trailers, arena_copy(&s->arena, fields[i].name),
                       arena_copy(&s->arena, fields[i].value));
    }
    s->has_trailers = s->trailers.count > 0;
}

static enum err read_trailers(struct h1_scratch *s)
{
    struct h1_field fields[TRAILERS_MAX];
    for (;;) {
        unsigned count;
        size_t used, left = s->len - s->at;
        const char *why;
        enum h1_result r = h1_parse_trailers(fields, TRAILERS_MAX, &count,
                                             slice_of(s->in + s->at, left), &used, &why);
        if (r == H1_DONE) {
            keep_trailers(s, fields, count);
            s->at += used;
            s->body_done = true;
            return OK;
        }
        if (r != H1_MORE)
            return ERR_INVALID;
        memmove(s->in + s->head_len, s->in + s->at, left);
        s->at = s->head_len;
        s->len = s->at + left;
        if (left > BODY_ROOM / 2)
            return ERR_LIMIT;
        TRY(await_recv(s->conn->fd, s->in + s->len, s->in_cap - s->len, read_deadline(s), &used));
        if (used == 0)
            return ERR_CLOSED;
        s->len += used;
    }
}

static enum err read_chunked(struct h1_scratch *s, char *buf, size_t cap, size_t *n)
{
    for (;;) {
        struct slice in = slice_of(s->in + s->at, s->len - s->at), data;
        const char *start = in.ptr;
        enum chunked_event e = chunked_next(&s->chunked, &in, cap, &data);
        s->at += (size_t)(in.ptr - start);
        if (e == CHUNKED_BAD)
            return ERR_INVALID;
        if (e == CHUNKED_LAST)
            return read_trailers(s);
        if (e == CHUNKED_DATA) {
            memcpy(buf, data.ptr, data.len);
            *n = data.len;
            return OK;
        }
        TRY(refill(s));
    }
}

static enum err on_read_body(struct exchange *x, char *buf, size_t cap, size_t *n)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    *n = 0;
    if (s->body_done || cap == 0)
        return OK;
    if (s->expect_continue && s->at == s->len)
        TRY(say_continue(s));
    enum err e = s->framing == H1_BODY_CHUNKED ? read_chunked(s, buf, cap, n)
                                               : read_length(s, buf, cap, n);
    return e == OK ? OK : broken(s, e);
}

static const struct fields *on_trailers(struct exchange *x)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    return s->has_trailers ? &s->trailers : NULL;
}

static enum err on_take_over(struct exchange *x, int *fd, struct slice *already_read)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    if (!s->body_done)
        return ERR_UNSUPPORTED;
    s->taken_over = true;
    x->close_after = true;
    *fd = s->conn->fd;
    *already_read = slice_of(s->in + s->at, s->len - s->at);
    return OK;
}

static void on_addresses(struct exchange *x)
{
    struct h1_scratch *s = CONTAINER_OF(x, struct h1_scratch, x);
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof a;
    (void)!getpeername(s->conn->fd, (struct sockaddr *)&a, &len);
    text_of(&a, s->remote_text, sizeof s->remote_text, s->remote_port);
    memset(&a, 0, sizeof a);
    len = sizeof a;
    (void)!getsockname(s->conn->fd, (struct sockaddr *)&a, &len);
    text_of(&a, s->local_text, sizeof s->local_text, s->local_port);
    x->remote_host = slice_from(s->remote_text);
    x->remote_port = slice_from(s->remote_port);
    x->local_host = slice_from(s->local_text);
    x->local_port = slice_from(s->local_port);
}

static const struct carrier_type wire_carrier = {
    .read_body = on_read_body,
    .trailers = on_trailers,
    .take_over = on_take_over,
    .addresses = on_addresses,
};

/* --- the response --- */

static struct h1_scratch *of_sink(struct sink *s)
{
    return CONTAINER_OF(s, struct h1_scratch, sink);
}

static enum err send_parts(struct h1_scratch *s, struct iovec *parts, size_t count, int flags)
{
    size_t sent = 0;
    if (s->wire_broken)
        return ERR_CLOSED;
    enum err e = await_send(s->conn->fd, parts, count, flags, write_deadline(s), &sent);
    return e == OK ? OK : broken(s, e);
}

static struct iovec part_of(struct slice s)
{
    return (struct iovec){(char *)(uintptr_t)s.ptr, s.len};
}

/* Moves a few bytes behind those that are gathered already: one part is cheaper to send than two. */
static void gather_small(struct h1_scratch *s, struct slice *bytes)
{
    if (s->out.len == 0 || bytes->len == 0 || bytes->len > GATHER_MAX ||
        buffer_append(&s->out, *bytes) != OK)
        return;
    *bytes = SLICE_NONE;
}

/* Sends what is gathered: the head or a chunk's line, pending bytes, `more`. */
static enum err send_gathered(struct h1_scratch *s, struct slice more, struct slice tail, int flags)
{
    gather_small(s, &s->pending);
    if (s->pending.len == 0)
        gather_small(s, &more);
    if (s->pending.len == 0 && more.len == 0)
        gather_small(s, &tail);
    struct iovec parts[4] = {part_of(buffer_slice(&s->out)), part_of(s->pending), part_of(more),
                             part_of(tail)};
    enum err e = send_parts(s, parts, 4, flags);
    buffer_clear(&s->out);
    s->pending = SLICE_NONE;
    return e;
}

static bool is_framing_name(struct slice name)
{
    return (name.len == 14 && slice_eq_nocase(name, SLICE("Content-Length"))) ||
           (name.len == 17 && slice_eq_nocase(name, SLICE("Transfer-Encoding"))) ||
           (name.len == 10 && slice_eq_nocase(name, SLICE("Connection"))) ||
           (name.len == 10 && slice_eq_nocase(name, SLICE("Keep-Alive")));
}

static enum err put_fields(struct buffer *out, const struct fields *fields)
{
    for (uint32_t i = 0; i < fields->count; i++) {
        const struct field *f = &fields->items[i];
        if (is_framing_name(f->name) || !h1_name_ok(f->name) || !h1_value_ok(f->value))
            continue; /* a name or value that would split the response never leaves */
        TRY(buffer_reserve(out, f->name.len + f->value.len + 4));
        char *at = out->ptr + out->len;
        memcpy(at, f->name.ptr, f->name.len);
        at += f->name.len;
        *at++ = ':';
        *at++ = ' ';
        if (f->value.len > 0)
            memcpy(at, f->value.ptr, f->value.len);
        at += f->value.len;
        *at++ = '\r';
        *at++ = '\n';
        out->len = (size_t)(at - out->ptr);
    }
    return OK;
}

static enum err put_status(struct buffer *out, int status)
{
    if (status == 200)
        return BUFFER_PUT(out, "HTTP/1.1 200 OK\r\n");
    TRY(BUFFER_PUT(out, "HTTP/1.1 "));
    TRY(buffer_append_u64(out, (uint64_t)status)); /* three digits: 100 … 999 */
    TRY(buffer_append_byte(out, ' '));
    TRY(buffer_append(out, slice_from(status_text(status))));
    return BUFFER_PUT(out, "\r\n");
}

static enum err put_date(struct h1_worker *w, struct buffer *out)
{
    int64_t now = loop_wall_s(w->loop);
    if (w->date_s != now) {
        clock_http_date(now, w->date);
        w->date_s = now;
    }
    TRY(BUFFER_PUT(out, "Date: "));
    TRY(buffer_append(out, slice_of(w->date, sizeof w->date)));
    return BUFFER_PUT(out, "\r\n");
}

/* Content-Length, chunks, or the connection's end (RFC 9112 §6). */
static enum err put_framing(struct h1_scratch *s, const struct response *res)
{
    bool no_length = res->status / 100 == 1 || res->status == 204;
    if (res->content_length >= 0 && !no_length) {
        TRY(BUFFER_PUT(&s->out, "Content-Length: "));
        TRY(buffer_append_u64(&s->out, (uint64_t)res->content_length));
        TRY(BUFFER_PUT(&s->out, "\r\n"));
    } else if (!exchange_bodiless(&s->x, res->status)) {
        s->chunked_out = s->x.req.minor == 1;
        if (s->chunked_out)
            TRY(BUFFER_PUT(&s->out, "Transfer-Encoding: chunked\r\n"));
        else
            s->x.close_after = true;
    }
    if (res->status == 101) {
        s->x.close_after = true;
        return BUFFER_PUT(&s->out, "Connection: Upgrade\r\n");
    }
    if (s->x.close_after)
        return BUFFER_PUT(&s->out, "Connection: close\r\n");
    return s->x.req.minor == 0 ? BUFFER_PUT(&s->out, "Connection: keep-alive\r\n") : OK;
}

static enum err put_head(struct h1_scratch *s, const struct response *res)
{
    TRY(put_status(&s->out, res->status));
    TRY(put_fields(&s->out, &res->fields));
    if (!res->no_date && !fields_has(&res->fields, SLICE("Date")))
        TRY(put_date(s->conn->worker, &s->out));
    TRY(put_framing(s, res));
    return BUFFER_PUT(&s->out, "\r\n");
}

static enum err on_sink_head(struct sink *sink, struct response *res)
{
    struct h1_scratch *s = of_sink(sink);
    if (!s->body_done && s->expect_continue)
        s->x.close_after = true; /* the body may or may not come: no telling what follows */
    enum err e = put_head(s, res);
    res->head_sent = true;
    return e == OK ? OK : broken(s, e);
}

static enum err on_sink_inform(struct sink *sink, int status, const struct fields *fields)
{
    struct h1_scratch *s = of_sink(sink);
    if (s->x.req.minor == 0 || s->x.res.head_sent)
        return OK;
    TRY(put_status(&s->out, status));
    TRY(put_fields(&s->out, fields));
    TRY(BUFFER_PUT(&s->out, "\r\n"));
    return send_gathered(s, SLICE_NONE, SLICE_NONE, 0);
}

static enum err over_length(struct h1_scratch *s, uint64_t more)
{
    int64_t length = s->x.res.content_length;
    if (length < 0 || s->x.bytes_sent + more <= (uint64_t)length)
        return OK;
    return broken(s, ERR_INVALID); /* more than the head announced */
}

static enum err on_sink_data(struct sink *sink, struct slice bytes, enum lend lend)
{
    struct h1_scratch *s = of_sink(sink);
    if (bytes.len == 0 || exchange_bodiless(&s->x, s->x.res.status))
        return OK;
    TRY(over_length(s, bytes.len));
    if (!s->chunked_out && lend == LEND_STABLE && s->pending.len == 0) {
        s->pending = bytes;
        s->x.bytes_sent += bytes.len;
        return OK;
    }
    s->x.bytes_sent += bytes.len;
    if (!s->chunked_out)
        return send_gathered(s, bytes, SLICE_NONE, 0);
    char line[CHUNKED_HEAD_MAX];
    TRY(buffer_append(&s->out, slice_of(line, chunked_head(line, bytes.len))));
    return send_gathered(s, bytes, SLICE("\r\n"), 0);
}

static enum err on_sink_file(struct sink *sink, int fd, uint64_t offset, uint64_t len)
{
    struct h1_scratch *s = of_sink(sink);
    uint64_t sent = 0;
    if (exchange_bodiless(&s->x, s->x.res.status))
        return OK;
    TRY(over_length(s, len));
    if (s->chunked_out)
        return sink_file_as_data(sink, fd, offset, len);
    TRY(send_gathered(s, SLICE_NONE, SLICE_NONE, MSG_MORE));
    enum err e = OK;
    while (e == OK && sent < len) { /* each piece has its own deadline: slow is not stuck */
        uint64_t piece = len - sent < (1 << 20) ? len - sent : (1 << 20), n;
        e = await_sendfile(s->conn->fd, fd, offset + sent, piece, write_deadline(s), &n);
        sent += n;
    }
    s->x.bytes_sent += sent;
    return e == OK ? OK : broken(s, e);
}

static enum err on_sink_flush(struct sink *sink)
{
    struct h1_scratch *s = of_sink(sink);
    if (s->out.len == 0 && s->pending.len == 0)
        return OK;
    return send_gathered(s, SLICE_NONE, SLICE_NONE, 0);
}

/* Nothing to read away, nothing pipelined, no close: all that is left is this send. */
static bool may_defer(const struct h1_scratch *s)
{
    return s->body_done && s->at == s->len && !s->x.close_after && !s->wire_broken &&
           !is_draining(s->conn) && s->out.len + s->pending.len <= DEFER_MAX;
}

static enum err on_sink_end(struct sink *sink, const struct fields *trailers)
{
    struct h1_scratch *s = of_sink(sink);
    bool bodiless = exchange_bodiless(&s->x, s->x.res.status);
    if (s->out_ended)
        return OK;
    s->out_ended = true;
    if (!bodiless && s->x.res.content_length >= 0 &&
        s->x.bytes_sent < (uint64_t)s->x.res.content_length)
        return broken(s, ERR_INVALID); /* less than announced: only a cut tells the client */
    if (s->chunked_out && !bodiless) {
        TRY(BUFFER_PUT(&s->out, "0\r\n"));
        if (trailers != NULL)
            TRY(put_fields(&s->out, trailers));
        TRY(BUFFER_PUT(&s->out, "\r\n"));
    }
    s->deferred = may_defer(s);
    return s->deferred ? OK : on_sink_flush(sink);
}

/* What a request that failed below the handlers is told, if nothing has been said yet. */
static int status_of(enum err why)
{
    switch (why) {
    case ERR_INVALID:
        return 400;
    case ERR_TIMEOUT:
        return 408;
    case ERR_LIMIT:
        return 413;
    case ERR_FAILED:
    case ERR_IO:
        return 500;
    default:
        return 0; /* cut: the peer left, or abort was asked for */
    }
}

static void on_sink_abort(struct sink *sink, enum err why)
{
    struct h1_scratch *s = of_sink(sink);
    int status = s->x.res.head_sent ? 0 : status_of(why);
    s->x.close_after = true;
    if (status > 0) {
        s->wire_broken = false;
        s->x.res.status = status;
        put_refusal(&s->out, status);
        (void)!send_gathered(s, SLICE_NONE, SLICE_NONE, 0);
        return;
    }
    s->wire_broken = true;
}

static const struct sink_type wire_sink = {
    .inform = on_sink_inform,
    .head = on_sink_head,
    .data = on_sink_data,
    .file = on_sink_file,
    .flush = on_sink_flush,
    .end = on_sink_end,
    .abort = on_sink_abort,
};

/* --- behind an exchange --- */

/* Reads away what the handler left of the body. False when that is too much. */
static bool discard_body(struct h1_scratch *s)
{
    char piece[4096];
    size_t n, total = 0;
    while (!s->body_done) {
        if (total > DISCARD_MAX || on_read_body(&s->x, piece, sizeof piece, &n) != OK)
            return false;
        total += n;
    }
    return true;
}

/* Tells the end, then takes what the client still sends, for a while: a close with unread bytes
 * would reset the connection and could destroy the answer before it is read. */
static void linger(struct h1_conn *c)
{
    char piece[4096];
    size_t n, total = 0;
    uint64_t deadline = loop_now_ns(c->worker->loop) + LINGER_NS;
    if (shutdown(c->fd, SHUT_WR) != 0)
        return;
    while (total < DISCARD_MAX && await_recv(c->fd, piece, sizeof piece, deadline, &n) == OK &&
           n > 0)
        total += n;
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
    return left > 0 ? h1_parse_request(&s->head, slice_of(s->in, left), &s->head_len) : H1_MORE;
}

/* True when the connection can go on with another request. */
static bool finish_exchange(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    bool keep = !s->wire_broken && !s->x.close_after && !is_draining(c);
    if (keep && (!discard_body(s) || is_draining(c))) /* discarding waits: a drain may begin */
        keep = false;
    bool say_goodbye = !keep && !s->wire_broken && !s->taken_over;
    arena_reset(&s->arena);
    if (say_goodbye)
        linger(c);
    return keep;
}

static void go_idle(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    const struct http_server *server = c->site->server;
    if (s->len == 0) {
        c->scratch = NULL;
        give_scratch(c->worker, s);
    }
    wait_bytes(c, c->scratch == NULL ? server->idle_timeout_ns : server->read_header_timeout_ns);
}

static void linger_and_close(void *arg)
{
    linger(arg);
    close_now(arg);
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
    c->worker->busy--;
    if (!sent || c->closing) {
        close_now(c);
    } else if (is_draining(c)) { /* it began behind the head */
        if (fiber_start(c->worker->loop, linger_and_close, c) != OK)
            close_now(c);
    } else {
        (void)next_head(s); /* empties the input: nothing was pipelined */
        go_idle(c);
    }
}

/* True when all has left; what has not is in flush_message. */
static bool skip_flushed(struct h1_scratch *s, size_t n)
{
    struct msghdr *m = &s->flush_message;
    for (; m->msg_iovlen > 0 && n >= m->msg_iov->iov_len; m->msg_iov++, m->msg_iovlen--)
        n -= m->msg_iov->iov_len;
    if (m->msg_iovlen == 0)
        return true;
    m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + n;
    m->msg_iov->iov_len -= n;
    return false;
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
        op_send(c->worker->loop, &c->op, c->fd, &s->flush_message, 0);
}

static void flush_answer(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    gather_small(s, &s->pending);
    s->flush_parts[0] = part_of(buffer_slice(&s->out));
    s->flush_parts[1] = part_of(s->pending);
    s->flush_message = (struct msghdr){.msg_iov = s->flush_parts,
                                       .msg_iovlen = s->pending.len > 0 ? 2 : 1};
    ssize_t n = c->closing ? -ECANCELED : send_now(c->fd, &s->flush_message, 0);
    if (n < 0 && n != -EAGAIN) {
        finish_flush(c, false);
        return;
    }
    if (skip_flushed(s, n > 0 ? (size_t)n : 0)) {
        finish_flush(c, true);
        return;
    }
    c->op.on_done = on_flushed;
    op_send(c->worker->loop, &c->op, c->fd, &s->flush_message, 0);
    uint64_t now = loop_now_ns(c->worker->loop), deadline = write_deadline(s);
    set_deadline(c, deadline > now ? deadline - now : deadline > 0);
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
    if (list_empty(&w->flushes))
        loop_defer(w->loop, &w->flush);
    list_append(&w->flushes, &c->scratch->flush);
}

static void serve_all(void *arg)
{
    struct h1_conn *c = arg;
    enum h1_result r;
    bool keep;
    c->fiber = fiber_self();
    do {
        serve_one(c);
        if (c->scratch->deferred) {
            defer_flush(c);
            return;
        }
        end_exchange(c);
        keep = finish_exchange(c);
        r = keep ? next_head(c->scratch) : H1_MORE;
    } while (keep && r == H1_DONE);
    c->fiber = NULL;
    c->worker->busy--;
    if (!keep)
        close_now(c);
    else if (r != H1_MORE)
        refuse(c, refusal_status(r));
    else
        go_idle(c);
}
