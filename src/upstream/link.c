/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An idle link has an armed read that owns no buffer, so that a peer's close is seen at once and the
 * link dropped. The read stays armed when the link is taken: it is the read of the answer, too, so
 * that reuse costs no cancelled operation. Bytes that come while its user does something else (an
 * early answer during a long upload) are put aside.
 *
 * The limit of idle links per group counts those that nobody has wanted for a second: a burst that
 * ends at the same moment does not close what the next moment opens again. A timer that runs while
 * there are idle links looks once a second. A group without links is freed. The limit of all of a transport's
 * (upstream/idle.h) closes the one that has been idle for longest, as in Go.
 *
 * With TLS the same read gives ciphertext. It is decrypted into memory of this thread, which lasts as
 * long as a lent buffer does; what gives no plaintext (tickets, half a record) only arms the read again,
 * also of an idle link. What one read leaves inside the TLS stream is given before the next.
 */
#include "upstream/link.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "loop/await.h"
#include "upstream/iobuf.h"

#define SWEEP_NS NS_PER_S
#define SHORT_SWEEP_NS (20 * NS_PER_MS) /* while links are limited: others may wait for them */
#define ROOM_PAUSE_NS (5 * NS_PER_MS)

enum {
    SHARE_EACH = 8, /* every such link is left to other threads, though this one wants it */
    PLAIN_SIZE = 16384,
    READ_UNIT = 4096, /* of which every lent buffer is a multiple */
    CUT = -ECONNABORTED, /* the end of a TLS stream that was not said */
};

struct link_group {
    struct slice key;
    struct list idle;
    unsigned idle_count, count;
    int waiting; /* of this thread */
    unsigned given;
    struct link_limits limits;
};

struct link_wait {
    struct fiber *fiber;
    struct timer timer;
    struct slice bytes;
    int result;
    bool done;
};

static _Thread_local struct {
    struct map groups;
    struct timer sweep;
    unsigned idle;
    bool ready, draining;
    char *plain; /* what was decrypted last */
} mine;

static void on_sweep(struct timer *t);
static void on_bytes(struct op *op, int result);
static bool has_leftovers(struct link *l);
static void on_too_many(struct idle *i);

static void make_ready(void)
{
    if (mine.ready)
        return;
    map_init(&mine.groups, false);
    timer_init(&mine.sweep, on_sweep);
    mine.ready = true;
}

/* --- groups --- */

static struct link_group *group_of(struct slice key)
{
    make_ready();
    struct link_group *g = map_get(&mine.groups, key);
    if (g != NULL)
        return g;
    g = NEW(struct link_group);
    g->key = slice_of(slice_dup(key), key.len);
    list_init(&g->idle);
    map_put(&mine.groups, g->key, g);
    return g;
}

static void leave_group(struct link_group *g)
{
    if (--g->count > 0)
        return;
    map_remove(&mine.groups, g->key);
    mem_free((void *)(uintptr_t)g->key.ptr);
    mem_free(g);
}

static void leave_idle(struct link *l)
{
    list_remove(&l->node);
    idle_end(&l->all);
    l->idle = false;
    l->group->idle_count--;
    mine.idle--;
}

/* --- a link's life --- */

struct link *link_open(struct slice key, struct endpoint *endpoint, int fd)
{
    struct link *l = NEW(struct link);
    list_init(&l->node);
    list_init(&l->all.node);
    l->all.end = on_too_many;
    l->op.on_done = on_bytes;
    l->group = group_of(key);
    l->group->count++;
    l->endpoint = endpoint;
    endpoint_hold(endpoint);
    l->stream = (struct stream){.fd = fd};
    l->end = 1;
    return l;
}

bool link_reserve(struct endpoint *e, const struct link_limits *limits)
{
    int before = atomic_fetch_add_explicit(&e->links, 1, memory_order_relaxed);
    if (limits->links == 0 || before < (int)limits->links)
        return true;
    link_unreserve(e);
    return false;
}

void link_unreserve(struct endpoint *e)
{
    atomic_fetch_sub_explicit(&e->links, 1, memory_order_relaxed);
}

static void close_stream(struct stream *s, struct endpoint *endpoint)
{
    loop_close(loop_self(), s->fd);
    tls_stream_free(s->tls);
    link_unreserve(endpoint);
    endpoint_unref(endpoint);
}

struct stream link_leave(struct link *l)
{
    struct stream stream = l->stream;
    ASSERT(!l->op.armed && l->wait == NULL && !l->idle);
    if (l->stash != NULL)
        iobuf_give(l->stash);
    if (l->group != NULL)
        leave_group(l->group);
    mem_free(l);
    return stream;
}

static void free_link(struct link *l)
{
    struct endpoint *endpoint = l->endpoint;
    struct stream stream = link_leave(l);
    close_stream(&stream, endpoint);
}

void link_end(struct stream *s, struct endpoint *endpoint)
{
    if (s->tls != NULL)
        stream_shutdown(s); /* close_notify */
    close_stream(s, endpoint);
}

void link_close(struct link *l)
{
    if (l->idle)
        leave_idle(l);
    l->closing = true;
    if (l->stream.tls != NULL && l->end > 0)
        stream_shutdown(&l->stream); /* close_notify */
    if (!l->op.armed) {
        free_link(l);
        return;
    }
    shutdown(l->stream.fd, SHUT_RDWR); /* the peer shall know now */
    op_cancel(loop_self(), &l->op);
}

void link_abort(struct link *l)
{
    struct linger none = {1, 0};
    setsockopt(l->stream.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    link_close(l);
}

struct link *link_take(struct slice key)
{
    struct link_group *g = mine.ready ? map_get(&mine.groups, key) : NULL;
    if (g == NULL || list_empty(&g->idle))
        return NULL;
    struct link *l = CONTAINER_OF(g->idle.next, struct link, node);
    leave_idle(l);
    l->reused = true;
    return l;
}

/* Whether requests of other threads wait for links that this one could let go of. */
static bool wanted_elsewhere(const struct link_group *g, struct endpoint *e)
{
    return g->limits.links > 0 &&
           atomic_load_explicit(&e->waiting, memory_order_relaxed) > g->waiting;
}

enum err await_link_room(struct slice key, struct endpoint *e, const struct link_limits *limits,
                         struct link **taken)
{
    struct link_group *g = group_of(key);
    enum err err = OK;
    g->waiting++;
    g->count++; /* holds the group */
    atomic_fetch_add_explicit(&e->waiting, 1, memory_order_relaxed);
    *taken = NULL;
    while ((*taken = link_take(key)) == NULL && !link_reserve(e, limits)) {
        err = await_sleep(loop_now_ns(loop_self()) + ROOM_PAUSE_NS);
        if (err != OK)
            break;
    }
    atomic_fetch_sub_explicit(&e->waiting, 1, memory_order_relaxed);
    g->waiting--;
    leave_group(g);
    return err;
}

/* A read that filled its buffer may have left in the kernel what nobody asked for, which would be taken
 * for the next request's answer. */
static bool has_surplus(const struct link *l)
{
    char one;
    return l->filled && recv(l->stream.fd, &one, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

void link_give(struct link *l, const struct link_limits *limits)
{
    struct link_group *g = l->group;
    ASSERT(l->wait == NULL && !l->idle);
    if (mine.draining || link_has_news(l) || has_leftovers(l) || has_surplus(l) ||
        atomic_load_explicit(&l->endpoint->leaving, memory_order_relaxed)) {
        link_close(l);
        return;
    }
    g->limits = *limits;
    if (wanted_elsewhere(g, l->endpoint) && (g->waiting == 0 || ++g->given % SHARE_EACH == 0)) {
        link_close(l);
        return;
    }
    if (!l->op.armed)
        op_recv_lent(loop_self(), &l->op, l->stream.fd);
    l->idle = true;
    l->idle_ns = loop_now_ns(loop_self());
    list_prepend(&g->idle, &l->node);
    g->idle_count++;
    mine.idle++;
    idle_begin(&l->all, limits->idle_of, limits->idle_in_all);
    uint64_t sweep = l->idle_ns + (limits->links > 0 ? SHORT_SWEEP_NS : SWEEP_NS);
    if (!timer_running(&mine.sweep) || mine.sweep.deadline_ns > sweep)
        timer_start(loop_self(), &mine.sweep, sweep);
}

static void on_too_many(struct idle *i)
{
    link_close(CONTAINER_OF(i, struct link, all));
}

/* --- bytes --- */

static void put_aside(struct link *l, int result, struct slice bytes)
{
    if (result <= 0) {
        l->end = result;
        return;
    }
    if (l->stash == NULL)
        l->stash = iobuf_take();
    memcpy(l->stash, bytes.ptr, bytes.len);
    l->early = slice_of(l->stash, bytes.len);
}

static void deliver(struct link *l, int result, struct slice bytes)
{
    struct link_wait *w = l->wait;
    if (l->idle) { /* closed, or bytes that nobody asked for */
        leave_idle(l);
        free_link(l);
    } else if (w == NULL) {
        put_aside(l, result, bytes);
    } else {
        w->result = result;
        w->bytes = bytes;
        w->done = true;
        fiber_resume(w->fiber); /* the link may be gone behind this */
    }
}

/* What has come, as deliver wants it. False: nothing yet. */
static bool decrypt(struct link *l, struct slice ciphertext, int *result, struct slice *plain)
{
    size_t n;
    if (mine.plain == NULL)
        mine.plain = mem_alloc(PLAIN_SIZE);
    enum tls_step step = stream_decrypt(&l->stream, ciphertext, mine.plain, PLAIN_SIZE, &n);
    *plain = slice_of(mine.plain, n);
    *result = step == TLS_OK ? (int)n : step == TLS_END ? 0 : -EPROTO;
    return step == TLS_OK || step == TLS_END || step == TLS_FAILED;
}

static void on_bytes(struct op *op, int result)
{
    struct link *l = CONTAINER_OF(op, struct link, op);
    struct slice bytes = op->lent;
    l->filled = result > 0 && bytes.len % READ_UNIT == 0;
    if (l->closing)
        free_link(l);
    else if (l->stream.tls == NULL)
        deliver(l, result, bytes);
    else if (result <= 0)
        deliver(l, result == 0 ? CUT : result, SLICE_NONE);
    else if (decrypt(l, bytes, &result, &bytes))
        deliver(l, result, bytes);
    else
        op_recv_lent(loop_self(), &l->op, l->stream.fd);
}

/* Data, or an end, that the last read has left inside the TLS stream. */
static bool has_leftovers(struct link *l)
{
    int result;
    struct slice plain;
    return l->stream.tls != NULL && tls_stream_ready(l->stream.tls) &&
           decrypt(l, SLICE_NONE, &result, &plain);
}

static void on_deadline(struct timer *t)
{
    fiber_resume(CONTAINER_OF(t, struct link_wait, timer)->fiber);
}

static enum err end_of(struct link *l, int result)
{
    l->end = result;
    return result == 0 ? ERR_CLOSED : err_from_errno(-result);
}

enum err await_link(struct link *l, uint64_t deadline_ns, struct slice *bytes)
{
    struct fiber *f = fiber_self();
    struct link_wait w = {.fiber = f};
    *bytes = l->early;
    l->early = SLICE_NONE;
    if (bytes->len > 0)
        return OK;
    if (l->end <= 0)
        return end_of(l, l->end);
    TRY(f->cancelled);
    int result;
    if (l->stream.tls != NULL && !l->op.armed && tls_stream_ready(l->stream.tls) &&
        decrypt(l, SLICE_NONE, &result, bytes))
        return result > 0 ? OK : end_of(l, result);
    if (!l->op.armed)
        op_recv_lent(loop_self(), &l->op, l->stream.fd);
    timer_init(&w.timer, on_deadline);
    if (deadline_ns > 0)
        timer_start(loop_self(), &w.timer, deadline_ns);
    l->wait = &w;
    f->op = &l->op;
    fiber_suspend();
    f->op = NULL;
    l->wait = NULL;
    timer_stop(&w.timer);
    if (!w.done)
        return ERR_TIMEOUT;
    *bytes = w.bytes;
    if (w.result > 0)
        return OK;
    return f->cancelled != OK ? f->cancelled : end_of(l, w.result);
}

enum err await_link_into(struct link *l, char *buf, size_t cap, uint64_t deadline_ns, size_t *n)
{
    struct slice bytes;
    *n = 0;
    if (!l->op.armed && !link_has_news(l)) {
        enum err e = stream_recv(&l->stream, buf, cap, deadline_ns, n);
        if (e != ERR_TIMEOUT && *n == 0)
            l->end = e == OK ? 0 : CUT;
        TRY(e);
        l->filled = *n == cap || l->stream.tls != NULL;
        return *n > 0 ? OK : ERR_CLOSED;
    }
    ASSERT(cap >= PLAIN_SIZE);
    TRY(await_link(l, deadline_ns, &bytes));
    memcpy(buf, bytes.ptr, bytes.len);
    *n = bytes.len;
    return OK;
}

/* --- TLS --- */

bool link_tls_why(const struct link *l, char *out, size_t cap)
{
    if (l->stream.tls == NULL)
        return false;
    tls_client_why(l->stream.tls, out, cap);
    return true;
}

enum err await_link_tls(struct link *l, struct tls_client *c, struct slice name,
                        uint64_t deadline_ns, char *why, size_t cap)
{
    if (tls_client_begin(c, name, &l->stream.tls, why, cap) != OK)
        return ERR_DENIED;
    enum err e = stream_handshake(&l->stream, deadline_ns);
    if (e == ERR_INVALID) {
        l->end = -EPROTO;
        tls_client_why(l->stream.tls, why, cap);
        return ERR_DENIED;
    }
    if (e != OK)
        snprintf(why, cap, "TLS handshake: %s",
                 e == ERR_CLOSED ? "the server closed the connection" : err_text(e));
    if (e == ERR_CLOSED)
        l->end = CUT;
    return e;
}

/* --- idle ones --- */

/* The oldest stand at the end. */
static void sweep_group(struct link_group *g, uint64_t now)
{
    while (!list_empty(&g->idle)) {
        struct link *l = CONTAINER_OF(g->idle.prev, struct link, node);
        uint64_t age = now - l->idle_ns;
        bool over = g->idle_count > g->limits.idle_per_group && age >= SWEEP_NS;
        bool wanted = wanted_elsewhere(g, l->endpoint);
        bool late = g->limits.idle_timeout_ns > 0 && age >= g->limits.idle_timeout_ns;
        bool leaving = atomic_load_explicit(&l->endpoint->leaving, memory_order_relaxed);
        if (!over && !late && !wanted && !leaving)
            return;
        link_close(l); /* its read is armed: the link, and its group, go later */
    }
}

static void on_sweep(struct timer *t)
{
    uint64_t now = loop_now_ns(loop_self()), next = SWEEP_NS;
    size_t at = 0;
    for (struct map_entry *e; (e = map_next(&mine.groups, &at)) != NULL;) {
        struct link_group *g = e->value;
        sweep_group(g, now);
        if (g->limits.links > 0 && g->idle_count > 0)
            next = SHORT_SWEEP_NS;
    }
    if (mine.idle > 0)
        timer_start(loop_self(), t, now + next);
}

static void close_idle(void)
{
    size_t at = 0;
    for (struct map_entry *e; (e = map_next(&mine.groups, &at)) != NULL;) {
        struct link_group *g = e->value;
        for (unsigned left = g->idle_count; left > 0; left--)
            link_close(CONTAINER_OF(g->idle.next, struct link, node));
    }
}

void links_drain(void)
{
    make_ready();
    mine.draining = true;
    close_idle();
}

void links_thread_deinit(void)
{
    if (!mine.ready)
        return;
    close_idle();
    timer_stop(&mine.sweep);
    ASSERT(mine.idle == 0);
    loop_settle(loop_self()); /* what was armed is freed now, and the groups with it */
    idle_thread_deinit();
    map_deinit(&mine.groups);
    mem_free(mine.plain);
    mine.plain = NULL;
    mine.ready = mine.draining = false;
    stream_thread_deinit();
}

unsigned links_of(struct slice key)
{
    const struct link_group *g = mine.ready ? map_get(&mine.groups, key) : NULL;
    return g != NULL ? g->count : 0;
}

unsigned links_idle(void)
{
    return mine.idle;
}
