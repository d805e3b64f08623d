/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A meter (server and handler) has, for each worker, a list of hosts (one without a name unless
 * "per_host"), and each host a list of series by status and method. A worker finds or makes a
 * series and adds to its numbers without a lock: nobody else writes them, and a list only grows at
 * its front, by one store that others see whole. The memory goes with the configuration, and so
 * the counters begin anew with each, as in Caddy.
 *
 * Host names come from outside, so only those of host matchers have series of their own; the others
 * share "_other". With "observe_catchall_hosts" any name has, up to HOSTS_MAX.
 */
#include "http/http_metrics.h"

#include <stdatomic.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "http/server.h"

enum { DURATIONS = 11, SIZES = 8, HOSTS_MAX = 10000, METHODS = 10, LABELS_MAX = 1024 };

static const uint64_t duration_bounds[DURATIONS] = {
    5000000, 10000000, 25000000, 50000000, 100000000, 250000000, 500000000,
    UINT64_C(1000000000), UINT64_C(2500000000), UINT64_C(5000000000), UINT64_C(10000000000)};
static const char *const duration_names[DURATIONS] = {"0.005", "0.01", "0.025", "0.05", "0.1",
                                                      "0.25", "0.5", "1", "2.5", "5", "10"};
static const uint64_t size_bounds[SIZES] = {256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304};
static const char *const size_names[SIZES] = {"256", "1024", "4096", "16384", "65536", "262144",
                                              "1.048576e+06", "4.194304e+06"};

struct histogram {
    _Atomic uint64_t at[DURATIONS + 1]; /* values up to the bound of that place; the last: above */
    _Atomic uint64_t sum, count;
};

struct series {
    struct series *next;
    int status;
    uint8_t method; /* enum method */
    struct histogram duration, first_byte, request_size, response_size;
};

struct host_meter {
    struct host_meter *next;
    struct slice host; /* lower case, malloc'd; empty without "per_host" */
    _Atomic int64_t in_flight;
    _Atomic uint64_t requests, errors;
    _Atomic(struct series *) series;
};

struct worker_meter {
    _Atomic(struct host_meter *) hosts;
    struct map by_name; /* the worker's: host → struct host_meter */
    unsigned count;
} __attribute__((aligned(64)));

struct meter {
    struct meter *next;
    const struct http_metrics *metrics;
    struct slice server, handler;
    struct worker_meter *workers;
};

struct http_metrics {
    struct meter *meters;
    unsigned workers;
    bool per_host, any_host;
    struct map hosts; /* names of host matchers, lower case */
};

static _Thread_local unsigned this_worker;
static metrics_source *source;

/* --- provisioning --- */

static void free_worker(struct worker_meter *w)
{
    struct host_meter *h = atomic_load(&w->hosts);
    while (h != NULL) {
        struct host_meter *next = h->next;
        for (struct series *s = atomic_load(&h->series), *after; s != NULL; s = after) {
            after = s->next;
            mem_free(s);
        }
        mem_free((void *)(uintptr_t)h->host.ptr);
        mem_free(h);
        h = next;
    }
    map_deinit(&w->by_name);
}

static void release(void *cfg)
{
    struct http_metrics *m = cfg;
    for (struct meter *at = m->meters; at != NULL; at = at->next) {
        for (unsigned w = 0; w < m->workers; w++)
            free_worker(&at->workers[w]);
    }
    map_deinit(&m->hosts);
}

enum err http_metrics_provision(struct http_metrics **out, const json_t *json, unsigned workers,
                                struct provision *p)
{
    static const char *const members[] = {"per_host", "observe_catchall_hosts", "otlp", NULL};
    bool otlp;
    TRY(provision_members(p, json, members));
    struct http_metrics *m = ARENA_NEW(p->arena, struct http_metrics);
    struct provision_release *r = ARENA_NEW(p->arena, struct provision_release);
    map_init(&m->hosts, true);
    *r = (struct provision_release){p->releases, release, m};
    p->releases = r;
    m->workers = workers;
    TRY(provision_bool(p, json, "per_host", false, &m->per_host));
    TRY(provision_bool(p, json, "observe_catchall_hosts", false, &m->any_host));
    TRY(provision_bool(p, json, "otlp", false, &otlp));
    if (otlp)
        return provision_fail(p, "\"otlp\": metrics are not pushed by this version of portico; "
                              "they can be scraped");
    *out = m;
    return OK;
}

static void add_hosts(struct http_metrics *m, const json_t *hosts, struct arena *arena)
{
    for (size_t i = 0; i < json_array_size(hosts); i++) {
        const char *name = json_string_value(json_array_get(hosts, i));
        if (name != NULL && strpbrk(name, "*{") == NULL)
            map_put(&m->hosts, arena_copy(arena, slice_from(name)), m);
    }
}

static struct meter *meter_for(struct http_metrics *m, struct slice server, struct slice handler,
                               struct arena *arena)
{
    for (struct meter *at = m->meters; at != NULL; at = at->next) {
        if (slice_eq(at->server, server) && slice_eq(at->handler, handler))
            return at;
    }
    struct meter *at = ARENA_NEW(arena, struct meter);
    size_t size = m->workers * sizeof *at->workers;
    char *raw = arena_zalloc(arena, size + 64);
    *at = (struct meter){.next = m->meters, .metrics = m, .server = server, .handler = handler,
                         .workers = (void *)(((uintptr_t)raw + 63) & ~(uintptr_t)63)};
    for (unsigned w = 0; w < m->workers; w++)
        map_init(&at->workers[w].by_name, true);
    m->meters = at;
    return at;
}

static struct slice handler_name(const struct route *r)
{
    struct slice id = slice_from(r->handlers[0].module->id);
    return slice_skip(id, slice_find_last(id, '.') + 1);
}

void http_metrics_attach(struct http_metrics *m, struct http_server *s, const json_t *server,
                         struct arena *arena)
{
    const json_t *routes = json_object_get(server, "routes");
    for (uint32_t i = 0; i < s->routes.count; i++) {
        struct route *r = &s->routes.routes[i];
        const json_t *sets = json_object_get(json_array_get(routes, i), "match");
        if (r->handlers_count > 0)
            r->meter = meter_for(m, s->name, handler_name(r), arena);
        for (size_t k = 0; m->per_host && k < json_array_size(sets); k++)
            add_hosts(m, json_object_get(json_array_get(sets, k), "host"), arena);
    }
}

/* --- counting --- */

void http_metrics_thread(unsigned index)
{
    this_worker = index;
}

unsigned http_metrics_worker(void)
{
    return this_worker;
}

/* Only this thread writes it, so a load and a store will do. */
static inline void add(_Atomic uint64_t *n, uint64_t more)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + more,
                          memory_order_relaxed);
}

static void observe(struct histogram *h, const uint64_t *bounds, unsigned count, uint64_t value)
{
    unsigned i = 0;
    while (i < count && value > bounds[i])
        i++;
    add(&h->at[i], 1);
    add(&h->sum, value);
    add(&h->count, 1);
}

static struct host_meter *add_host(struct worker_meter *w, struct slice name)
{
    struct host_meter *h = NEW(struct host_meter);
    char *text = slice_dup(name);
    for (size_t i = 0; i < name.len; i++)
        text[i] = ascii_lower(text[i]);
    h->host = slice_of(text, name.len);
    h->next = atomic_load_explicit(&w->hosts, memory_order_relaxed);
    atomic_store_explicit(&w->hosts, h, memory_order_release);
    map_put(&w->by_name, h->host, h);
    w->count++;
    return h;
}

static struct host_meter *host_meter_for(const struct meter *m, struct worker_meter *w,
                                         const struct exchange *x)
{
    const struct http_metrics *all = m->metrics;
    struct host_meter *only = atomic_load_explicit(&w->hosts, memory_order_relaxed);
    if (!all->per_host)
        return only != NULL ? only : add_host(w, SLICE(""));
    struct slice host = x->req.original_host;
    if (map_get(&all->hosts, host) == NULL && (!all->any_host || w->count >= HOSTS_MAX))
        host = SLICE("_other");
    struct host_meter *h = map_get(&w->by_name, host);
    return h != NULL ? h : add_host(w, host);
}

static struct series *series_for(struct host_meter *h, int status, enum method method)
{
    struct series *first = atomic_load_explicit(&h->series, memory_order_relaxed);
    for (struct series *s = first; s != NULL; s = s->next) {
        if (s->status == status && s->method == method)
            return s;
    }
    struct series *s = NEW(struct series);
    s->status = status;
    s->method = (uint8_t)method;
    s->next = first;
    atomic_store_explicit(&h->series, s, memory_order_release);
    return s;
}

/* As Caddy reckons it: the line, the fields and the announced body. */
static uint64_t request_size(const struct exchange *x)
{
    uint64_t n = x->req.target.len + x->req.method.len + 8 + x->req.host.len;
    for (uint32_t i = 0; i < x->req.fields.count; i++)
        n += x->req.fields.items[i].name.len + x->req.fields.items[i].value.len;
    return x->req.content_length > 0 ? n + (uint64_t)x->req.content_length : n;
}

static void count_answer(struct host_meter *h, const struct exchange *x, int status,
                         enum method method, uint64_t start, uint64_t sent_before)
{
    uint64_t now = clock_mono_ns();
    struct series *s = series_for(h, status > 0 ? status : 200, method);
    observe(&s->duration, duration_bounds, DURATIONS, now - start);
    observe(&s->request_size, size_bounds, SIZES, request_size(x));
    observe(&s->response_size, size_bounds, SIZES, x->bytes_sent - sent_before);
    if (x->head_ns > 0)
        observe(&s->first_byte, duration_bounds, DURATIONS,
                x->head_ns > start ? x->head_ns - start : 0);
}

enum err meter_run(const struct meter *m, struct exchange *x, const struct handler *first,
                   const struct chain *rest)
{
    struct worker_meter *w = &m->workers[this_worker];
    struct host_meter *h = host_meter_for(m, w, x);
    enum method method = x->req.method_id;
    uint64_t start = clock_mono_ns(), sent = x->bytes_sent;
    x->timed = true;
    add((_Atomic uint64_t *)&h->in_flight, 1);
    enum err e = first->module->serve(first->cfg, x, rest);
    add((_Atomic uint64_t *)&h->in_flight, (uint64_t)-1);
    add(&h->requests, 1);
    if (e != OK)
        add(&h->errors, 1);
    if (e == OK)
        count_answer(h, x, x->res.status, method, start, sent);
    else if (e == ERR_FAILED && x->error.status > 0)
        count_answer(h, x, x->error.status, method, start, sent);
    return e;
}

/* --- text --- */

static const char *const method_names[METHODS] = {"OTHER", "GET", "HEAD", "POST", "PUT", "DELETE",
                                                  "OPTIONS", "PATCH", "CONNECT", "TRACE"};

void metrics_put_label(struct buffer *b, const char *name, struct slice value)
{
    (void)!buffer_append_f(b, "%s=\"", name);
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];
        if (c == '\n')
            (void)!BUFFER_PUT(b, "\\n");
        else if (c == '"' || c == '\\')
            (void)!buffer_append_f(b, "\\%c", c);
        else
            (void)!buffer_append_byte(b, c);
    }
    (void)!buffer_append_byte(b, '"');
}

/* One line's sum over the workers: they may know different hosts and statuses. */
struct total {
    struct slice host;
    const struct meter *meter;
    int status;
    uint8_t method;
    int64_t in_flight;
    uint64_t requests, errors;
    struct histogram h[4];
};

struct totals {
    struct total *items;
    size_t count, cap;
};

static struct total *total_for(struct totals *t, const struct meter *m, struct slice host,
                               int status, uint8_t method)
{
    for (size_t i = t->count; i-- > 0 && t->items[i].meter == m;) {
        struct total *at = &t->items[i];
        if (at->status == status && at->method == method && slice_eq(at->host, host))
            return at;
    }
    if (t->count == t->cap) {
        t->cap = t->cap > 0 ? 2 * t->cap : 16;
        t->items = mem_resize(t->items, t->cap, sizeof *t->items);
    }
    struct total *at = &t->items[t->count++];
    memset(at, 0, sizeof *at);
    at->host = host;
    at->meter = m;
    at->status = status;
    at->method = method;
    return at;
}

static uint64_t look(const _Atomic uint64_t *n)
{
    return atomic_load_explicit(n, memory_order_relaxed);
}

static void add_histogram(struct histogram *to, const struct histogram *from)
{
    for (unsigned i = 0; i <= DURATIONS; i++)
        add(&to->at[i], look(&from->at[i]));
    add(&to->sum, look(&from->sum));
    add(&to->count, look(&from->count));
}

static void add_up(struct totals *hosts, struct totals *series, const struct meter *m)
{
    for (unsigned w = 0; w < m->metrics->workers; w++) {
        struct host_meter *h = atomic_load_explicit(&m->workers[w].hosts, memory_order_acquire);
        for (; h != NULL; h = h->next) {
            struct total *t = total_for(hosts, m, h->host, 0, 0);
            t->in_flight += atomic_load_explicit(&h->in_flight, memory_order_relaxed);
            t->requests += look(&h->requests);
            t->errors += look(&h->errors);
            struct series *s = atomic_load_explicit(&h->series, memory_order_acquire);
            for (; s != NULL; s = s->next) {
                t = total_for(series, m, h->host, s->status, s->method);
                add_histogram(&t->h[0], &s->duration);
                add_histogram(&t->h[1], &s->request_size);
                add_histogram(&t->h[2], &s->first_byte);
                add_histogram(&t->h[3], &s->response_size);
            }
        }
    }
}

static void put_labels(struct buffer *b, const struct total *t, const char *more)
{
    char code[16];
    (void)!buffer_append_byte(b, '{');
    if (t->status > 0) {
        snprintf(code, sizeof code, "%d", t->status);
        metrics_put_label(b, "code", slice_from(code));
        (void)!buffer_append_byte(b, ',');
    }
    metrics_put_label(b, "handler", t->meter->handler);
    if (t->meter->metrics->per_host) {
        (void)!buffer_append_byte(b, ',');
        metrics_put_label(b, "host", t->host);
    }
    if (t->status > 0) {
        (void)!buffer_append_byte(b, ',');
        metrics_put_label(b, "method", slice_from(method_names[t->method]));
    }
    (void)!buffer_append_byte(b, ',');
    metrics_put_label(b, "server", t->meter->server);
    if (more != NULL) {
        (void)!buffer_append_byte(b, ',');
        metrics_put_label(b, "le", slice_from(more));
    }
    (void)!BUFFER_PUT(b, "} ");
}

static void put_family(struct buffer *b, const char *name, const char *help, const char *type)
{
    (void)!buffer_append_f(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_histogram(struct buffer *b, const char *name, const struct total *t, unsigned which)
{
    bool seconds = which % 2 == 0;
    const struct histogram *h = &t->h[which];
    uint64_t n = 0;
    for (unsigned i = 0; i < (seconds ? DURATIONS : SIZES); i++) {
        n += look(&h->at[i]);
        (void)!buffer_append_f(b, "%s_bucket", name);
        put_labels(b, t, seconds ? duration_names[i] : size_names[i]);
        (void)!buffer_append_f(b, "%llu\n", (unsigned long long)n);
    }
    (void)!buffer_append_f(b, "%s_bucket", name);
    put_labels(b, t, "+Inf");
    (void)!buffer_append_f(b, "%llu\n%s_sum", (unsigned long long)look(&h->count), name);
    put_labels(b, t, NULL);
    if (seconds)
        (void)!buffer_append_f(b, "%.9g\n%s_count", (double)look(&h->sum) / 1e9, name);
    else
        (void)!buffer_append_f(b, "%llu\n%s_count", (unsigned long long)look(&h->sum), name);
    put_labels(b, t, NULL);
    (void)!buffer_append_f(b, "%llu\n", (unsigned long long)look(&h->count));
}

static void put_histograms(struct buffer *b, const struct totals *t, unsigned which)
{
    static const char *const names[] = {
        "caddy_http_request_duration_seconds", "caddy_http_request_size_bytes",
        "caddy_http_response_duration_seconds", "caddy_http_response_size_bytes"};
    static const char *const helps[] = {
        "Histogram of round-trip request durations.", "Total size of the request. Includes body",
        "Histogram of times to first byte in response bodies.", "Size of the returned response."};
    if (t->count == 0)
        return;
    put_family(b, names[which], helps[which], "histogram");
    for (size_t i = 0; i < t->count; i++)
        put_histogram(b, names[which], &t->items[i], which);
}

static void put_counts(struct buffer *b, const struct totals *t, unsigned which)
{
    static const char *const names[] = {"caddy_http_request_errors_total",
                                        "caddy_http_requests_in_flight",
                                        "caddy_http_requests_total"};
    static const char *const helps[] = {"Number of requests resulting in middleware errors.",
                                        "Number of requests currently handled by this server.",
                                        "Counter of HTTP(S) requests made."};
    bool begun = false;
    for (size_t i = 0; i < t->count; i++) {
        const struct total *at = &t->items[i];
        int64_t n = which == 0 ? (int64_t)at->errors
                               : which == 1 ? at->in_flight : (int64_t)at->requests;
        if (which == 0 && n == 0)
            continue;
        if (!begun)
            put_family(b, names[which], helps[which], which == 1 ? "gauge" : "counter");
        begun = true;
        (void)!buffer_append(b, slice_from(names[which]));
        put_labels(b, at, NULL);
        (void)!buffer_append_f(b, "%lld\n", (long long)n);
    }
}

enum err http_metrics_put(struct buffer *b, const struct http_metrics *m)
{
    struct totals hosts = {0}, series = {0};
    if (m == NULL)
        return OK;
    for (const struct meter *at = m->meters; at != NULL; at = at->next)
        add_up(&hosts, &series, at);
    put_histograms(b, &series, 0);
    put_counts(b, &hosts, 0);
    put_histograms(b, &series, 1);
    put_counts(b, &hosts, 1);
    put_counts(b, &hosts, 2);
    put_histograms(b, &series, 2);
    put_histograms(b, &series, 3);
    mem_free(hosts.items);
    mem_free(series.items);
    return b->full ? ERR_LIMIT : OK;
}

/* --- all that there is --- */

void metrics_set_source(metrics_source *s)
{
    source = s;
}

enum err metrics_put_all(struct buffer *b, struct exchange *x)
{
    return source != NULL ? source(b, x) : ERR_UNSUPPORTED;
}
