/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A handshake has no fiber and, as long as nothing came, no memory but a small struct. The ClientHello
 * is collected and read here first (tls/hello.h): who speaks something else, or asks for a name that
 * nobody serves, never costs an SSL. Where there is no certificate but somebody to ask for one, the
 * hello waits for the answer; only the control thread's answer frees what was lent to it, even if the
 * connection is gone meanwhile, so the connection counts as open until then.
 *
 * The private key's work is done here, on the worker, in one step of some hundred microseconds. A long
 * key of RSA takes milliseconds: then the step is done by the pool, and others are not kept waiting
 * (docs/decisions/0015-handshakes-on-workers.md).
 *
 * Plain HTTP is answered in clear text, with a redirect if the server wants that (the listener wrapper
 * http_redirect), else with 400 as Go does. Who was told something has two seconds to read it.
 */
#include "wire/tls_stage.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "loop/offload.h"
#include "tls/stream.h"
#include "tls/tls_server.h"
#include "wire/h1_internal.h"
#include "wire/h2_conn.h"

#define HANDSHAKE_NS (60 * NS_PER_S) /* where the server has no timeout of its own */
#define ASK_NS (200 * NS_PER_S)      /* a certificate may have to be issued first */
#define LAST_WORDS_NS (2 * NS_PER_S)
#define SAY_AGAIN_NS (60 * NS_PER_S)

enum { LAST_WORDS_MAX = 64 * 1024, HELLO_BYTES_MAX = HELLO_MAX + 4096, LENT_MAX = 16384 };

enum stage_state {
    STAGE_HELLO,  /* the ClientHello is not all here */
    STAGE_ASKING, /* it waits for a certificate */
    STAGE_SHAKE,  /* OpenSSL has it */
    STAGE_LAST,   /* something was said; the close follows */
};

struct asking;

struct tls_stage {
    struct op op;
    struct timer timer;
    struct list node;
    struct h1_worker *worker;
    struct h1_site *site;
    struct h1_addresses *given;
    struct tls_stream *tls;
    struct asking *asking;
    uint64_t deadline_ns;
    struct buffer hello; /* what came, where it was not all there at once */
    struct iovec part;
    struct msghdr message;
    struct offload_job job; /* a step that the pool does */
    enum tls_step step;     /* … and what came of it */
    int fd;
    uint32_t last_left; /* bytes that are still taken behind the last words */
    uint8_t state;
    bool closing, slow, working;
};

/* A question on its way, with the memory that it needs; `stage` is NULL when nobody waits any more. */
struct asking {
    struct credential_ask ask;
    struct mail mail;
    struct tls_stage *stage;
    struct h1_worker *worker;
    struct h1_site *site;
};

static void on_bytes(struct op *op, int result);
static void on_sent(struct op *op, int result);
static void on_peer_left(struct op *op, int result);
static void on_time(struct timer *t);
static void on_answer(struct mail *m);
static void on_worked(struct offload_job *job);

/* --- ends --- */

static struct loop *loop_of(const struct tls_stage *s)
{
    return s->worker->loop;
}

static void leave(struct tls_stage *s)
{
    timer_stop(&s->timer);
    list_remove(&s->node);
    buffer_deinit(&s->hello);
    s->worker->handshakes_count--;
    mem_free(s);
}

static void close_stage(struct tls_stage *s)
{
    s->closing = true;
    if (s->working) /* its memory is the pool's meanwhile */
        return;
    if (s->op.armed) {
        op_cancel(loop_of(s), &s->op);
        return;
    }
    struct h1_worker *w = s->worker;
    struct h1_site *site = s->site;
    bool answered = s->asking == NULL;
    if (!answered)
        s->asking->stage = NULL; /* its answer uncounts the connection */
    tls_stream_free(s->tls);
    mem_free(s->given);
    loop_close(w->loop, s->fd);
    leave(s);
    if (answered)
        h1_uncount(w, site);
}

static void say_why(const struct tls_stage *s, const char *why)
{
    char remote[ADDRESS_TEXT], port[8];
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof a;
    if (!log_wants(LOG_DEBUG))
        return;
    if (s->given != NULL)
        a = s->given->remote;
    else
        (void)!getpeername(s->fd, (struct sockaddr *)&a, &len);
    peer_text(&a, remote, sizeof remote, port);
    LOG(LOG_DEBUG, "http.stdlib", "http: TLS handshake error", LOG_CSTR("remote_ip", remote),
        LOG_CSTR("remote_port", port), LOG_CSTR("error", why));
}

static void fail(struct tls_stage *s, const char *why)
{
    say_why(s, why);
    close_stage(s);
}

/* Sends it if the socket takes it at once, which it does but for a hostile peer; then closes, but not
 * before the peer had time to read it: unread bytes would reset the connection. */
static void say_last(struct tls_stage *s, struct slice words)
{
    s->part = (struct iovec){(char *)(uintptr_t)words.ptr, words.len};
    s->message = (struct msghdr){.msg_iov = &s->part, .msg_iovlen = 1};
    if (send_now(s->fd, &s->message, 0) < 0 || shutdown(s->fd, SHUT_WR) != 0) {
        close_stage(s);
        return;
    }
    s->state = STAGE_LAST;
    s->last_left = LAST_WORDS_MAX;
    s->deadline_ns = loop_now_ns(loop_of(s)) + LAST_WORDS_NS;
    timer_start(loop_of(s), &s->timer, s->deadline_ns);
    s->op.on_done = on_bytes;
    op_recv_lent(loop_of(s), &s->op, s->fd);
}

static void refuse_with(struct tls_stage *s, uint8_t alert, const char *why)
{
    char record[ALERT_RECORD];
    say_why(s, why);
    hello_alert(alert, record);
    say_last(s, slice_of(record, sizeof record));
}

/* --- plain HTTP --- */

static void answer_http(struct tls_stage *s)
{
    say_why(s, "client sent an HTTP request to an HTTPS server");
    say_last(s, SLICE("HTTP/1.0 400 Bad Request\r\n\r\n"
                      "Client sent an HTTP request to an HTTPS server.\n"));
}

static void redirect(struct tls_stage *s, const struct h1_head *h)
{
    struct buffer out;
    buffer_init(&out, RESPONSE_HEAD_MAX);
    if (h->host.len == 0 || h->target.len == 0 || h->target.ptr[0] != '/' ||
        buffer_append_f(&out, "HTTP/1.0 308 Permanent Redirect\r\nConnection: close\r\n"
                        "Location: https://" SLICE_FMT SLICE_FMT "\r\n\r\n", SLICE_ARG(h->host),
                        SLICE_ARG(h->target)) != OK)
        answer_http(s);
    else
        say_last(s, buffer_slice(&out));
    buffer_deinit(&out);
}

static void wait_for_more(struct tls_stage *s, struct slice in);

static void on_http(struct tls_stage *s, struct slice in)
{
    uint32_t max = s->site->server->redirect_max;
    size_t used;
    if (max == 0) {
        answer_http(s);
        return;
    }
    struct h1_head *h = mem_alloc(sizeof *h);
    enum h1_result r = h1_parse_request(h, slice_take(in, max), &used);
    if (r == H1_DONE)
        redirect(s, h);
    else if (r == H1_MORE && in.len < max && in.len < HELLO_BYTES_MAX)
        wait_for_more(s, in);
    else
        answer_http(s);
    mem_free(h);
}

/* --- the handshake --- */

static void hand_over(struct tls_stage *s)
{
    struct h1_worker *w = s->worker;
    struct h1_site *site = s->site;
    struct h1_addresses *given = s->given;
    struct tls_stream *tls = s->tls;
    struct tls_facts f;
    int fd = s->fd;
    tls_stream_settle(tls);
    tls_stream_facts(tls, &f);
    if (slice_is(f.alpn, "acme-tls/1")) { /* RFC 8737 §3: nothing follows */
        tls_stream_shutdown(tls);
        say_last(s, tls_stream_out(tls));
        return;
    }
    bool two = slice_is(f.alpn, "h2");
    leave(s);
    if (two)
        h2_conn_begin(w, site, fd, given, tls, SLICE_NONE);
    else
        h1_conn_begin(w, site, fd, given, tls);
}

/* What OpenSSL wants to say, as much of it as the socket takes. False: the rest is on its way. */
static bool send_out(struct tls_stage *s)
{
    struct slice out = tls_stream_out(s->tls);
    if (out.len == 0)
        return true;
    s->part = (struct iovec){(char *)(uintptr_t)out.ptr, out.len};
    s->message = (struct msghdr){.msg_iov = &s->part, .msg_iovlen = 1};
    ssize_t n = send_now(s->fd, &s->message, 0);
    if (n == (ssize_t)out.len) {
        tls_stream_sent(s->tls, out.len);
        return true;
    }
    if (n < 0 && n != -EAGAIN) {
        close_stage(s);
        return false;
    }
    tls_stream_sent(s->tls, n > 0 ? (size_t)n : 0);
    out = tls_stream_out(s->tls);
    s->part = (struct iovec){(char *)(uintptr_t)out.ptr, out.len};
    s->op.on_done = on_sent;
    op_send(loop_of(s), &s->op, s->fd, &s->message, 0);
    return false;
}

static void on_failure(struct tls_stage *s)
{
    char why[256];
    tls_stream_why(s->tls, why, sizeof why);
    say_why(s, why);
    struct slice alert = tls_stream_out(s->tls);
    if (alert.len > 0)
        say_last(s, alert);
    else
        close_stage(s);
}

/* True: another step can be made at once. */
static bool after_step(struct tls_stage *s, enum tls_step step)
{
    tls_stream_keep(s->tls);
    if (step == TLS_FAILED || step == TLS_END) {
        on_failure(s);
        return false;
    }
    if (step == TLS_OK) { /* tickets leave with the first answer, where that is near */
        if (tls_stream_ready(s->tls) || send_out(s))
            hand_over(s);
        return false;
    }
    if (!send_out(s))
        return false;
    if (step == TLS_FULL)
        return true;
    s->op.on_done = on_bytes;
    op_recv_lent(loop_of(s), &s->op, s->fd);
    return false;
}

static void work(void *arg)
{
    struct tls_stage *s = arg;
    s->step = tls_stream_handshake(s->tls);
    tls_stream_thread_deinit(); /* threads of the pool keep nothing */
}

/* False: the pool has enough to do. */
static bool begin_work(struct tls_stage *s)
{
    tls_stream_keep(s->tls);
    s->job = (struct offload_job){.work = work, .arg = s, .slow = true, .on_done = on_worked};
    s->working = offload_submit(loop_of(s), &s->job) == OK;
    return s->working;
}

static void shake(struct tls_stage *s)
{
    do {
        if (s->slow && begin_work(s))
            return;
    } while (after_step(s, tls_stream_handshake(s->tls)));
}

static void on_worked(struct offload_job *job)
{
    struct tls_stage *s = CONTAINER_OF(job, struct tls_stage, job);
    s->working = false;
    if (s->closing)
        close_stage(s);
    else if (after_step(s, s->step))
        shake(s);
}

static void on_sent(struct op *op, int result)
{
    struct tls_stage *s = CONTAINER_OF(op, struct tls_stage, op);
    if (result < 0 || s->closing) {
        close_stage(s);
        return;
    }
    tls_stream_sent(s->tls, (size_t)result);
    if (send_out(s))
        shake(s);
}

/* --- the hello --- */

static void wait_for_more(struct tls_stage *s, struct slice in)
{
    if (s->hello.len == 0) {
        buffer_init(&s->hello, HELLO_BYTES_MAX + LENT_MAX);
        (void)!buffer_append(&s->hello, in);
    }
    s->op.on_done = on_bytes;
    op_recv_lent(loop_of(s), &s->op, s->fd);
}

static void set_deadline(struct tls_stage *s, uint64_t ns)
{
    s->deadline_ns = loop_now_ns(loop_of(s)) + ns;
    timer_start(loop_of(s), &s->timer, s->deadline_ns);
}

static void begin_asking(struct tls_stage *s, struct asking *a, struct slice in)
{
    struct h1_worker *w = s->worker;
    if (s->hello.len == 0) {
        buffer_init(&s->hello, HELLO_BYTES_MAX + LENT_MAX);
        (void)!buffer_append(&s->hello, in);
    }
    a->ask.answer = &a->mail;
    a->ask.from = w->loop;
    a->mail.run = on_answer;
    a->stage = s;
    a->worker = w;
    a->site = s->site;
    s->asking = a;
    s->state = STAGE_ASKING;
    w->asks_count++;
    set_deadline(s, h1_site_hurries(w, s->site) ? NS_PER_S : ASK_NS);
    s->op.on_done = on_peer_left;
    op_poll(loop_of(s), &s->op, s->fd, POLLRDHUP);
    credential_asker *asker = credential_ask_hook;
    if (asker != NULL) {
        asker(&a->ask);
    } else { /* the last who could be asked has gone since */
        a->ask.result = ERR_CANCELLED;
        mailbox_post(a->ask.from, a->ask.answer);
    }
}

static void fill_addresses(const struct tls_stage *s, struct sockaddr_storage *remote,
                           struct sockaddr_storage *local)
{
    socklen_t remote_len = sizeof *remote, local_len = sizeof *local;
    memset(remote, 0, sizeof *remote);
    memset(local, 0, sizeof *local);
    if (s->given != NULL) {
        *remote = s->given->remote;
        *local = s->given->local;
        return;
    }
    (void)!getpeername(s->fd, (struct sockaddr *)remote, &remote_len);
    (void)!getsockname(s->fd, (struct sockaddr *)local, &local_len);
}

static void begin_shaking(struct tls_stage *s, const struct tls_accepting *t, struct slice in)
{
    struct tls_stream *tls = t->stream;
    s->tls = tls;
    s->slow = t->slow_key;
    s->state = STAGE_SHAKE;
    tls_stream_feed(tls, in);
    if (in.ptr == s->hello.ptr) { /* kept by the stream, if it does not use it all */
        tls_stream_keep(tls);
        buffer_deinit(&s->hello);
        buffer_init(&s->hello, HELLO_BYTES_MAX);
    }
    shake(s);
}

/* `answer`: what was asked before, or NULL. */
static void accept_hello(struct tls_stage *s, struct slice in, const struct hello *h,
                         struct asking *answer)
{
    struct sockaddr_storage remote, local;
    fill_addresses(s, &remote, &local);
    bool may_ask = answer == NULL && credential_ask_hook != NULL &&
                   s->worker->asks_count < ASKS_MAX;
    struct asking *a = may_ask ? NEW(struct asking) : NULL;
    struct tls_accepting t = {.server = s->site->tls, .hello = h, .remote = &remote,
                              .local = &local, .now_s = loop_wall_s(loop_of(s)),
                              .given = answer != NULL ? answer->ask.given : NULL,
                              .asked = answer != NULL, .ask = a != NULL ? &a->ask : NULL};
    enum tls_accept r = tls_accept(&t);
    if (answer != NULL)
        answer->ask.given = t.given;
    if (r == TLS_ASK) {
        begin_asking(s, a, in);
        return;
    }
    mem_free(a);
    if (r == TLS_ACCEPTED)
        begin_shaking(s, &t, in);
    else if (r == TLS_REFUSED)
        refuse_with(s, t.alert, t.why);
    else
        fail(s, "dropping connection");
}

static void look_at_hello(struct tls_stage *s, struct slice in, struct asking *answer)
{
    struct buffer joined;
    struct hello h;
    buffer_init(&joined, HELLO_MAX + 1024);
    switch (hello_parse(in, &joined, &h)) {
    case HELLO_MORE:
        if (in.len > HELLO_BYTES_MAX)
            fail(s, "a ClientHello that does not end");
        else
            wait_for_more(s, in);
        break;
    case HELLO_HTTP:
        on_http(s, in);
        break;
    case HELLO_BAD:
        refuse_with(s, h.alert, "this is no ClientHello");
        break;
    case HELLO_DONE:
        if (s->site->tls == NULL) /* a new configuration: not any more */
            refuse_with(s, 80, "this address is not encrypted any more");
        else
            accept_hello(s, in, &h, answer);
        break;
    }
    buffer_deinit(&joined);
}

static void on_hello_bytes(struct tls_stage *s, struct slice lent)
{
    if (s->hello.len == 0) {
        look_at_hello(s, lent, NULL);
        return;
    }
    if (buffer_append(&s->hello, lent) != OK)
        fail(s, "a ClientHello that does not end");
    else
        look_at_hello(s, buffer_slice(&s->hello), NULL);
}

static void on_last_bytes(struct tls_stage *s, size_t n)
{
    if (n >= s->last_left) {
        close_stage(s);
        return;
    }
    s->last_left -= (uint32_t)n;
    op_recv_lent(loop_of(s), &s->op, s->fd);
}

static void on_bytes(struct op *op, int result)
{
    struct tls_stage *s = CONTAINER_OF(op, struct tls_stage, op);
    if (s->closing || result <= 0) {
        close_stage(s);
    } else if (s->state == STAGE_HELLO) {
        on_hello_bytes(s, op->lent);
    } else if (s->state == STAGE_SHAKE) {
        tls_stream_feed(s->tls, op->lent);
        shake(s);
    } else {
        on_last_bytes(s, (size_t)result);
    }
}

/* --- asking --- */

static void go_on_with_answer(struct tls_stage *s)
{
    struct asking *a = s->asking;
    s->asking = NULL;
    s->state = STAGE_HELLO;
    set_deadline(s, HANDSHAKE_NS);
    look_at_hello(s, buffer_slice(&s->hello), a);
    credential_unref(a->ask.given); /* if it was not used */
    mem_free(a);
}

static void on_answer(struct mail *m)
{
    struct asking *a = CONTAINER_OF(m, struct asking, mail);
    struct tls_stage *s = a->stage;
    a->worker->asks_count--;
    if (s == NULL) { /* gone meanwhile */
        struct h1_worker *w = a->worker;
        struct h1_site *site = a->site;
        credential_unref(a->ask.given);
        mem_free(a);
        h1_uncount(w, site);
        return;
    }
    a->mail.run = NULL; /* answered; the watch ends first */
    if (s->op.armed)
        op_cancel(loop_of(s), &s->op);
    else
        go_on_with_answer(s);
}

static void on_peer_left(struct op *op, int result)
{
    struct tls_stage *s = CONTAINER_OF(op, struct tls_stage, op);
    bool answered = s->asking->mail.run == NULL;
    if (answered && !s->closing) {
        go_on_with_answer(s);
        return;
    }
    if (answered) {
        credential_unref(s->asking->ask.given);
        mem_free(s->asking);
        s->asking = NULL;
    }
    close_stage(s);
}

/* --- beginning, time --- */

/* As Go's http.Server: the least of the server's timeouts. */
static uint64_t handshake_timeout(const struct http_server *server)
{
    uint64_t ns = earlier_ns(server->read_header_timeout_ns,
                             earlier_ns(server->read_timeout_ns, server->write_timeout_ns));
    return ns > 0 ? ns : HANDSHAKE_NS;
}

static bool is_flood(struct h1_worker *w, const struct h1_site *site)
{
    uint64_t now = loop_now_ns(w->loop);
    if (w->handshakes_count < HANDSHAKES_MAX)
        return false;
    if (w->flood_said_ns == 0 || now - w->flood_said_ns > SAY_AGAIN_NS) {
        w->flood_said_ns = now;
        LOG(LOG_WARN, "http", "too many TLS handshakes at a time: new connections are closed",
            LOG_STR("server", site->server->name), LOG_NUM("handshakes", w->handshakes_count));
    }
    return true;
}

void tls_stage_open(struct h1_worker *w, struct h1_site *site, int fd, struct h1_addresses *given,
                    uint64_t hurry_ns)
{
    if (is_flood(w, site)) {
        mem_free(given);
        loop_close(w->loop, fd);
        h1_uncount(w, site);
        return;
    }
    struct tls_stage *s = NEW(struct tls_stage);
    s->op.on_done = on_bytes;
    s->worker = w;
    s->site = site;
    s->fd = fd;
    s->given = given;
    buffer_init(&s->hello, HELLO_BYTES_MAX);
    timer_init(&s->timer, on_time);
    list_append(&w->handshakes, &s->node);
    w->handshakes_count++;
    set_deadline(s, hurry_ns > 0 ? hurry_ns : handshake_timeout(site->server));
    op_recv_lent(w->loop, &s->op, fd);
}

static void on_time(struct timer *t)
{
    struct tls_stage *s = CONTAINER_OF(t, struct tls_stage, timer);
    if (s->state == STAGE_LAST)
        close_stage(s);
    else
        fail(s, s->state == STAGE_ASKING ? "there was no certificate in time"
                                         : "the handshake did not end in time");
}

void tls_stage_hurry(struct h1_worker *w, const struct h1_site *site, uint64_t ns)
{
    LIST_FOR(n, &w->handshakes)
    {
        struct tls_stage *s = CONTAINER_OF(n, struct tls_stage, node);
        uint64_t by = loop_now_ns(w->loop) + ns;
        if ((site == NULL || s->site == site) && s->deadline_ns > by) {
            s->deadline_ns = by;
            timer_start(w->loop, &s->timer, by);
        }
    }
}

void tls_stage_abort(struct h1_worker *w)
{
    LIST_FOR_SAFE(n, &w->handshakes)
        close_stage(CONTAINER_OF(n, struct tls_stage, node));
}
