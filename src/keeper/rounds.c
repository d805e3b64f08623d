/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll, level-triggered and one event at a time: whatever a callback stops watching or frees, no
 * event of it is in hand any more. What is ready is served in turn, so none is forgotten. Moments
 * and children are short lists, walked.
 */
#include "keeper/rounds.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

bool rounds_init(struct rounds *r)
{
    *r = (struct rounds){.epoll = epoll_create1(EPOLL_CLOEXEC)};
    list_init(&r->moments);
    list_init(&r->children);
    return r->epoll >= 0;
}

void rounds_deinit(struct rounds *r)
{
    if (r->epoll >= 0)
        close(r->epoll);
    r->epoll = -1;
}

bool watch_start(struct rounds *r, struct watch *w, int fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = w};
    if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) != 0)
        return false;
    w->fd = fd;
    return true;
}

void watch_stop(struct rounds *r, struct watch *w)
{
    if (w->fd >= 0)
        (void)epoll_ctl(r->epoll, EPOLL_CTL_DEL, w->fd, NULL);
    w->fd = -1;
}

void moment_init(struct moment *m, void (*on_due)(struct moment *))
{
    *m = (struct moment){.on_due = on_due};
    list_init(&m->node);
}

void moment_set(struct rounds *r, struct moment *m, uint64_t due_ns)
{
    list_remove(&m->node);
    m->due_ns = due_ns;
    list_append(&r->moments, &m->node);
}

void moment_clear(struct moment *m)
{
    list_remove(&m->node);
}

bool moment_is_set(const struct moment *m)
{
    return !list_empty(&m->node);
}

void child_add(struct rounds *r, struct child *c, pid_t pid)
{
    c->pid = pid;
    list_append(&r->children, &c->node);
}

static struct child *find_child(const struct rounds *r, pid_t pid)
{
    LIST_FOR(it, &r->children) {
        struct child *c = CONTAINER_OF(it, struct child, node);
        if (c->pid == pid)
            return c;
    }
    return NULL;
}

bool child_is_known(const struct rounds *r, pid_t pid)
{
    return find_child(r, pid) != NULL;
}

void rounds_reap(struct rounds *r)
{
    int status;
    pid_t pid;
    bool orphans = false;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct child *c = find_child(r, pid);
        orphans = orphans || c == NULL;
        if (c == NULL)
            continue;
        list_remove(&c->node);
        c->pid = 0;
        c->on_end(c, status);
    }
    if (orphans && r->on_orphan != NULL)
        r->on_orphan(r);
}

/* Milliseconds until the next moment, rounded up; -1: there is none. */
static int next_ms(const struct rounds *r)
{
    uint64_t earliest = UINT64_MAX, now = clock_mono_ns();
    LIST_FOR(it, &r->moments) {
        const struct moment *m = CONTAINER_OF(it, struct moment, node);
        if (m->due_ns < earliest)
            earliest = m->due_ns;
    }
    if (earliest == UINT64_MAX)
        return -1;
    uint64_t ms = earliest > now ? (earliest - now + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms < 60000 ? (int)ms : 60000;
}

/* The one that has been due for longest; NULL: none is due. */
static struct moment *next_due(struct rounds *r, uint64_t now)
{
    struct moment *first = NULL;
    LIST_FOR(it, &r->moments) {
        struct moment *m = CONTAINER_OF(it, struct moment, node);
        if (m->due_ns <= now && (first == NULL || m->due_ns < first->due_ns))
            first = m;
    }
    return first;
}

static void run_moments(struct rounds *r)
{
    uint64_t now = clock_mono_ns(); /* what is set for now by a callback waits for the next round */
    for (struct moment *m; !r->over && (m = next_due(r, now)) != NULL;) {
        list_remove(&m->node);
        m->on_due(m);
    }
}

void rounds_run(struct rounds *r)
{
    while (!r->over) {
        struct epoll_event e;
        int n = epoll_wait(r->epoll, &e, 1, next_ms(r));
        if (n < 0 && errno != EINTR)
            fatal("the keeper cannot wait for events");
        if (n == 1) {
            struct watch *w = e.data.ptr;
            w->on_ready(w);
        }
        run_moments(r);
    }
}
