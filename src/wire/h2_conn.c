/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a connection. Idle, it is one struct with an armed lent read and a timer, and what the
 * client's fields have left in its HPACK table; everything else (buffers, streams, the table that
 * finds them) comes from its worker when frames do, and goes back when they are dealt with.
 *
 * It ends in three ways. In peace: GOAWAY with the highest number there is, so that no request that
 * is under way is lost; when the client has answered a PING behind it, or after a second, GOAWAY with
 * the last stream that will be served; then, behind the last answer, the end of the stream of bytes,
 * and what the client still sends is taken for a while, since closing with unread bytes would
 * destroy what is on its way to it. At an error: GOAWAY with its code, then the same. At once: when
 * the peer is gone or nothing can be said to it any more.
 */
#include "wire/h2_internal.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "wire/h1_internal.h"

enum { SCRAP_CHUNK = 16384, LINGER_MAX = 256 * 1024, BUSIES_KEPT = 64 };
#define WARNED_NS NS_PER_S /* between the two GOAWAY, at most */
#define LINGER_NS (2 * NS_PER_S)
#define REST_NS (2 * NS_PER_S) /* without a request, until memory is given back */

static void on_bytes(struct op *op, int result);
static void on_timer(struct timer *t);

const char h2_preface[H2_PREFACE_LEN + 1] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

size_t h2_preface_match(struct slice in)
{
    size_t n = in.len < H2_PREFACE_LEN ? in.len : H2_PREFACE_LEN;
    return memcmp(in.ptr, h2_preface, n) == 0 ? n : 0;
}

/* --- the worker --- */

struct h2_worker *h2_worker_create(struct h1_worker *worker)
{
    struct h2_worker *w = NEW(struct h2_worker);
    w->worker = worker;
    list_init(&w->conns);
    list_init(&w->flushes);
    w->flush.run = h2_on_flush;
    w->date.second = -1;
    w->bodies_left = H2_BODIES_MAX;
    arena_init(&w->scrap, SCRAP_CHUNK);
    return w;
}

void h2_worker_free(struct h2_worker *w)
{
    ASSERT(list_empty(&w->conns) && w->bodies_left == H2_BODIES_MAX);
    h2_free_streams(w);
    h2_free_outs(w);
    while (w->busies != NULL) {
        struct h2_busy *b = w->busies;
        w->busies = b->next;
        mem_free(b);
    }
    arena_deinit(&w->scrap);
    mem_free(w->plain);
    mem_free(w);
}

bool h2_draining(const struct h2_conn *c)
{
    return c->worker->draining || c->site->draining;
}

/* --- deadlines --- */

/* A timer that would fire too early stays where it is. */
void h2_hurry(struct h2_conn *c)
{
    uint64_t next = earlier_ns(c->quiet_by, earlier_ns(c->write_by, c->head_by));
    if (next > 0 && (!timer_running(&c->timer) || c->timer.deadline_ns > next))
        timer_start(c->worker->loop, &c->timer, next);
}

static void quiet_for(struct h2_conn *c, uint64_t ns)
{
    c->quiet_by = ns > 0 ? loop_now_ns(c->worker->loop) + ns : 0;
    h2_hurry(c);
}

/* The kernel says that a socket is writable only when a third of its buffer is free, which may be
 * megabytes: slow is not stuck. */
static bool still_takes(struct h2_conn *c)
{
    int unsent;
    if (ioctl(c->fd, SIOCOUTQ, &unsent) != 0)
        return false;
    bool takes = c->unsent == 0 || unsent < c->unsent;
    c->unsent = unsent;
    return takes;
}

static bool is_due(uint64_t deadline, uint64_t now)
{
    return deadline > 0 && now >= deadline;
}

/* It has been idle for a while: what only requests need goes back. */
static void rest(struct h2_conn *c)
{
    uint64_t idle_ns = c->site->server->idle_timeout_ns;
    c->rested = true;
    h2_reader_rest(&c->reader);
    mem_free(c->closed);
    c->closed = NULL;
    hpack_decoder_trim(&c->decoder);
    hpack_encoder_rest(&c->encoder);
    quiet_for(c, idle_ns > REST_NS ? idle_ns - REST_NS : idle_ns > 0 ? 1 : 0);
}

static void on_quiet(struct h2_conn *c)
{
    c->quiet_by = 0;
    if (c->lingering || c->preface_at < H2_PREFACE_LEN)
        h2_die(c, NULL);
    else if (c->goaway == H2_STAYS && c->streams == 0 && !c->rested)
        rest(c);
    else if (c->goaway == H2_STAYS && c->streams == 0)
        h2_begin_goaway(c);
    else if (c->goaway == H2_WARNED)
        h2_end_goaway(c);
}

static void on_timer(struct timer *t)
{
    struct h2_conn *c = CONTAINER_OF(t, struct h2_conn, timer);
    uint64_t now = loop_now_ns(c->worker->loop);
    if (is_due(c->write_by, now)) {
        c->write_by = now + (c->site->server->write_idle_timeout_ns + 1) / 2;
        if (!still_takes(c))
            h2_die(c, "the client took nothing that was sent to it for too long");
    }
    if (is_due(c->head_by, now) && !c->dead)
        h2_fail(c, H2_NO_ERROR, "a header block was not sent to its end in time");
    if (is_due(c->quiet_by, now) && !c->dead)
        on_quiet(c);
    h2_hurry(c);
    h2_settle(c);
}

/* --- TLS --- */

/* Ciphertext, or nothing: what has been kept of it. */
static void feed_encrypted(struct h2_conn *c, struct slice lent)
{
    enum tls_step step = TLS_OK;
    if (c->shared->plain == NULL)
        c->shared->plain = mem_alloc(H2_PLAIN_SIZE);
    if (lent.len > 0)
        tls_stream_feed(c->tls, lent);
    while (step == TLS_OK && !c->paused && !c->dead && !c->closing) {
        size_t n;
        step = tls_stream_read(c->tls, c->shared->plain, H2_PLAIN_SIZE, &n);
        if (step == TLS_OK)
            h2_feed(c, slice_of(c->shared->plain, n));
    }
    tls_stream_keep(c->tls);
    if (step == TLS_END || step == TLS_FAILED) {
        c->read_ended = true;
        h2_send(c); /* an alert */
        h2_die(c, NULL);
    } else if (tls_stream_out(c->tls).len > 0) {
        h2_schedule(c);
    }
}

/* --- opening --- */

static bool put_settings(struct h2_conn *c)
{
    const struct {
        uint16_t id;
        uint32_t value;
    } all[] = {
        {H2_SET_MAX_CONCURRENT_STREAMS, H2_STREAMS_MAX},
        {H2_SET_MAX_HEADER_LIST_SIZE, c->site->server->max_header_bytes},
        {H2_SET_ENABLE_CONNECT_PROTOCOL, 1},
        {H2_SET_NO_RFC7540_PRIORITIES, 1},
    };
    size_t count = sizeof all / sizeof all[0];
    char *at = h2_begin_frame(c, H2_SETTINGS, 0, 0, count * 6);
    if (at == NULL)
        return false;
    for (size_t i = 0; i < count; i++, at += 6) {
        at[0] = 0;
        at[1] = (char)all[i].id;
        h2_write_u32(at + 2, all[i].value);
    }
    if (c->shared->bodies_left > H2_BODIES_MAX / 2) /* no client need wait for it */
        h2_widen(c, H2_CONN_WINDOW);
    uint32_t more = c->in_due;
    c->in_due = 0;
    c->in_left += more;
    return more == 0 || h2_put_window(c, 0, more);
}

static struct h2_conn *open_conn(struct h1_worker *w, struct h1_site *site, int fd,
                                 struct h1_addresses *given)
{
    struct h2_conn *c = NEW(struct h2_conn);
    uint64_t header_ns = site->server->read_header_timeout_ns;
    size_t head_max = site->server->max_header_bytes;
    c->worker = w;
    c->shared = w->h2;
    c->site = site;
    c->fd = fd;
    c->given = given;
    c->read.on_done = on_bytes;
    timer_init(&c->timer, on_timer);
    list_init(&c->flush);
    list_append(&c->shared->conns, &c->node);
    h2_reader_init(&c->reader, head_max > H2_BLOCK_MAX / 2 ? head_max * 2 : H2_BLOCK_MAX);
    hpack_decoder_init(&c->decoder);
    hpack_encoder_init(&c->encoder);
    h2_budgets_init(&c->budgets, loop_now_ns(w->loop));
    c->send_window = c->peer_window = H2_WINDOW_DEFAULT;
    c->peer_frame_max = H2_FRAME_MAX_DEFAULT;
    c->in_left = c->in_window = H2_WINDOW_DEFAULT;
    c->epoch = 1;
    quiet_for(c, header_ns > 0 ? header_ns : site->server->idle_timeout_ns);
    return c;
}

void h2_conn_begin(struct h1_worker *w, struct h1_site *site, int fd, struct h1_addresses *given,
                   struct tls_stream *tls, struct slice early)
{
    struct h2_conn *c = open_conn(w, site, fd, given);
    c->tls = tls;
    (void)put_settings(c);
    if (h2_draining(c))
        h2_begin_goaway(c);
    if (tls != NULL)
        feed_encrypted(c, SLICE_NONE);
    else
        h2_feed(c, early);
    h2_settle(c);
}

static void put_switching(struct h2_conn *c)
{
    static const char text[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                               "Upgrade: h2c\r\n\r\n";
    char *at = h2_room(c, sizeof text - 1);
    memcpy(at, text, sizeof text - 1);
    c->out->len += (uint32_t)(sizeof text - 1);
}

void h2_conn_upgrade(struct h1_worker *w, struct h1_site *site, int fd, struct h1_addresses *given,
                     const struct h1_head *head, struct slice settings, struct slice early)
{
    struct h2_conn *c = open_conn(w, site, fd, given);
    put_switching(c);
    (void)put_settings(c);
    h2_apply_settings(c, settings);
    if (!c->closing)
        h2_open_upgraded(c, head);
    if (h2_draining(c))
        h2_begin_goaway(c);
    h2_feed(c, early);
    h2_settle(c);
}

/* --- ending --- */

static void for_streams(struct h2_conn *c, void (*each)(struct h2_stream *))
{
    for (int i = 0; c->busy != NULL && i < H2_TABLE; i++) {
        for (struct h2_stream *s = c->busy->table[i]; s != NULL; s = s->next)
            each(s);
    }
}

static void say_why(const struct h2_conn *c, enum log_level level, const char *why)
{
    char host[ADDRESS_TEXT] = "", port[8] = "";
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof a;
    if (!log_wants(level))
        return;
    if (c->given != NULL)
        a = c->given->remote;
    else
        (void)!getpeername(c->fd, (struct sockaddr *)&a, &len);
    peer_text(&a, host, sizeof host, port);
    LOG(level, "http", "HTTP/2 connection ended", LOG_CSTR("reason", why),
        LOG_CSTR("remote_ip", host), LOG_CSTR("remote_port", port));
}

void h2_die(struct h2_conn *c, const char *why)
{
    if (c->dead)
        return;
    if (why != NULL)
        say_why(c, LOG_INFO, why);
    c->dead = true;
    for_streams(c, h2_stream_reset);
    h2_schedule(c); /* whoever finds it dead may stand on a fiber */
}

static void fail(struct h2_conn *c, enum h2_error code)
{
    if (c->dead || c->closing)
        return;
    (void)h2_put_goaway(c, c->last_id, code);
    c->closing = true;
    c->goaway = H2_GOES;
    for_streams(c, h2_stream_reset);
    h2_schedule(c);
}

void h2_fail(struct h2_conn *c, enum h2_error code, const char *why)
{
    if (!c->dead && !c->closing)
        say_why(c, LOG_DEBUG, why);
    fail(c, code);
}

void h2_calm(struct h2_conn *c, const char *limit)
{
    if (!c->dead && !c->closing)
        say_why(c, LOG_INFO, limit);
    fail(c, H2_ENHANCE_YOUR_CALM);
}

void h2_begin_goaway(struct h2_conn *c)
{
    if (c->dead || c->closing || c->goaway != H2_STAYS)
        return;
    c->goaway = H2_WARNED;
    if (h2_put_goaway(c, 0x7fffffff, H2_NO_ERROR))
        (void)h2_put_frame(c, H2_PING, 0, 0, SLICE("goodbye!"));
    quiet_for(c, WARNED_NS);
}

void h2_end_goaway(struct h2_conn *c)
{
    if (c->dead || c->closing || c->goaway != H2_WARNED)
        return;
    c->goaway = H2_GOES;
    c->quiet_by = 0;
    (void)h2_put_goaway(c, c->last_id, H2_NO_ERROR);
}

static void begin_linger(struct h2_conn *c)
{
    if (c->read_ended || shutdown(c->fd, SHUT_WR) != 0) {
        h2_die(c, NULL);
        return;
    }
    c->lingering = true;
    c->linger_left = LINGER_MAX;
    c->head_by = 0;
    quiet_for(c, LINGER_NS);
}

static void give_busy(struct h2_conn *c)
{
    struct h2_worker *w = c->shared;
    struct h2_busy *b = c->busy;
    if (b == NULL)
        return;
    c->busy = NULL;
    if (w->busies_free >= BUSIES_KEPT) {
        mem_free(b);
        return;
    }
    b->next = w->busies;
    w->busies = b;
    w->busies_free++;
}

static void end_now(struct h2_conn *c)
{
    struct h1_worker *w = c->worker;
    struct h1_site *site = c->site;
    c->shared->bodies_left += c->in_window - H2_WINDOW_DEFAULT;
    timer_stop(&c->timer);
    list_remove(&c->flush);
    list_remove(&c->node);
    h2_drop_output(c);
    give_busy(c);
    h2_reader_deinit(&c->reader);
    mem_free(c->closed);
    mem_free(c->early);
    hpack_decoder_deinit(&c->decoder);
    hpack_encoder_deinit(&c->encoder);
    tls_stream_free(c->tls);
    loop_close(w->loop, c->fd);
    mem_free(c->given);
    mem_free(c);
    h1_uncount(w, site);
}

static void settle_dead(struct h2_conn *c)
{
    op_cancel(c->worker->loop, &c->read);
    op_cancel(c->worker->loop, &c->write);
    if (!c->write.armed)
        h2_drop_output(c);
    if (c->streams == 0 && !c->read.armed && !c->write.armed)
        end_now(c);
}

/* The last stream has ended. */
static void go_idle(struct h2_conn *c)
{
    uint64_t idle_ns = c->site->server->idle_timeout_ns;
    if (c->busy == NULL)
        return;
    give_busy(c);
    c->rested = false;
    if (c->goaway == H2_STAYS)
        quiet_for(c, idle_ns > 0 && idle_ns < REST_NS ? idle_ns : REST_NS);
}

static bool is_quiet(const struct h2_conn *c)
{
    return (c->streams == 0 || c->closing) && c->out == NULL && c->sending == NULL;
}

static void say_end(struct h2_conn *c)
{
    if (c->tls == NULL || c->said_end)
        return;
    c->said_end = true;
    tls_stream_shutdown(c->tls);
    h2_send(c);
}

void h2_settle(struct h2_conn *c)
{
    if (!c->dead && c->goaway == H2_GOES && !c->lingering && is_quiet(c)) {
        say_end(c);
        if (is_quiet(c) && !c->dead)
            begin_linger(c);
    }
    if (c->dead) {
        settle_dead(c);
        return;
    }
    if (c->paused && !c->lingering && h2_make_room(c, H2_ANSWER_MAX)) {
        c->paused = false;
        h2_feed(c, SLICE_NONE);
        if (c->tls != NULL && !c->paused)
            feed_encrypted(c, SLICE_NONE);
        h2_settle(c); /* once: it is not paused, or has no room */
        return;
    }
    if (c->streams == 0)
        go_idle(c);
    if (!c->read.armed && !c->paused && !c->read_ended)
        op_recv_lent(c->worker->loop, &c->read, c->fd);
}

/* --- reading --- */

static void go_on_lingering(struct h2_conn *c, size_t n)
{
    if (n >= c->linger_left)
        h2_die(c, NULL);
    else
        c->linger_left -= (uint32_t)n;
}

static void on_bytes(struct op *op, int result)
{
    struct h2_conn *c = CONTAINER_OF(op, struct h2_conn, read);
    if (result <= 0) {
        c->read_ended = true;
        h2_die(c, NULL);
    } else if (c->lingering) {
        go_on_lingering(c, (size_t)result);
    } else if (!c->dead && !c->closing) {
        if (c->tls != NULL)
            feed_encrypted(c, op->lent);
        else
            h2_feed(c, op->lent);
    }
    h2_settle(c);
}

/* --- orders --- */

void h2_drain(struct h1_worker *w, const struct h1_site *site)
{
    LIST_FOR_SAFE(n, &w->h2->conns)
    {
        struct h2_conn *c = CONTAINER_OF(n, struct h2_conn, node);
        if (site != NULL && c->site != site)
            continue;
        h2_begin_goaway(c);
    }
}

static void cancel(struct h2_stream *s)
{
    if (s->fiber != NULL)
        fiber_cancel(s->fiber, ERR_CANCELLED);
    else
        s->x.taken->hurry(s->x.taken); /* a tunnel */
}

void h2_abort(struct h1_worker *w)
{
    LIST_FOR_SAFE(n, &w->h2->conns)
    {
        struct h2_conn *c = CONTAINER_OF(n, struct h2_conn, node);
        for_streams(c, cancel);
        h2_die(c, NULL);
    }
}
