/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server's provisioning and the outermost frame of every request: run the routes; if they fail,
 * put the request's URI back, set {http.error.*} and run the error routes; whatever happened, end
 * the response. A failure after the head has left cannot be told to the client any more, so the
 * connection is cut instead of ending cleanly (as Go's ErrAbortHandler).
 */
#include "http/server.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "http/access_log.h"
#include "http/challenge_answer.h"
#include "http/server_tls.h"

static const char *const known_members[] = {
    "listen", "listener_wrappers", "packet_conn_wrappers", "read_timeout", "read_header_timeout",
    "read_idle_timeout", "read_min_rate", "write_timeout", "write_idle_timeout", "write_min_rate",
    "max_write_chunk", "idle_timeout", "keepalive_interval", "keepalive_idle", "keepalive_count",
    "max_header_bytes", "enable_full_duplex", "expected_underscore_headers",
    "expected_dot_headers", "routes", "errors", "named_routes", "tls_connection_policies",
    "automatic_https", "strict_sni_host", "trusted_proxies", "client_ip_headers",
    "trusted_proxies_strict", "trusted_proxies_unix", "logs", "protocols", "listen_protocols",
    "metrics", "allow_0rtt", NULL};

static enum err read_ns(struct provision *p, const json_t *json, const char *key, int64_t fallback,
                        uint64_t *out)
{
    int64_t ns;
    TRY(provision_duration(p, json, key, fallback, &ns));
    if (ns < 0) /* Caddy: a negative value turns the default off */
        ns = 0;
    else if (ns == 0)
        ns = fallback;
    *out = (uint64_t)ns;
    return OK;
}

static enum err read_timeouts(struct http_server *s, const json_t *json, struct provision *p)
{
    const int64_t minute = (int64_t)(60 * NS_PER_S);
    TRY(read_ns(p, json, "read_timeout", 0, &s->read_timeout_ns));
    TRY(read_ns(p, json, "read_header_timeout", minute, &s->read_header_timeout_ns));
    TRY(read_ns(p, json, "read_idle_timeout", minute, &s->read_idle_timeout_ns));
    TRY(read_ns(p, json, "write_timeout", 0, &s->write_timeout_ns));
    TRY(read_ns(p, json, "write_idle_timeout", minute, &s->write_idle_timeout_ns));
    TRY(read_ns(p, json, "idle_timeout", 5 * minute, &s->idle_timeout_ns));
    TRY(provision_duration(p, json, "keepalive_interval", 0, &s->keepalive_interval_ns));
    return provision_duration(p, json, "keepalive_idle", 0, &s->keepalive_idle_ns);
}

static enum err read_limits(struct http_server *s, const json_t *json, struct provision *p)
{
    int64_t n;
    TRY(provision_int(p, json, "max_header_bytes", 0, 0, 1 << 30, &n));
    s->max_header_bytes = n > 0 ? (uint32_t)n : 16384;
    TRY(provision_int(p, json, "read_min_rate", 0, 0, INT64_MAX, &n));
    s->read_min_rate = (uint64_t)n;
    TRY(provision_int(p, json, "write_min_rate", 0, 0, INT64_MAX, &n));
    s->write_min_rate = (uint64_t)n;
    /* Deadlines move with every byte that leaves, so the size of a write bounds nothing here. */
    TRY(provision_int(p, json, "max_write_chunk", 0, 0, INT64_MAX, &n));
    TRY(provision_int(p, json, "keepalive_count", 0, -1, 1000, &n));
    s->keepalive_count = (int32_t)n;
    TRY(provision_texts(p, json, "expected_underscore_headers", &s->underscore_headers,
                        &s->underscore_count));
    return provision_texts(p, json, "expected_dot_headers", &s->dot_headers, &s->dot_count);
}

/* Members whose meaning is missing here must not be taken for understood. */
static enum err refuse_unfinished(const json_t *json, struct provision *p)
{
    static const char *const unfinished[] = {
        "packet_conn_wrappers", NULL};
    for (const char *const *name = unfinished; *name != NULL; name++) {
        if (json_object_get(json, *name) != NULL)
            return provision_fail(p, "\"%s\" is not supported yet", *name);
    }
    return OK;
}

static enum err read_routes(struct http_server *s, const json_t *json, struct provision *p)
{
    static const char *const error_members[] = {"routes", NULL};
    const json_t *errors = json_object_get(json, "errors");
    TRY(named_routes_provision(json_object_get(json, "named_routes"), p));
    TRY(route_list_provision(&s->routes, json_object_get(json, "routes"), p));
    if (errors == NULL)
        return OK;
    struct slice outer = p->path;
    p->path = arena_join(p->arena, (struct slice[]){outer, SLICE(".errors")}, 2);
    TRY(provision_members(p, errors, error_members));
    TRY(route_list_provision(&s->errors, json_object_get(errors, "routes"), p));
    p->path = outer;
    return OK;
}

static enum err read_logs(struct http_server *s, const json_t *json, struct provision *p)
{
    const json_t *logs = json_object_get(json, "logs");
    if (logs == NULL || json_is_null(logs))
        return OK;
    struct slice outer = p->path;
    p->path = arena_join(p->arena, (struct slice[]){outer, SLICE(".logs")}, 2);
    TRY(access_log_provision(&s->logs, logs, p));
    p->path = outer;
    return OK;
}

static enum err read_wrappers(struct http_server *s, const json_t *json, struct provision *p)
{
    struct listener_wrappers w = {0};
    TRY(listener_wrappers_provision(&w, json, s->tls != NULL, p));
    s->proxy = w.proxy;
    s->redirect_max = w.redirect_max;
    return OK;
}

enum err http_server_provision(struct http_server *s, struct slice name, const json_t *json,
                               struct provision *p)
{
    struct map groups;
    map_init(&groups, false);
    p->groups = &groups;
    p->server_name = name;
    p->server = json;
    p->path = arena_join(p->arena, (struct slice[]){SLICE("apps.http.servers."), name}, 2);
    s->name = arena_copy(p->arena, name);
    enum err e = provision_members(p, json, known_members);
    if (e == OK)
        e = provision_texts(p, json, "listen", &s->listen, &s->listen_count);
    if (e == OK)
        e = read_timeouts(s, json, p);
    if (e == OK)
        e = read_limits(s, json, p);
    if (e == OK)
        e = refuse_unfinished(json, p);
    if (e == OK)
        e = server_tls_provision(s, json, p);
    if (e == OK)
        e = client_ip_provision(&s->client_ip, json, p);
    if (e == OK)
        e = read_wrappers(s, json, p);
    if (e == OK)
        e = provision_bool(p, json, "enable_full_duplex", false, &s->full_duplex);
    if (e == OK)
        e = read_routes(s, json, p);
    if (e == OK)
        e = read_logs(s, json, p);
    p->groups = NULL;
    map_deinit(&groups);
    return e;
}

static void log_failure(struct exchange *x, enum log_level level, const char *text)
{
    struct log_field fields[] = {
        LOG_DUR("duration", clock_mono_ns() - x->start_ns),
        LOG_NUM("status", x->error.status),
        LOG_CSTR("err_id", x->error.id),
    };
    if (log_wants(level))
        access_log_error(x->server->logs, x, level, text, fields, sizeof fields / sizeof fields[0]);
}

/* An empty answer with the error's status: what a client sees without error routes. */
static enum err answer_error(struct exchange *x)
{
    x->res.status = x->error.status;
    return exchange_answer(x, x->error.status, SLICE(""));
}

static void restore_request(struct exchange *x)
{
    x->req.method = x->req.original_method;
    x->req.method_id = method_parse(x->req.method);
    x->req.uri = x->req.original_uri;
}

static enum err serve_error(const struct http_server *s, struct exchange *x)
{
    restore_request(x);
    struct slice message = arena_copy(x->arena, x->error.message);
    const char *text = arena_str(x->arena, message);
    if (s->errors.count == 0) {
        log_failure(x, x->error.status >= 500 ? LOG_ERROR : LOG_DEBUG, text);
        return answer_error(x);
    }
    int status = x->error.status;
    x->groups = 0;
    x->more_groups = NULL;
    enum err e = route_list_run(&s->errors, x, NULL);
    if (e == OK) {
        log_failure(x, LOG_DEBUG, text);
        if (!exchange_answered(x) && x->res.status == 0) {
            x->res.status = status;
            x->res.content_length = 0;
        }
        return OK;
    }
    if (e != ERR_FAILED || exchange_answered(x))
        return e;
    x->error.status = status;
    log_failure(x, LOG_ERROR, "error handling handler error");
    return answer_error(x);
}

static enum err serve(const struct http_server *s, struct exchange *x, bool *unhandled)
{
    struct sink *bottom = x->sink;
    enum err e = OK;
    if (!challenge_asked(x) || !challenge_answer(x, &e))
        e = server_check_host(s, x);
    if (e == OK && !exchange_answered(x))
        e = route_list_run(&s->routes, x, NULL);
    if (e == ERR_FAILED && !exchange_answered(x) && x->error.status > 0) {
        x->sink = bottom; /* what wrapped the response ended with its handler, as in Caddy */
        e = serve_error(s, x);
    }
    *unhandled = e == OK && !exchange_answered(x) && x->res.status == 0;
    if (*unhandled)
        x->res.content_length = 0; /* nobody answered: an empty 200, as Caddy gives */
    return e == OK ? exchange_end(x) : e;
}

void http_server_serve(const struct http_server *s, struct exchange *x)
{
    bool unhandled;
    struct access_entry *entry = s->logs != NULL ? access_log_begin(s->logs, x) : NULL;
    enum err e = serve(s, x, &unhandled);
    bool left = e != OK && !exchange_answered(x);
    if (e != OK)
        x->sink->type->abort(x->sink, e);
    if (entry == NULL)
        return;
    int status = left && (e == ERR_CLOSED || e == ERR_CANCELLED) ? 499 : x->res.status;
    if (x->taken != NULL)
        x->taken->log = access_log_later(s->logs, x, entry, status);
    else
        access_log_end(s->logs, x, entry, unhandled && e == OK ? ACCESS_UNHANDLED : status);
}
