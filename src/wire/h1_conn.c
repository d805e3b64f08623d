/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP/1 connection has two lives. Idle, it is one small struct with an armed lent read and a
 * timer: no fiber, no stack, no buffer. When bytes come it takes a scratch (buffers, head, exchange,
 * arena) from its worker (h1_worker.c), and once a head is complete (h1_input.c) a fiber, which serves
 * that request and all that were pipelined behind it (h1_exchange.c), and then lets go of both.
 *
 * Here it begins, waits and ends. What the client did not send to its end is read away within limits
 * after the answer, so that closing does not reset what is still on its way to it.
 */
#include "wire/h1_internal.h"

#include <errno.h>

#include "base/check.h"
#include "base/mem.h"
#include "wire/proxy_stage.h"
#include "wire/tls_stage.h"

static void on_timer(struct timer *t);

/* --- opening, waiting --- */

/* A timer that would fire too early stays where it is, so that a request moves none. */
void h1_set_deadline(struct h1_conn *c, uint64_t timeout_ns)
{
    struct loop *l = c->worker->loop;
    c->deadline_ns = timeout_ns > 0 ? loop_now_ns(l) + timeout_ns : UINT64_MAX;
    if (timeout_ns > 0 && (!timer_running(&c->timer) || c->timer.deadline_ns > c->deadline_ns))
        timer_start(l, &c->timer, c->deadline_ns);
}

static void wait_bytes(struct h1_conn *c, uint64_t timeout_ns)
{
    op_recv_lent(c->worker->loop, &c->op, c->stream.fd);
    h1_set_deadline(c, timeout_ns);
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
    c->op.on_done = h1_on_bytes;
    timer_init(&c->timer, on_timer);
    list_append(&w->conns, &c->node);
    c->fresh = c->first = true;
    uint64_t first_ns = header_ns > 0 ? header_ns : site->server->idle_timeout_ns;
    if (h1_draining(c))
        first_ns = FRESH_NS;
    if (tls != NULL && tls_stream_ready(tls))
        h1_on_early_bytes(c, first_ns);
    else
        wait_bytes(c, first_ns);
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
    H1_COUNT(w->count, 1);
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

uint64_t h1_write_pause(const struct h1_conn *c)
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
        h1_refuse(c, 408); /* in the middle of a head */
    else if (c->scratch != NULL && !c->closing && h1_still_takes(c->scratch, ERR_TIMEOUT))
        h1_set_deadline(c, h1_write_pause(c));
    else
        h1_close_idle(c);
}

void h1_go_idle(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    const struct http_server *server = c->site->server;
    if (s->len == 0) {
        c->scratch = NULL;
        h1_give_scratch(c->worker, s);
    }
    uint64_t timeout_ns = c->scratch == NULL ? server->idle_timeout_ns : h1_head_timeout(server);
    if (c->stream.tls != NULL && fiber_self() == NULL && tls_stream_ready(c->stream.tls))
        h1_on_early_bytes(c, timeout_ns); /* it was pipelined */
    else
        wait_bytes(c, timeout_ns);
}

/* --- closing --- */

void h1_free_conn(struct h1_conn *c)
{
    ASSERT(!c->op.armed && c->fiber == NULL);
    timer_stop(&c->timer);
    if (c->scratch != NULL)
        h1_give_scratch(c->worker, c->scratch);
    list_remove(&c->node);
    mem_free(c->given);
    mem_free(c);
}

void h1_close_now(struct h1_conn *c)
{
    struct h1_worker *w = c->worker;
    struct h1_site *site = c->site;
    tls_stream_free(c->stream.tls);
    if (c->stream.fd >= 0)
        loop_close(w->loop, c->stream.fd);
    h1_free_conn(c);
    h1_uncount(w, site);
}

void h1_close_idle(struct h1_conn *c)
{
    c->closing = true;
    if (c->scratch == NULL && c->stream.tls != NULL && !c->lingering)
        stream_shutdown(&c->stream); /* nothing is cut: the end is said */
    if (c->op.armed)
        op_cancel(c->worker->loop, &c->op);
    else if (c->scratch == NULL || !c->scratch->deferred) /* else h1_on_flush closes it */
        h1_close_now(c);
}

/* --- lingering --- */

void h1_begin_linger(struct h1_conn *c)
{
    char piece[4096];
    ssize_t n = 0;
    if (c->stream.tls != NULL)
        stream_shutdown(&c->stream);
    else
        n = shutdown(c->stream.fd, SHUT_WR);
    if (c->scratch != NULL)
        h1_give_scratch(c->worker, c->scratch);
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
        h1_set_deadline(c, LINGER_NS);
    else
        h1_close_idle(c);
}

void h1_go_on_lingering(struct h1_conn *c, size_t n)
{
    if (n >= c->linger_left) {
        h1_close_now(c);
        return;
    }
    c->linger_left -= (uint32_t)n;
    op_recv_lent(c->worker->loop, &c->op, c->stream.fd);
}
