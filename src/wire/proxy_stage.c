/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header must be taken off without a byte of what follows, which is HTTP's (or will be TLS'). So
 * the socket is peeked at, and only what certainly belongs to the header is read. While the bytes are
 * too few to tell a header from a request, nothing may be read, and a poll would be ready at once again:
 * then the next look comes a few milliseconds later.
 *
 * A peer that sends nothing until the time is over is one without a header; one that has begun a
 * header and does not end it is closed. The connection counts for its site and worker from here on.
 */
#include "wire/proxy_stage.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/proxy_header.h"
#include "wire/h1_internal.h"

#define LOOK_AGAIN_NS (10 * NS_PER_MS)

struct stage {
    struct op op;
    struct timer timer;
    struct list node;
    struct h1_worker *worker;
    struct h1_site *site;
    enum proxy_use use;
    uint64_t deadline_ns; /* 0: none */
    int fd;
    bool closing;
    size_t len; /* bytes of the header that have been read */
    char bytes[PROXY_HEADER_MAX];
};

static void on_readable(struct op *op, int result);
static void on_time(struct timer *t);

static uint64_t now(const struct stage *s)
{
    return loop_now_ns(s->worker->loop);
}

static void leave(struct stage *s)
{
    timer_stop(&s->timer);
    list_remove(&s->node);
    mem_free(s);
}

static void close_stage(struct stage *s, const char *why)
{
    if (why != NULL)
        LOG(LOG_DEBUG, "caddy.listeners.proxy_protocol", "connection closed", LOG_CSTR("reason", why));
    s->closing = true;
    if (s->op.armed) {
        op_cancel(s->worker->loop, &s->op);
        return;
    }
    struct h1_worker *w = s->worker;
    struct h1_site *site = s->site;
    loop_close(w->loop, s->fd);
    leave(s);
    h1_uncount(w, site);
}

/* On to HTTP. */
static void hand_over(struct stage *s, const struct proxy_header *h)
{
    struct h1_addresses *given = NULL;
    if (h != NULL && h->given && (s->use == PROXY_USE || s->use == PROXY_REQUIRE)) {
        given = NEW(struct h1_addresses);
        *given = (struct h1_addresses){h->from, h->to};
    }
    struct h1_worker *w = s->worker;
    struct h1_site *site = s->site;
    int fd = s->fd;
    leave(s);
    h1_conn_go_on(w, site, fd, given);
}

static void without_header(struct stage *s)
{
    if (s->use == PROXY_REQUIRE)
        close_stage(s, "a PROXY header is required, and none came");
    else
        hand_over(s, NULL);
}

static void wait_for(struct stage *s, bool bytes)
{
    uint64_t look = now(s) + LOOK_AGAIN_NS;
    if (bytes) {
        op_poll(s->worker->loop, &s->op, s->fd, POLLIN);
        look = s->deadline_ns;
    } else if (s->deadline_ns != 0 && s->deadline_ns < look) {
        look = s->deadline_ns;
    }
    if (look != 0)
        timer_start(s->worker->loop, &s->timer, look);
}

/* Reads what was peeked at; it is there. */
static bool take(struct stage *s, size_t n)
{
    ssize_t got = recv(s->fd, s->bytes + s->len, n, MSG_DONTWAIT);
    if (got > 0)
        s->len += (size_t)got;
    return got == (ssize_t)n;
}

static void look_at(struct stage *s, size_t peeked)
{
    struct proxy_header h;
    switch (proxy_header_parse(slice_of(s->bytes, s->len + peeked), &h)) {
    case PROXY_NONE:
        without_header(s);
        break;
    case PROXY_UNSURE:
        wait_for(s, false);
        break;
    case PROXY_MORE:
        if (s->use == PROXY_REJECT || !take(s, peeked))
            close_stage(s, "a PROXY header from an address that may not send one");
        else
            wait_for(s, true);
        break;
    case PROXY_DONE:
        if (s->use == PROXY_REJECT || !take(s, h.len - s->len))
            close_stage(s, "a PROXY header from an address that may not send one");
        else
            hand_over(s, &h);
        break;
    case PROXY_BAD:
        close_stage(s, "a PROXY header that is not well formed");
        break;
    }
}

static void look(struct stage *s)
{
    ssize_t n;
    do
        n = recv(s->fd, s->bytes + s->len, sizeof s->bytes - s->len, MSG_PEEK | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        look_at(s, (size_t)n);
    else if (n < 0 && errno == EAGAIN)
        wait_for(s, true);
    else
        close_stage(s, NULL);
}

static void on_readable(struct op *op, int result)
{
    struct stage *s = CONTAINER_OF(op, struct stage, op);
    if (s->closing)
        close_stage(s, NULL);
    else if (result == -ECANCELED) /* the time was over, and nothing had come */
        without_header(s);
    else
        look(s);
}

static void on_time(struct timer *t)
{
    struct stage *s = CONTAINER_OF(t, struct stage, timer);
    bool late = s->deadline_ns != 0 && now(s) >= s->deadline_ns;
    if (!late && !s->op.armed)
        look(s);
    else if (!late)
        timer_start(s->worker->loop, &s->timer, s->deadline_ns);
    else if (s->len > 0)
        close_stage(s, "a PROXY header that did not end in time");
    else if (s->op.armed)
        op_cancel(s->worker->loop, &s->op);
    else
        without_header(s);
}

void proxy_stage_open(struct h1_worker *w, struct h1_site *site, const struct proxy_policy *policy,
                      int fd)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof peer;
    (void)!getpeername(fd, (struct sockaddr *)&peer, &len);
    enum proxy_use use = proxy_policy_for(policy, &peer);
    if (use == PROXY_SKIP) {
        h1_conn_go_on(w, site, fd, NULL);
        return;
    }
    struct stage *s = mem_alloc(sizeof *s);
    memset(s, 0, offsetof(struct stage, bytes));
    s->op.on_done = on_readable;
    s->worker = w;
    s->site = site;
    s->use = use;
    s->fd = fd;
    s->deadline_ns = policy->timeout_ns > 0 ? loop_now_ns(w->loop) + policy->timeout_ns : 0;
    timer_init(&s->timer, on_time);
    list_append(&w->stages, &s->node);
    look(s);
}

void proxy_stage_hurry(struct h1_worker *w, const struct h1_site *site, uint64_t ns)
{
    LIST_FOR(n, &w->stages)
    {
        struct stage *s = CONTAINER_OF(n, struct stage, node);
        uint64_t by = now(s) + ns;
        if ((site != NULL && s->site != site) || (s->deadline_ns != 0 && s->deadline_ns <= by))
            continue;
        s->deadline_ns = by;
        if (!timer_running(&s->timer) || s->timer.deadline_ns > by)
            timer_start(w->loop, &s->timer, by);
    }
}

void proxy_stage_abort(struct h1_worker *w)
{
    LIST_FOR_SAFE(n, &w->stages)
        close_stage(CONTAINER_OF(n, struct stage, node), NULL);
}
