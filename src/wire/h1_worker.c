/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the HTTP/1 connections of one worker share: the memory of exchanges, taken when bytes come and
 * given back when a connection has nothing to do, and the drains, which close what is idle now and
 * what is busy behind its exchange.
 */
#include "wire/h1_internal.h"

#include "base/check.h"
#include "base/mem.h"
#include "wire/h2_conn.h"
#include "wire/proxy_stage.h"
#include "wire/tls_stage.h"

enum {
    ARENA_CHUNK = 8192,
    SCRATCH_KEEP = 256, /* free ones kept per worker */
};

void h1_worker_init(struct h1_worker *w, struct loop *loop, struct worker *worker)
{
    *w = (struct h1_worker){.loop = loop, .worker = worker, .date_s = -1};
    list_init(&w->conns);
    list_init(&w->taken);
    list_init(&w->stages);
    list_init(&w->handshakes);
    list_init(&w->flushes);
    list_init(&w->flush.node);
    w->flush.run = h1_on_flush;
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

/* --- the memory of exchanges --- */

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

void h1_take_scratch(struct h1_conn *c)
{
    c->scratch = take_scratch(c->worker,
                              (size_t)c->site->server->max_header_bytes + BODY_ROOM + 1024);
    c->scratch->begun_ns = loop_now_ns(c->worker->loop);
}

void h1_give_scratch(struct h1_worker *w, struct h1_scratch *s)
{
    if (w->scratch_free >= SCRATCH_KEEP) {
        free_scratch(s);
        return;
    }
    s->next = w->scratch;
    w->scratch = s;
    w->scratch_free++;
}

/* --- drains --- */

static void check_drained(struct h1_worker *w, struct h1_site *site)
{
    if (site != NULL && site->draining && site->count == 0 && site->on_empty != NULL)
        site->on_empty(site); /* the site may be gone behind this */
    if (w->draining && w->count == 0 && w->on_drained != NULL)
        w->on_drained(w);
}

bool h1_draining(const struct h1_conn *c)
{
    return c->worker->draining || c->site->draining;
}

bool h1_site_hurries(const struct h1_worker *w, const struct h1_site *site)
{
    return w->draining || site->draining;
}

void h1_uncount(struct h1_worker *w, struct h1_site *site)
{
    H1_COUNT(w->count, -1u);
    site->count--;
    check_drained(w, site);
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
            h1_set_deadline(c, FRESH_NS);
        else
            h1_close_idle(c);
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
            h1_close_idle(c);
    }
    LIST_FOR_SAFE(n, &w->taken)
    {
        struct takeover *holder = CONTAINER_OF(n, struct h1_taken, node)->holder;
        holder->hurry(holder);
    }
}
