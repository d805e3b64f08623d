/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers that leave when their fiber has ended. Responses are gathered so that head, first data and
 * end leave in one send. Where nothing else is left to do, that send is put off until the completion
 * at hand has been worked off, and needs no fiber (docs/decisions/0010).
 */
#include "wire/h1_internal.h"

#include <errno.h>

#include "loop/await.h"

static void on_flushed(struct op *op, int result);

static void finish_flush(struct h1_conn *c, bool sent)
{
    struct h1_scratch *s = c->scratch;
    s->deferred = false;
    s->wire_broken = !sent;
    c->op.on_done = h1_on_bytes;
    h1_end_exchange(c);
    arena_reset(&s->arena);
    buffer_clear(&s->out);
    H1_COUNT(c->worker->busy, -1u);
    if (!sent || c->closing) {
        h1_close_now(c);
    } else if (h1_draining(c)) { /* it began behind the head */
        h1_begin_linger(c);
    } else {
        (void)h1_next_head(s); /* empties the input: nothing was pipelined */
        h1_go_idle(c);
    }
}

/* True when all has left; what has not is in flush_message. */
static bool skip_flushed(struct h1_scratch *s, size_t n)
{
    struct msghdr *m = &s->flush_message;
    if (s->conn->stream.tls != NULL)
        tls_stream_sent(s->conn->stream.tls, n);
    h1_wrote(s, n);
    message_skip(m, n);
    return m->msg_iovlen == 0;
}

static void go_on_flushing(struct h1_conn *c)
{
    op_send(c->worker->loop, &c->op, c->stream.fd, &c->scratch->flush_message, 0);
    h1_set_deadline(c, h1_write_pause(c));
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

void h1_on_flush(struct task *t)
{
    struct h1_worker *w = CONTAINER_OF(t, struct h1_worker, flush);
    for (struct list *n; (n = list_pop(&w->flushes)) != NULL;)
        flush_answer(CONTAINER_OF(n, struct h1_scratch, flush)->conn);
}

void h1_defer_flush(struct h1_conn *c)
{
    struct h1_worker *w = c->worker;
    c->fiber = NULL;
    if (list_empty(&w->flush.node))
        loop_defer(w->loop, &w->flush);
    list_append(&w->flushes, &c->scratch->flush);
}
