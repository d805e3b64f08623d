/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A site is a listening address as one worker sees it: its socket with an armed accept, and the
 * server that answers there now. When a new generation keeps the address, only the pointer to the
 * server changes; socket and connections stay. When the address goes, the site stops accepting,
 * lets its connections finish under the generation that they knew, and is freed with the last one.
 */
#include "app/worker.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file_cache.h"
#include "http/http_metrics.h"
#include "loop/fiber.h"
#include "net/listener.h"
#include "net/resolver.h"
#include "proxy/proxy.h"
#include "tls/stream.h"
#include "tls/tls_server.h"

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define SAY_AGAIN_NS (60 * NS_PER_S)

struct worker_site {
    struct h1_site site;
    struct list node;
    struct worker *worker;
    struct op accept;
    struct timer pause; /* accepting again after the descriptors ran out */
    int fd;
    struct slice key;   /* malloc'd */
    struct generation *pinned; /* stopping: the generation of site.server, held */
    bool stopping;
    uint64_t said_ns; /* when it was last said that the descriptors ran out; 0: never */
};

static struct worker_site *of(struct h1_site *s)
{
    return CONTAINER_OF(s, struct worker_site, site);
}

static const struct http_server *on_current(struct h1_site *s, struct generation **g)
{
    struct worker_site *site = of(s);
    *g = site->pinned != NULL ? site->pinned : site->worker->generation;
    generation_hold(*g, site->worker->index);
    return site->site.server;
}

static void on_done(struct h1_site *s, struct generation *g)
{
    generation_release(g, of(s)->worker->index);
}

/* Told once, when no connection and no socket is left. */
static void check_drained(struct worker *w)
{
    struct mail *m = w->drained;
    if (!w->h1.draining || w->h1.count > 0 || !list_empty(&w->sites) || m == NULL)
        return;
    w->drained = NULL;
    mailbox_post(w->control, m);
}

static void free_site(struct worker_site *site)
{
    struct worker *w = site->worker;
    if (site->accept.armed || site->site.count > 0)
        return;
    timer_stop(&site->pause);
    if (site->fd >= 0)
        loop_close(w->loop, site->fd);
    if (site->pinned != NULL)
        generation_release(site->pinned, w->index);
    list_remove(&site->node);
    mem_free((void *)(uintptr_t)site->key.ptr);
    mem_free(site);
    check_drained(w);
}

static void on_empty(struct h1_site *s)
{
    free_site(of(s));
}

/* Closing a socket resets what is queued on it: those clients were promised a connection. */
static void close_listener(struct worker_site *site)
{
    struct worker *w = site->worker;
    for (unsigned i = 0; i < LISTEN_BACKLOG; i++) {
        int fd = accept4(site->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            h1_conn_open(&w->h1, &site->site, fd);
        else if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO)
            break;
    }
    loop_close(w->loop, site->fd);
    site->fd = -1;
}

static void say_starved(struct worker_site *site)
{
    uint64_t now = loop_now_ns(site->worker->loop);
    if (site->said_ns > 0 && now - site->said_ns < SAY_AGAIN_NS)
        return;
    LOG(LOG_ERROR, "http", "out of file descriptors: accepting again when some are free",
        LOG_STR("listener", site->key), LOG_NUM("connections", site->worker->h1.count));
    site->said_ns = now;
}

static void on_accept(struct op *op, int result)
{
    struct worker_site *site = CONTAINER_OF(op, struct worker_site, accept);
    struct worker *w = site->worker;
    if (result >= 0)
        h1_conn_open(&w->h1, &site->site, result);
    if (op->armed)
        return;
    if (site->stopping) {
        close_listener(site);
        free_site(site);
        return;
    }
    if (result == -EMFILE || result == -ENFILE)
        say_starved(site);
    if (result < 0)
        timer_start(w->loop, &site->pause, loop_now_ns(w->loop) + ACCEPT_PAUSE_NS);
    else
        op_accept(w->loop, &site->accept, site->fd);
}

static void on_pause_end(struct timer *t)
{
    struct worker_site *site = CONTAINER_OF(t, struct worker_site, pause);
    if (!site->stopping && !site->accept.armed)
        op_accept(site->worker->loop, &site->accept, site->fd);
}

/* --- orders --- */

static void stop_site(struct worker_site *site)
{
    struct worker *w = site->worker;
    site->stopping = true;
    if (w->generation != NULL) {
        site->pinned = w->generation;
        generation_hold(site->pinned, w->index);
    }
    timer_stop(&site->pause);
    if (site->accept.armed) {
        op_cancel(w->loop, &site->accept);
    } else if (site->fd >= 0) {
        close_listener(site);
    }
    h1_site_drain(&w->h1, &site->site);
}

static void open_site(struct worker *w, const struct new_socket *s)
{
    struct worker_site *site = NEW(struct worker_site);
    site->site = (struct h1_site){.current = on_current, .done = on_done, .on_empty = on_empty};
    site->worker = w;
    site->fd = s->fd;
    site->accept.on_done = on_accept;
    site->key = slice_of(slice_dup(s->key), s->key.len);
    timer_init(&site->pause, on_pause_end);
    list_append(&w->sites, &site->node);
}

static void set_probe(int fd, int option, int64_t value, int fallback, int max)
{
    int v = value > max ? max : value > 0 ? (int)value : fallback;
    if (value >= 0)
        (void)setsockopt(fd, IPPROTO_TCP, option, &v, sizeof v);
}

static int64_t whole_seconds(int64_t ns)
{
    return ns > 0 ? (ns + (int64_t)NS_PER_S - 1) / (int64_t)NS_PER_S : ns;
}

/* Accepted sockets inherit what their listener has, so a connection costs no call for it. On a Unix
 * socket it means nothing, and the kernel refuses. */
static void set_keepalive(int fd, const struct http_server *s)
{
    int on = s->keepalive_interval_ns >= 0;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    if (!on)
        return;
    set_probe(fd, TCP_KEEPINTVL, whole_seconds(s->keepalive_interval_ns), 15, 32767);
    set_probe(fd, TCP_KEEPIDLE, whole_seconds(s->keepalive_idle_ns), 15, 32767);
    set_probe(fd, TCP_KEEPCNT, s->keepalive_count, 9, 127);
}

static const struct bound *bound_of(const struct generation *g, struct slice key)
{
    for (size_t i = 0; i < g->bounds_count; i++) {
        if (slice_eq(g->bounds[i].key, key))
            return &g->bounds[i];
    }
    return NULL;
}

static void adopt(struct worker *w, const struct worker_order *o)
{
    struct generation *old = w->generation;
    for (size_t i = 0; i < o->sockets_count; i++)
        open_site(w, &o->sockets[i]);
    LIST_FOR_SAFE(n, &w->sites)
    {
        struct worker_site *site = CONTAINER_OF(n, struct worker_site, node);
        const struct bound *bound = bound_of(o->generation, site->key);
        if (site->stopping)
            continue;
        if (bound == NULL) {
            stop_site(site);
            continue;
        }
        set_keepalive(site->fd, bound->server);
        site->site.server = bound->server;
        site->site.protocols = bound->protocols;
        site->site.tls = bound->tls ? bound->server->tls : NULL;
    }
    w->generation = o->generation;
    LIST_FOR(n, &w->sites)
    {
        struct worker_site *site = CONTAINER_OF(n, struct worker_site, node);
        if (!site->stopping && !site->accept.armed && !timer_running(&site->pause))
            op_accept(w->loop, &site->accept, site->fd);
    }
    proxy_retire_others(w->generation);
    warm_begin(&w->generation->provision, w->generation, generation_keep, generation_let_go);
    if (old != NULL)
        generation_retire(old, w->index);
}

static void on_drained(struct h1_worker *h)
{
    check_drained(CONTAINER_OF(h, struct worker, h1));
}

static void drain(struct worker *w)
{
    LIST_FOR_SAFE(n, &w->sites)
    {
        struct worker_site *site = CONTAINER_OF(n, struct worker_site, node);
        if (!site->stopping)
            stop_site(site);
    }
    proxy_retire_others(NULL);
    proxy_drain();
    h1_worker_drain(&w->h1);
}

static void carry_out(struct mail *m)
{
    struct worker_order *o = CONTAINER_OF(m, struct worker_order, mail);
    struct worker *w = o->worker;
    switch (o->kind) {
    case ORDER_ADOPT:
        adopt(w, o);
        break;
    case ORDER_DRAIN:
        w->drained = o->drained;
        drain(w);
        break;
    case ORDER_ABORT:
        h1_worker_abort(&w->h1);
        break;
    case ORDER_COUNT:
        o->live = (struct worker_live){loop_armed(w->loop), fiber_live(w->loop), w->h1.count,
                                       w->h1.busy};
        break;
    case ORDER_END:
        loop_stop(w->loop);
        break;
    }
    if (o->done != NULL)
        sem_post(o->done);
}

void worker_tell(struct worker *w, struct worker_order *o)
{
    o->worker = w;
    o->mail.run = carry_out;
    mailbox_post(w->loop, &o->mail);
}

/* --- the thread --- */

static void *run(void *arg)
{
    struct worker *w = arg;
    char name[16];
    snprintf(name, sizeof name, "worker-%u", w->index);
    prctl(PR_SET_NAME, name);
    w->failed = loop_create(w->kind, &w->loop);
    if (w->failed != OK) {
        sem_post(&w->started);
        return NULL;
    }
    list_init(&w->sites);
    h1_worker_init(&w->h1, w->loop, w);
    w->h1.on_drained = on_drained;
    file_cache_thread_init();
    http_metrics_thread(w->index);
    sem_post(&w->started);
    loop_run(w->loop);
    if (w->generation != NULL)
        generation_retire(w->generation, w->index);
    file_cache_thread_deinit();
    h1_worker_deinit(&w->h1);
    proxy_thread_deinit();
    resolver_thread_deinit();
    tls_server_thread_deinit();
    stream_thread_deinit();
    loop_settle(w->loop);
    loop_destroy(w->loop);
    return NULL;
}

enum err worker_start(struct worker *w, unsigned index, enum loop_kind kind, struct loop *control)
{
    *w = (struct worker){.index = index, .kind = kind, .control = control};
    sem_init(&w->started, 0, 0);
    if (pthread_create(&w->thread, NULL, run, w) != 0)
        return ERR_LIMIT;
    while (sem_wait(&w->started) != 0) {
    }
    if (w->failed != OK) {
        pthread_join(w->thread, NULL);
        sem_destroy(&w->started);
    }
    return w->failed;
}

void worker_join(struct worker *w)
{
    pthread_join(w->thread, NULL);
    sem_destroy(&w->started);
}
