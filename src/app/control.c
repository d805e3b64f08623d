/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration is applied in one order: provision it, ask the keeper for the sockets that are
 * new, tell every worker, then release what is not used any more. Up to the telling, a failure
 * leaves everything as it was. The work runs on the thread's own large stack, never on a fiber:
 * JSON is read recursively. Admin requests, which are fibers of this thread, go there for it.
 */
#include "app/control.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin/admin.h"
#include "app/admin_site.h"
#include "app/autosave.h"
#include "app/config_file.h"
#include "app/config_origins.h"
#include "app/config_source.h"
#include "app/crew.h"
#include "app/https.h"
#include "app/keeper_link.h"
#include "app/listening.h"
#include "app/ports_keep.h"
#include "app/ports_server.h"
#include "app/server_rights.h"
#include "app/server_sandbox.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log_stream.h"
#include "base/mem.h"
#include "certs/acme_client.h"
#include "certs/challenge_listener.h"
#include "certs/pki_app.h"
#include "client/fetch.h"
#include "http/http_metrics.h"
#include "loop/await.h"
#include "loop/offload.h"
#include "net/resolver.h"
#include "ports/iana.h"
#include "proxy/health_check.h"
#include "proxy/proxy.h"
#include "services/services.h"
#include "services/supervisor_wire.h"
#include "version.h"

#define LOG_FLUSH_NS (5 * NS_PER_S) /* at the end, for what is not written yet */
#define WATCH_NS NS_PER_S

static struct {
    struct loop *loop;
    const struct control_start *start;
    struct slice user; /* of the first configuration, malloc'd: whose this process became */
    bool sandboxed;
    struct generation *generation; /* the newest */
    struct h1_worker admin_worker;
    struct timer stop_timer, delay_timer, grace_timer, watch_timer;
    struct kept_json watched; /* what --watch has seen last */
    bool watch_failed;
    bool stopping, applying, drained, https_stopped, services_stopped, checks_stopped;
    bool reload_asked, stop_asked; /* orders that came while a configuration is applied */
    struct task orders, give_back;
    bool gives_back; /* soon */
    int status;
    uint64_t reloads, failed_reloads;
    _Atomic int64_t loaded_wall_ns; /* of the last configuration that was taken over */
    atomic_int last_load_ok;
} control;

static const struct admin_host admin_host = {listening_open_admin, listening_release_admin};

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
static enum err refuse_other_rights(const struct generation *g, char *error, size_t cap)
{
    if (g->provision.sandboxed != control.sandboxed) {
        snprintf(error, cap, "portico.sandbox: it cannot be changed while the server process runs: "
                 "restart portico");
        return ERR_DENIED;
    }
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

/* The firewall is the keeper's; what shall hold, and that nothing shall any more, is told to it. */
static void keep_ports(const struct generation *g)
{
    bool before = control.generation != NULL && control.generation->ports.nftables;
    if (before || g->ports.nftables)
        ports_ask_keeper(kept_json_text(&g->document));
}

static enum err apply(json_t *document, char *error, size_t cap)
{
    struct generation *g;
    struct opening opening = {0};
    struct admin_site *admin;
    TRY(generation_create(document, crew_size(), &g, error, cap));
    g->control = control.loop;
    if (refuse_other_rights(g, error, cap) != OK) {
        generation_free(g);
        return ERR_DENIED;
    }
    enum err e = services_prepare(g->services, g->services_count, control.user.len > 0, error, cap);
    if (e == OK)
        e = logging_open(&g->logging, error, cap);
    if (e == OK)
        e = listening_open(&opening, g, error, cap);
    if (e == OK) {
        e = admin_site_prepare(g, &admin, error, cap);
        if (e != OK)
            listening_abandon(&opening);
    }
    if (e != OK) {
        generation_free(g);
        return e;
    }
    publish_logs(g);
    https_commit(g);
    listening_release_gone(g);
    services_adopt(g->services, g->services_count, g->data_folder);
    health_checks_adopt(g->provision.active_targets, g, generation_keep, generation_let_go);
    crew_adopt(g, opening.per_worker, opening.count);
    listening_keep(&opening);
    keep_ports(g);
    config_origins_run(&g->document);
    hold_newest(g);
    tell_running(g);
    admin_site_commit(g, admin);
    return OK;
}

static void on_give_back(struct task *t)
{
    (void)t;
    control.gives_back = false;
    mem_give_back();
}

/* Behind the callback in hand, which frees its trees. */
static void give_back_soon(void)
{
    if (!control.gives_back)
        loop_defer(control.loop, &control.give_back);
    control.gives_back = true;
}

/* Behind the word to the keeper: it shall not wait for the disk. */
static void save(void)
{
    if (control.generation->persist)
        autosave(kept_json_text(&control.generation->document));
}

static enum err apply_counted(json_t *document, char *error, size_t cap)
{
    bool first = control.generation == NULL;
    ASSERT(!control.applying);
    control.applying = true;
    if (!first && !control.stopping)
        keeper_link_tell(KEEPER_RELOADING, 0, "");
    enum err e = control.stopping ? ERR_CANCELLED : apply(document, error, cap);
    control.applying = false;
    if (!first && !control.stopping)
        keeper_link_tell(KEEPER_READY, 0, e == OK ? "" : error);
    if (!first && e == OK)
        save();
    give_back_soon(); /* what adapting took, and the tree */
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
    if (!force && kept_json_is(&control.generation->document, document)) {
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

static json_t *face_document(void)
{
    const struct kept_json *document = &control.generation->document;
    if (document->len >= KEPT_JSON_LARGE)
        give_back_soon();
    return kept_json_tree(document);
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

static enum err put_metrics(struct buffer *b, struct exchange *x);
static bool tells_ports(void);

static enum err face_metrics(struct buffer *b)
{
    struct exchange nobody = {.generation = control.generation};
    uint64_t requests = crew_requests();
    struct worker_live live = crew_count();
    TRY(put_metrics(b, &nobody));
    TRY(services_metrics_put(b));
    if (tells_ports())
        TRY(ports_metrics_put(b));
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
    const struct generation *g = x->generation != NULL ? x->generation : control.generation;
    TRY(http_metrics_put(b, g->metrics));
    TRY(gateway_metrics_put(b, &g->provision));
    return process_metrics_put(b);
}

static struct ports_document judged_by(void)
{
    return (struct ports_document){&control.generation->document, control.reloads};
}

static enum err face_await_ports(struct arena *arena, struct slice *json, char *error, size_t cap)
{
    return await_ports_json(judged_by(), arena, json, error, cap);
}

/* Only who has the app pays for it. */
static bool tells_ports(void)
{
    return control.generation->has_ports;
}

static void face_await_metrics(void)
{
    if (tells_ports())
        (void)!await_ports_metrics(judged_by());
}

static void face_source(struct slice file, struct slice adapter)
{
    config_source_check(file, adapter);
    config_origins_source(file, adapter);
}

static json_t *face_origins(void)
{
    return config_origins_json(config_origins_running());
}

static const struct admin_face face = {load, face_adapt, face_document, face_stop,
                                       face_source, face_metrics, face_await_ports,
                                       face_await_metrics, face_origins};

/* --- the end --- */

static void check_finished(void)
{
    if (control.drained && control.https_stopped && control.services_stopped &&
        control.checks_stopped)
        loop_stop(control.loop);
}

static void on_services_stopped(void)
{
    control.services_stopped = true;
    check_finished();
}

/* Services end when nobody is left who could ask them. */
static void on_crew_drained(void)
{
    control.drained = true;
    services_stop_all(on_services_stopped);
}

static void on_checks_stopped(void)
{
    control.checks_stopped = true;
    check_finished();
}

static void on_https_stopped(void)
{
    control.https_stopped = true;
    check_finished();
}

static void on_grace_end(struct timer *t)
{
    (void)t;
    LOG(LOG_WARN, "http", "grace period is over: ending the remaining requests");
    crew_abort();
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
    keeper_link_tell(KEEPER_STOPPING, 0, "");
    uint64_t grace = control.generation != NULL ? control.generation->grace_ns : 0;
    admin_site_close();
    health_checks_stop(on_checks_stopped);
    crew_drain(on_crew_drained);
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
    if (e == OK && !kept_json_is(&control.watched, document)) {
        LOG(LOG_INFO, "watcher", "config file changed; reloading");
        (void)!kept_json_set(&control.watched, document); /* too deep: refused below */
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
        (void)crew_count(); /* each worker answers */
        keeper_link_tell(KEEPER_PONG, 0, "");
        return;
    }
    control.stop_asked |= kind == KEEPER_STOP;
    control.reload_asked |= kind == KEEPER_RELOAD;
    if (!control.applying)
        on_orders(&control.orders);
}

static void on_keeper_gone(void)
{
    leave(1);
}

/* --- the start --- */

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
    keeper_link_tell(KEEPER_FAILED, 1, "");
    return 1;
}

static bool port_assigned(uint16_t port)
{
    struct iana_entry entry;
    return iana_find(port, PORT_TCP, &entry);
}

/* Without a pair to the keeper there are no services, which a configuration that has some is told. */
static enum err start_services(char *error, size_t cap)
{
    const char *fd = getenv(SUPERVISOR_ENV);
    uint64_t n;
    if (fd == NULL || !slice_to_u64(slice_from(fd), INT32_MAX, &n))
        return OK;
    unsetenv(SUPERVISOR_ENV);
    services_port_assigned = port_assigned;
    fcntl((int)n, F_SETFD, FD_CLOEXEC);
    enum err e = services_init(control.loop, (int)n);
    if (e != OK)
        snprintf(error, cap, "the keeper does not tell which services run: %s", err_text(e));
    return e;
}

static enum err prepare(char *error, size_t cap)
{
    if (keeper_link_init(obey, on_keeper_gone) != OK) {
        snprintf(error, cap, "this process was not started by a keeper");
        return ERR_INVALID;
    }
    control.user = rights_user(control.start->document);
    control.user.ptr = slice_dup(control.user);
    TRY(rights_settle(control.user, error, cap));
    control.sandboxed = sandbox_wanted(control.start->document);
    if (control.sandboxed)
        TRY(sandbox_enter(error, cap));
    TRY(log_queue_start());
    TRY(loop_create(LOOP_EPOLL, &control.loop));
    timer_init(&control.stop_timer, on_stop_timer);
    control.orders.run = on_orders;
    control.give_back.run = on_give_back;
    timer_init(&control.delay_timer, on_delay_end);
    timer_init(&control.grace_timer, on_grace_end);
    timer_init(&control.watch_timer, on_watch);
    h1_worker_init(&control.admin_worker, control.loop, NULL);
    admin_set_face(&face);
    metrics_set_source(put_metrics);
    admin_site_init(control.loop, &control.admin_worker, &admin_host);
    challenge_bind_hook = listening_challenge;
    https_start(control.loop);
    proxy_begin(generation_keep, generation_let_go);
    TRY(start_services(error, cap));
    enum err e = crew_start(control.loop, error, cap);
    if (e != OK && error[0] == '\0')
        snprintf(error, cap, "starting the workers: %s", err_text(e));
    return e;
}

static void tear_down(void)
{
    keeper_link_unwatch(control.loop);
    timer_stop(&control.grace_timer);
    timer_stop(&control.stop_timer);
    timer_stop(&control.watch_timer);
    kept_json_clear(&control.watched);
    crew_end();
    services_deinit();
    ports_server_deinit();
    pki_stop();
    offload_stop();
    storage_give_back_locks();
    LOG(LOG_INFO, "", "shutdown complete");
    end_logs();
    acme_thread_deinit(); /* from here on the loop turns again: the last generation goes, and its logs */
    fetch_thread_deinit();
    health_checks_thread_deinit();
    resolver_thread_deinit();
}

int control_run(const struct control_start *start)
{
    char error[2048] = "";
    control.start = start;
    config_source_set(start->file, start->adapter);
    if (start->watch != NULL)
        (void)!kept_json_set(&control.watched, start->document);
    enum err e = prepare(error, sizeof error);
    if (e == OK)
        e = apply_counted(start->document, error, sizeof error);
    json_decref(start->document);
    if (e != OK)
        return fail(error[0] != '\0' ? error : err_text(e));
    LOG(LOG_INFO, "", "serving initial configuration");
    keeper_link_watch(control.loop);
    keeper_link_tell(KEEPER_READY, 0, "");
    start_watch();
    save();
    if (start->started != NULL)
        start->started();
    loop_run(control.loop);
    tear_down();
    return control.status;
}
