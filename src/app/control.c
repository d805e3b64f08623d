/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration is applied in one order: provision it, ask the keeper for the sockets that are
 * new, tell every worker, then release what is not used any more. Up to the telling, a failure
 * leaves everything as it was. The work runs on the thread's own large stack, never on a fiber:
 * JSON is read recursively. Admin requests, which are fibers of this thread, go there for it.
 */
#include "app/control.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin/admin.h"
#include "app/admin_site.h"
#include "app/autosave.h"
#include "app/config_file.h"
#include "app/config_source.h"
#include "app/https.h"
#include "app/server_rights.h"
#include "app/worker.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log_stream.h"
#include "base/mem.h"
#include "certs/acme_client.h"
#include "certs/challenge_listener.h"
#include "certs/pki_app.h"
#include "client/fetch.h"
#include "http/http_metrics.h"
#include "keeper/keeper.h"
#include "keeper/keeper_wire.h"
#include "loop/await.h"
#include "loop/offload.h"
#include "net/address.h"
#include "net/resolver.h"
#include "version.h"

#define LOG_FLUSH_NS (5 * NS_PER_S) /* at the end, for what is not written yet */
#define WATCH_NS NS_PER_S

struct used_address { /* what the keeper holds for us */
    struct used_address *next;
    struct slice key; /* malloc'd */
    char network[16], host[256];
    uint16_t port, got_port; /* asked for, and what the kernel gave */
};

static struct {
    struct loop *loop;
    int keeper;
    struct op keeper_op;
    const struct control_start *start;
    struct slice user; /* of the first configuration, malloc'd: whose this process became */
    struct worker *workers;
    unsigned workers_count, drained;
    struct generation *generation; /* the newest */
    struct used_address *addresses;
    struct h1_worker admin_worker;
    struct timer stop_timer, delay_timer, grace_timer, watch_timer;
    json_t *watched; /* what --watch has seen last */
    bool watch_failed;
    struct worker_order *drain_orders, *abort_orders;
    struct mail *drained_mails;
    bool stopping, applying, https_stopped;
    bool reload_asked, stop_asked; /* orders that came while a configuration is applied */
    struct task orders;
    int status;
    uint64_t reloads, failed_reloads;
    _Atomic int64_t loaded_wall_ns; /* of the last configuration that was taken over */
    atomic_int last_load_ok;
} control;

/* --- the keeper --- */

static void on_keeper(struct op *op, int result);

static void watch_keeper(void)
{
    control.keeper_op.on_done = on_keeper;
    op_poll(control.loop, &control.keeper_op, control.keeper, POLLIN);
}

static void tell_keeper(enum keeper_kind kind, uint32_t status, const char *text)
{
    struct keeper_message m = {.kind = kind, .status = status};
    snprintf(m.text, sizeof m.text, "%s", text);
    (void)!keeper_send(control.keeper, &m, NULL, 0);
}

static void obey(enum keeper_kind kind);

/* The keeper's answer to what was just sent. Orders that come first are kept for later: obeyed here,
 * a reload would take the answer that is on its way for its own. */
static enum err await_keeper(struct keeper_message *m, int *fds, unsigned *got)
{
    unsigned room = *got;
    for (;;) {
        *got = room;
        TRY(keeper_receive(control.keeper, m, fds, got, 0));
        if (m->kind == KEEPER_SOCKETS)
            return OK;
        obey(m->kind);
    }
}

/* Asks for the sockets of an address and waits for the answer. */
static enum err ask_sockets(struct used_address *a, unsigned count, int *fds, unsigned *got,
                            char *error, size_t cap)
{
    struct keeper_message m = {.kind = KEEPER_LISTEN, .port = a->port, .count = (uint16_t)count,
                               .uid = geteuid(), .gid = getegid()};
    memcpy(m.network, a->network, sizeof m.network);
    memcpy(m.host, a->host, sizeof m.host);
    TRY(keeper_send(control.keeper, &m, NULL, 0));
    *got = KEEPER_FDS;
    enum err e = await_keeper(&m, fds, got);
    if (e != OK) {
        snprintf(error, cap, "the keeper process does not answer: %s", err_text(e));
        return e;
    }
    while (*got > count)
        close(fds[--*got]);
    if (m.error != OK) {
        snprintf(error, cap, "%s", m.text[0] != '\0' ? m.text : err_text((enum err)m.error));
        return (enum err)m.error;
    }
    a->got_port = m.port;
    return *got > 0 ? OK : ERR_IO;
}

/* Returns when the keeper has let go: its copy would go on taking connections that nobody accepts,
 * and reset them at its end. */
static void release_address(struct used_address *a)
{
    unsigned none = 0;
    struct keeper_message m = {.kind = KEEPER_RELEASE, .port = a->port};
    memcpy(m.network, a->network, sizeof m.network);
    memcpy(m.host, a->host, sizeof m.host);
    if (keeper_send(control.keeper, &m, NULL, 0) == OK)
        (void)!await_keeper(&m, NULL, &none);
    mem_free((void *)(uintptr_t)a->key.ptr);
    mem_free(a);
}

static struct used_address *new_address(struct slice key, struct slice network, struct slice host,
                                        uint16_t port)
{
    struct used_address *a = NEW(struct used_address);
    a->key = slice_of(slice_dup(key), key.len);
    snprintf(a->network, sizeof a->network, SLICE_FMT, SLICE_ARG(network));
    snprintf(a->host, sizeof a->host, SLICE_FMT, SLICE_ARG(host));
    a->port = port;
    return a;
}

static struct used_address *find_address(struct slice key)
{
    for (struct used_address *a = control.addresses; a != NULL; a = a->next) {
        if (slice_eq(a->key, key))
            return a;
    }
    return NULL;
}

/* --- new sockets of a generation --- */

struct opening {
    struct new_socket *per_worker[WORKERS_MAX]; /* arrays of `count` */
    size_t count;
    struct used_address *addresses; /* not yet among the used ones */
};

static void abandon(struct opening *o)
{
    for (unsigned w = 0; w < control.workers_count; w++) {
        for (size_t i = 0; i < o->count; i++)
            close(o->per_worker[w][i].fd);
    }
    while (o->addresses != NULL) {
        struct used_address *a = o->addresses;
        o->addresses = a->next;
        release_address(a);
    }
}

/* One socket for each worker; where there are fewer, the rest get copies. What is not handed out is
 * closed. */
static enum err spread(struct opening *o, struct slice key, const int *fds, unsigned got)
{
    unsigned w;
    for (w = 0; w < control.workers_count; w++) {
        int fd = w < got ? fds[w] : fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            break;
        o->per_worker[w][o->count] = (struct new_socket){key, fd};
    }
    for (unsigned i = w; i < got; i++)
        close(fds[i]);
    if (w == control.workers_count) {
        o->count++;
        return OK;
    }
    while (w > 0)
        close(o->per_worker[--w][o->count].fd);
    return ERR_LIMIT;
}

static enum err open_bound(struct opening *o, const struct bound *b, char *error, size_t cap)
{
    int fds[KEEPER_FDS];
    unsigned got;
    if (find_address(b->key) != NULL)
        return OK;
    if (b->host.len >= sizeof ((struct used_address *)0)->host) {
        snprintf(error, cap, "listen address is too long");
        return ERR_INVALID;
    }
    struct used_address *a = new_address(b->key, b->network, b->host, b->port);
    enum err e = ask_sockets(a, control.workers_count, fds, &got, error, cap);
    if (e != OK) {
        mem_free((void *)(uintptr_t)a->key.ptr);
        mem_free(a);
        return e;
    }
    a->next = o->addresses;
    o->addresses = a;
    e = spread(o, b->key, fds, got);
    if (e != OK)
        snprintf(error, cap, "listen " SLICE_FMT ": out of file descriptors", SLICE_ARG(b->key));
    return e;
}

static enum err open_all(struct opening *o, struct generation *g, char *error, size_t cap)
{
    for (unsigned w = 0; w < control.workers_count; w++)
        o->per_worker[w] = ARENA_ARRAY(&g->arena, struct new_socket, g->bounds_count + 1);
    for (size_t i = 0; i < g->bounds_count; i++) {
        enum err e = open_bound(o, &g->bounds[i], error, cap);
        if (e != OK) {
            abandon(o);
            return e;
        }
    }
    return OK;
}

/* --- the workers --- */

static void wait_all(sem_t *done, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        while (sem_wait(done) != 0) {
        }
    }
}

static void adopt(struct generation *g, const struct opening *o)
{
    sem_t done;
    struct worker_order orders[WORKERS_MAX];
    sem_init(&done, 0, 0);
    for (unsigned w = 0; w < control.workers_count; w++) {
        orders[w] = (struct worker_order){.kind = ORDER_ADOPT, .generation = g,
                                          .sockets = o->per_worker[w], .sockets_count = o->count,
                                          .done = &done};
        worker_tell(&control.workers[w], &orders[w]);
    }
    wait_all(&done, control.workers_count);
    sem_destroy(&done);
}

static bool still_bound(const struct generation *g, struct slice key)
{
    for (size_t i = 0; i < g->bounds_count; i++) {
        if (slice_eq(g->bounds[i].key, key))
            return true;
    }
    return false;
}

/* Before the workers close their sockets: the last one that is closed resets what is queued. */
static void release_gone(const struct generation *g)
{
    struct used_address **at = &control.addresses;
    while (*at != NULL) {
        struct used_address *a = *at;
        if (still_bound(g, a->key)) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        release_address(a);
    }
}

static void keep_addresses(struct used_address *fresh)
{
    struct used_address **at = &control.addresses;
    while (*at != NULL)
        at = &(*at)->next;
    *at = fresh;
}

/* --- what the admin endpoint needs --- */

static enum err open_admin_socket(const struct network_address *a, int *fd, char *error, size_t cap)
{
    int fds[KEEPER_FDS];
    unsigned got;
    struct used_address *used = new_address(SLICE("admin"), a->network, a->host, a->first_port);
    enum err e = ask_sockets(used, 1, fds, &got, error, cap);
    mem_free((void *)(uintptr_t)used->key.ptr);
    mem_free(used);
    if (e == OK)
        *fd = fds[0];
    return e;
}

/* The keeper holds the endpoint's socket as it does a server's, and must let it go as well. */
static void release_admin_socket(const struct network_address *a)
{
    release_address(new_address(SLICE("admin"), a->network, a->host, a->first_port));
}

/* A port that is open for as long as an authority looks for an answer there; the keeper keeps none of
 * it. Where one of our servers listens, that one answers. */
static enum err bind_challenge_port(struct slice host, uint16_t port, int *fd, char *why, size_t cap)
{
    int fds[KEEPER_FDS];
    unsigned got;
    const struct generation *g = control.generation;
    for (size_t i = 0; g != NULL && i < g->bounds_count; i++) {
        if (g->bounds[i].port == port && !network_is_unix(g->bounds[i].network))
            return ERR_EXISTS;
    }
    struct used_address *used = new_address(SLICE("challenge"), SLICE("tcp"), host, port);
    enum err e = ask_sockets(used, 1, fds, &got, why, cap);
    if (e == OK) {
        *fd = fds[0];
        release_address(used);
        return OK;
    }
    mem_free((void *)(uintptr_t)used->key.ptr);
    mem_free(used);
    return e;
}

static const struct admin_host admin_host = {open_admin_socket, release_admin_socket};

/* --- applying --- */

static void publish_logs(const struct generation *g)
{
    const char *to = logging_default_name(&g->logging);
    const char *from = control.generation != NULL
                           ? logging_default_name(&control.generation->logging)
                           : "stderr";
    if (strcmp(from, to) != 0)
        LOG(LOG_INFO, "", "redirected default logger", LOG_CSTR("from", from), LOG_CSTR("to", to));
    log_publish(&g->logging.set);
    logging_commit(&g->logging);
}

/* HTTP/3 is asked for by default: that it is left out is said once a configuration. */
static void tell_left_out(const struct generation *g)
{
    for (size_t i = 0; i < g->servers_count; i++) {
        if (g->servers[i].tls != NULL && (g->servers[i].protocols & HTTP_3) != 0) {
            LOG(LOG_INFO, "http", "HTTP/3 is not spoken yet: it is left out of the protocols");
            return;
        }
    }
}

static void tell_running(const struct generation *g)
{
    static const struct slice names[] = {{"h1", 2}, {"h2", 2}, {"h2c", 3}};
    tell_left_out(g);
    for (size_t i = 0; i < g->servers_count; i++) {
        struct slice spoken[3];
        size_t n = 0;
        for (unsigned p = 0; p < 3; p++)
            if ((g->servers[i].protocols & 1u << p) != 0)
                spoken[n++] = names[p];
        LOG(LOG_INFO, "http.log", "server running", LOG_STR("name", g->servers[i].name),
            LOG_LIST("protocols", spoken, n));
    }
}

/* Privileges that were given up are not to be had again. */
static enum err refuse_other_user(const struct generation *g, char *error, size_t cap)
{
    if (slice_eq(g->user, control.user))
        return OK;
    snprintf(error, cap, "portico.user: the server process runs as \"" SLICE_FMT "\", and cannot "
             "become \"" SLICE_FMT "\" while it runs: restart portico", SLICE_ARG(control.user),
             SLICE_ARG(slice_take(g->user, 100)));
    return ERR_DENIED;
}

/* Its logs are written to until the process ends. */
static void hold_newest(struct generation *g)
{
    struct generation *old = control.generation;
    generation_keep(g);
    control.generation = g;
    if (old != NULL)
        generation_let_go(old);
}

static enum err apply(json_t *document, char *error, size_t cap)
{
    struct generation *g;
    struct opening opening = {0};
    struct admin_site *admin;
    TRY(generation_create(document, control.workers_count, &g, error, cap));
    g->control = control.loop;
    if (refuse_other_user(g, error, cap) != OK) {
        generation_free(g);
        return ERR_DENIED;
    }
    enum err e = logging_open(&g->logging, error, cap);
    if (e == OK)
        e = open_all(&opening, g, error, cap);
    if (e == OK) {
        e = admin_site_prepare(g, &admin, error, cap);
        if (e != OK)
            abandon(&opening);
    }
    if (e != OK) {
        generation_free(g);
        return e;
    }
    publish_logs(g);
    https_commit(g);
    release_gone(g);
    adopt(g, &opening);
    keep_addresses(opening.addresses);
    hold_newest(g);
    tell_running(g);
    admin_site_commit(g, admin);
    return OK;
}

/* Behind the word to the keeper: it shall not wait for the disk. */
static void save(void)
{
    if (control.generation->persist)
        autosave(control.generation->document);
}

static enum err apply_counted(json_t *document, char *error, size_t cap)
{
    bool first = control.generation == NULL;
    ASSERT(!control.applying);
    control.applying = true;
    if (!first && !control.stopping)
        tell_keeper(KEEPER_RELOADING, 0, "");
    enum err e = control.stopping ? ERR_CANCELLED : apply(document, error, cap);
    control.applying = false;
    if (!first && !control.stopping)
        tell_keeper(KEEPER_READY, 0, e == OK ? "" : error);
    if (!first && e == OK)
        save();
    if (control.reload_asked || control.stop_asked)
        loop_defer(control.loop, &control.orders);
    if (e == ERR_CANCELLED)
        snprintf(error, cap, "the server is shutting down");
    atomic_store(&control.last_load_ok, e == OK);
    if (e == OK)
        atomic_store(&control.loaded_wall_ns, clock_wall_ns());
    if (e == OK)
        control.reloads++;
    else
        control.failed_reloads++;
    return e;
}

/* --- what the admin API asks for --- */

static enum err load(json_t *document, bool force, char *error, size_t cap)
{
    if (!force && json_equal(document, control.generation->document)) {
        LOG(LOG_INFO, "", "config is unchanged");
        return OK;
    }
    return apply_counted(document, error, cap);
}

static enum err face_adapt(struct slice adapter, struct slice body, json_t **out,
                           json_t **warnings, char *error, size_t cap)
{
    enum err e = config_adapt(adapter, SLICE("Caddyfile"), body, out, warnings, error, cap);
    if (e == ERR_UNSUPPORTED)
        snprintf(error, cap, "unrecognized config adapter '" SLICE_FMT "'",
                 SLICE_ARG(slice_take(adapter, 100)));
    return e;
}

static const json_t *face_document(void)
{
    return control.generation->document;
}

static void begin_stop(void);

static void on_stop_timer(struct timer *t)
{
    (void)t;
    begin_stop();
}

static void face_stop(void)
{
    /* Behind the answer, which is still to be sent. */
    timer_start(control.loop, &control.stop_timer, loop_now_ns(control.loop) + 10 * NS_PER_MS);
}

/* Workers answer between two callbacks, so this waits for microseconds. */
static struct worker_live count_live(void)
{
    sem_t done;
    struct worker_live all = {0};
    struct worker_order *orders = mem_zalloc(control.workers_count * sizeof *orders);
    sem_init(&done, 0, 0);
    for (unsigned w = 0; w < control.workers_count; w++) {
        orders[w] = (struct worker_order){.kind = ORDER_COUNT, .done = &done};
        worker_tell(&control.workers[w], &orders[w]);
    }
    wait_all(&done, control.workers_count);
    for (unsigned w = 0; w < control.workers_count; w++) {
        all.operations += orders[w].live.operations;
        all.fibers += orders[w].live.fibers;
        all.connections += orders[w].live.connections;
        all.exchanges += orders[w].live.exchanges;
    }
    sem_destroy(&done);
    mem_free(orders);
    return all;
}

static enum err put_metrics(struct buffer *b, struct exchange *x);

static enum err face_metrics(struct buffer *b)
{
    struct exchange nobody = {.generation = control.generation};
    uint64_t requests = 0;
    struct worker_live live = count_live();
    for (unsigned w = 0; w < control.workers_count; w++)
        requests += __atomic_load_n(&control.workers[w].h1.requests, __ATOMIC_RELAXED);
    TRY(put_metrics(b, &nobody));
    return buffer_append_f(
        b,
        "# HELP portico_requests_total HTTP requests served since the start.\n"
        "# TYPE portico_requests_total counter\nportico_requests_total %llu\n"
        "# HELP portico_connections Open client connections.\n"
        "# TYPE portico_connections gauge\nportico_connections %u\n"
        "# HELP portico_exchanges Requests that are being answered.\n"
        "# TYPE portico_exchanges gauge\nportico_exchanges %u\n"
        "# HELP portico_fibers Fibers that are running or waiting.\n"
        "# TYPE portico_fibers gauge\nportico_fibers %u\n"
        "# HELP portico_operations Operations that the workers' loops wait for.\n"
        "# TYPE portico_operations gauge\nportico_operations %u\n"
        "# HELP portico_config_loads_total Configurations taken over since the start.\n"
        "# TYPE portico_config_loads_total counter\nportico_config_loads_total %llu\n"
        "# HELP portico_config_failures_total Configurations refused since the start.\n"
        "# TYPE portico_config_failures_total counter\nportico_config_failures_total %llu\n",
        (unsigned long long)requests, live.connections, live.exchanges, live.fibers,
        live.operations,
        (unsigned long long)control.reloads, (unsigned long long)control.failed_reloads);
}

/* What any thread may tell: the counters of the exchange's own configuration, and the process. */
static enum err put_metrics(struct buffer *b, struct exchange *x)
{
    TRY(buffer_append_f(
        b,
        "# HELP caddy_config_last_reload_success_timestamp_seconds Timestamp of the last successful "
        "configuration reload.\n"
        "# TYPE caddy_config_last_reload_success_timestamp_seconds gauge\n"
        "caddy_config_last_reload_success_timestamp_seconds %.3f\n"
        "# HELP caddy_config_last_reload_successful Whether the last configuration reload attempt "
        "was successful.\n"
        "# TYPE caddy_config_last_reload_successful gauge\n"
        "caddy_config_last_reload_successful %d\n",
        (double)atomic_load(&control.loaded_wall_ns) / 1e9, atomic_load(&control.last_load_ok)));
    TRY(http_metrics_put(b, x->generation != NULL ? x->generation->metrics
                                                  : control.generation->metrics));
    return process_metrics_put(b);
}

static const struct admin_face face = {load, face_adapt, face_document, face_stop,
                                       config_source_check, face_metrics};

void control_each_address(void (*visit)(struct slice network, struct slice host, unsigned port))
{
    for (const struct used_address *a = control.addresses; a != NULL; a = a->next)
        visit(slice_from(a->network), slice_from(a->host), a->got_port);
}

/* --- the end --- */

static void check_finished(void)
{
    if (control.drained == control.workers_count && control.https_stopped)
        loop_stop(control.loop);
}

static void on_worker_drained(struct mail *m)
{
    (void)m;
    control.drained++;
    check_finished();
}

static void on_https_stopped(void)
{
    control.https_stopped = true;
    check_finished();
}

static void tell_all(struct worker_order *orders, int kind)
{
    for (unsigned w = 0; w < control.workers_count; w++) {
        orders[w] = (struct worker_order){.kind = kind};
        worker_tell(&control.workers[w], &orders[w]);
    }
}

static void on_grace_end(struct timer *t)
{
    (void)t;
    LOG(LOG_WARN, "http", "grace period is over: ending the remaining requests");
    tell_all(control.abort_orders, ORDER_ABORT);
}

static void drain_all(void);

static void on_delay_end(struct timer *t)
{
    (void)t;
    drain_all();
}

/* Serves on for shutdown_delay, so that a balancer in front can look away first. */
static void begin_stop(void)
{
    if (control.stopping)
        return;
    control.stopping = true;
    uint64_t delay = control.generation != NULL ? control.generation->shutdown_delay_ns : 0;
    if (delay == 0) {
        drain_all();
        return;
    }
    LOG(LOG_INFO, "http", "shutdown is delayed", LOG_DUR("duration", delay));
    atomic_store(&control.generation->shutdown_ns, clock_mono_ns() + delay);
    timer_start(control.loop, &control.delay_timer, clock_mono_ns() + delay);
}

static void drain_all(void)
{
    tell_keeper(KEEPER_STOPPING, 0, "");
    uint64_t grace = control.generation != NULL ? control.generation->grace_ns : 0;
    admin_site_close();
    for (unsigned w = 0; w < control.workers_count; w++) {
        control.drained_mails[w].run = on_worker_drained;
        control.drain_orders[w] = (struct worker_order){.kind = ORDER_DRAIN,
                                                        .drained = &control.drained_mails[w]};
        worker_tell(&control.workers[w], &control.drain_orders[w]);
    }
    if (grace > 0)
        timer_start(control.loop, &control.grace_timer, loop_now_ns(control.loop) + grace);
    https_stop(on_https_stopped);
}

/* SIGUSR1: the file that the running configuration came from, anew. */
static void reload(void)
{
    json_t *document = NULL;
    char error[2048];
    if (control.start->reload == NULL || !config_source_known()) {
        LOG(LOG_INFO, "", "last config unknown, ignored SIGUSR1", LOG_CSTR("signal", "SIGUSR1"));
        return;
    }
    LOG(LOG_INFO, "", "reloading config from last-known source", LOG_CSTR("signal", "SIGUSR1"));
    enum err e = control.start->reload(&document, error, sizeof error);
    if (e == OK)
        e = apply_counted(document, error, sizeof error);
    json_decref(document);
    if (e == OK)
        LOG(LOG_INFO, "", "successfully reloaded config from file");
    else
        LOG(LOG_ERROR, "", "failed to reload config from file: the running one stays",
            LOG_CSTR("error", error));
}

/* --- --watch --- */

static void watch_file(void)
{
    char error[2048];
    json_t *document = NULL;
    enum err e = control.start->watch(&document, error, sizeof error);
    if (e == OK && !json_equal(document, control.watched)) {
        LOG(LOG_INFO, "watcher", "config file changed; reloading");
        json_decref(control.watched);
        control.watched = json_incref(document);
        e = load(document, false, error, sizeof error);
        control.watch_failed = false;
    }
    if (e != OK && !control.watch_failed) /* once, not every second */
        LOG(LOG_ERROR, "watcher", "unable to load latest config", LOG_CSTR("error", error));
    control.watch_failed = e != OK;
    json_decref(document);
}

static void on_watch(struct timer *t)
{
    if (control.stopping)
        return;
    watch_file();
    timer_start(control.loop, t, loop_now_ns(control.loop) + WATCH_NS);
}

static void start_watch(void)
{
    if (control.start->watch == NULL)
        return;
    LOG(LOG_INFO, "watcher", "watching config file for changes",
        LOG_CSTR("config_file", control.start->file));
    timer_start(control.loop, &control.watch_timer, loop_now_ns(control.loop) + WATCH_NS);
}

static void on_orders(struct task *t)
{
    bool reload_asked = control.reload_asked;
    (void)t;
    control.reload_asked = false;
    if (control.stop_asked)
        begin_stop();
    else if (reload_asked)
        reload();
}

/* Without ado, but with what was logged. */
static _Noreturn void leave(int status)
{
    log_queue_stop(LOG_FLUSH_NS / 5);
    _exit(status);
}

static void obey(enum keeper_kind kind)
{
    if (kind == KEEPER_STOP_NOW)
        leave(2);
    if (kind == KEEPER_PING) {
        count_live(); /* each worker answers */
        tell_keeper(KEEPER_PONG, 0, "");
        return;
    }
    control.stop_asked |= kind == KEEPER_STOP;
    control.reload_asked |= kind == KEEPER_RELOAD;
    if (!control.applying)
        on_orders(&control.orders);
}

static void on_keeper(struct op *op, int result)
{
    struct keeper_message m;
    unsigned none = 0;
    (void)op;
    if (result < 0)
        return;
    enum err e = keeper_receive(control.keeper, &m, NULL, &none, MSG_DONTWAIT);
    if (e == ERR_CLOSED)
        leave(1); /* the keeper has died: nobody holds the sockets or the signals any more */
    if (e == OK)
        obey(m.kind);
    watch_keeper();
}

/* --- the start --- */

static enum err count_workers(unsigned *count, char *error, size_t cap)
{
    const char *env = getenv("PORTICO_WORKERS");
    cpu_set_t set;
    uint64_t n = 1;
    if (env != NULL && env[0] != '\0') {
        if (!slice_to_u64(slice_from(env), WORKERS_MAX, &n) || n == 0) {
            snprintf(error, cap, "PORTICO_WORKERS=%.60s: write a number from 1 to %d, or nothing for "
                     "one worker per core", env, WORKERS_MAX);
            return ERR_INVALID;
        }
    } else if (sched_getaffinity(0, sizeof set, &set) == 0) {
        n = (uint64_t)CPU_COUNT(&set);
    }
    *count = n < WORKERS_MAX ? (unsigned)n : WORKERS_MAX;
    return OK;
}

static enum err choose_loop(enum loop_kind *kind, char *error, size_t cap)
{
    const char *env = getenv("PORTICO_IO");
    bool any = env == NULL || env[0] == '\0', uring = !any && strcmp(env, "uring") == 0;
    *kind = LOOP_EPOLL;
    if (!any && !uring && strcmp(env, "epoll") != 0) {
        snprintf(error, cap, "PORTICO_IO=%.60s: write uring or epoll, or nothing for the better one "
                 "that works", env);
        return ERR_INVALID;
    }
    if (!any && !uring)
        return OK;
    if (loop_probe_uring()) {
        *kind = LOOP_URING;
    } else if (uring) {
        snprintf(error, cap, "PORTICO_IO=uring: io_uring is not to be had here: the kernel is too old, "
                 "or kernel.io_uring_disabled or a seccomp filter forbids it");
        return ERR_UNSUPPORTED;
    } else {
        LOG(LOG_INFO, "", "io_uring is not allowed here: using epoll");
    }
    return OK;
}

static enum err start_workers(char *error, size_t cap)
{
    unsigned count;
    enum loop_kind kind;
    TRY(count_workers(&count, error, cap));
    TRY(choose_loop(&kind, error, cap));
    control.workers = mem_zalloc(count * sizeof *control.workers);
    control.drain_orders = mem_zalloc(count * sizeof *control.drain_orders);
    control.abort_orders = mem_zalloc(count * sizeof *control.abort_orders);
    control.drained_mails = mem_zalloc(count * sizeof *control.drained_mails);
    for (unsigned w = 0; w < count; w++) {
        TRY(worker_start(&control.workers[w], w, kind, control.loop));
        control.workers_count++;
    }
    LOG(LOG_INFO, "", "workers started", LOG_NUM("count", count),
        LOG_CSTR("io", kind == LOOP_URING ? "io_uring" : "epoll"));
    return OK;
}

static void end_workers(void)
{
    struct worker_order *orders = mem_zalloc(WORKERS_MAX * sizeof *orders);
    tell_all(orders, ORDER_END);
    for (unsigned w = 0; w < control.workers_count; w++)
        worker_join(&control.workers[w]);
    mem_free(orders);
}

/* The last lines are written; what comes later goes to stderr. */
static void end_logs(void)
{
    log_publish(NULL);
    if (!log_queue_stop(LOG_FLUSH_NS))
        log_complain("portico: some log lines could not be written before the end\n");
}

static int fail(const char *error)
{
    end_logs();
    fprintf(stderr, "Error: %s\n", error);
    tell_keeper(KEEPER_FAILED, 1, "");
    return 1;
}

static enum err prepare(char *error, size_t cap)
{
    const char *fd = getenv(KEEPER_ENV);
    uint64_t n;
    if (fd == NULL || !slice_to_u64(slice_from(fd), INT32_MAX, &n)) {
        snprintf(error, cap, "this process was not started by a keeper");
        return ERR_INVALID;
    }
    control.keeper = (int)n;
    unsetenv(KEEPER_ENV);
    control.user = rights_user(control.start->document);
    control.user.ptr = slice_dup(control.user);
    TRY(rights_settle(control.user, error, cap));
    TRY(log_queue_start());
    TRY(loop_create(LOOP_EPOLL, &control.loop));
    timer_init(&control.stop_timer, on_stop_timer);
    control.orders.run = on_orders;
    timer_init(&control.delay_timer, on_delay_end);
    timer_init(&control.grace_timer, on_grace_end);
    timer_init(&control.watch_timer, on_watch);
    h1_worker_init(&control.admin_worker, control.loop, NULL);
    admin_set_face(&face);
    metrics_set_source(put_metrics);
    admin_site_init(control.loop, &control.admin_worker, &admin_host);
    challenge_bind_hook = bind_challenge_port;
    https_start(control.loop);
    enum err e = start_workers(error, cap);
    if (e != OK && error[0] == '\0')
        snprintf(error, cap, "starting the workers: %s", err_text(e));
    return e;
}

static void tear_down(void)
{
    op_cancel(control.loop, &control.keeper_op);
    timer_stop(&control.grace_timer);
    timer_stop(&control.stop_timer);
    timer_stop(&control.watch_timer);
    json_decref(control.watched);
    end_workers();
    pki_stop();
    offload_stop();
    storage_give_back_locks();
    LOG(LOG_INFO, "", "shutdown complete");
    end_logs();
    acme_thread_deinit(); /* from here on the loop turns again: the last generation goes, and its logs */
    fetch_thread_deinit();
    resolver_thread_deinit();
}

int control_run(const struct control_start *start)
{
    char error[2048] = "";
    control.start = start;
    config_source_set(start->file, start->adapter);
    control.watched = json_incref(start->document);
    enum err e = prepare(error, sizeof error);
    if (e == OK)
        e = apply_counted(start->document, error, sizeof error);
    json_decref(start->document);
    if (e != OK)
        return fail(error[0] != '\0' ? error : err_text(e));
    LOG(LOG_INFO, "", "serving initial configuration");
    watch_keeper();
    tell_keeper(KEEPER_READY, 0, "");
    start_watch();
    save();
    if (start->started != NULL)
        start->started();
    loop_run(control.loop);
    tear_down();
    return control.status;
}
