/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the JSON of reverse_proxy to struct gateway. What a later version will have is refused by
 * name: a gateway that silently left out TLS, or a health check, would be worse than none.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"

#define LOGGER "http.handlers.reverse_proxy"

enum {
    BUFFERS_MAX = 1 << 30,
    UPSTREAMS_MAX = 16384,
    PIECE_MIN = 512, /* stream_buffer_size */
    PIECE_MAX = 1 << 20,
};

enum { FASTCGI_BUFFERED = 4096 }; /* servers must be told a body's length before it comes */

static const char *const members[] = {
    "transport", "circuit_breaker", "load_balancing", "health_checks", "upstreams",
    "dynamic_upstreams", "flush_interval", "trusted_proxies", "headers", "request_buffers",
    "response_buffers", "stream_timeout", "stream_buffer_size", "stream_close_delay", "rewrite",
    "handle_response", "verbose_logs", "mirror", "hedge", "overload", NULL};
static const char *const balancing_members[] = {"selection_policy", "retries", "try_duration",
                                                "try_interval", "retry_match", NULL};
static const char *const passive_members[] = {
    "fail_duration", "max_fails", "unhealthy_request_count", "unhealthy_status",
    "unhealthy_latency", NULL};
static const char *const upstream_members[] = {"dial", "max_requests", NULL};
static const char *const handler_members[] = {"match", "status_code", "routes", NULL};
static const char *const headers_members[] = {"request", "response", NULL};
static const char *const ops_members[] = {"add", "set", "delete", "replace", NULL};
static const char *const response_members[] = {"add",     "set",      "delete", "replace",
                                               "require", "deferred", NULL};

/* --- addresses --- */

/* Links over different local addresses, to other answers of DNS, or with other TLS, cannot stand for
 * one another; nor can those of HTTP/2, whose server was told how long a head may be, with other limits
 * of that. */
static void make_key(struct dial_address *d, const struct http_transport *t, struct arena *arena)
{
    d->tls = transport_tls_for(t, d->at.first_port);
    d->key = d->text;
    if (t->protocol != &protocol_http)
        d->key = arena_join(arena, (struct slice[]){d->text, SLICE("\nfcgi")}, 2);
    if (t->local_text.len > 0)
        d->key = arena_join(arena, (struct slice[]){d->key, SLICE("\n"), t->local_text}, 3);
    if (t->resolver.len > 0)
        d->key = arena_join(arena, (struct slice[]){d->key, SLICE("\nby "), t->resolver}, 3);
    if (d->tls)
        d->key = arena_join(arena,
                            (struct slice[]){d->key, SLICE("\ntls "), tls_client_id(t->tls)}, 3);
    if ((d->tls ? t->h2_offered : t->h2c) && t->head_max != HEAD_DEFAULT)
        d->key = arena_printf(arena, SLICE_FMT "\nhead %llu", SLICE_ARG(d->key),
                              (unsigned long long)t->head_max);
}

enum err dial_address_read(struct dial_address *d, struct slice text, const struct http_transport *t,
                           struct arena *arena, struct address_error *why)
{
    *d = (struct dial_address){0};
    TRY(address_parse(text, SLICE("tcp"), 0, &d->at, arena, why));
    d->is_unix = network_is_unix(d->at.network);
    d->host = d->at.host;
    if (d->is_unix) {
        d->hostport = d->at.host;
        d->port = SLICE("0");
    } else {
        if (!slice_starts(d->at.network, SLICE("tcp"))) {
            snprintf(why->text, sizeof why->text, "network '" SLICE_FMT "' cannot be dialed: an "
                     "upstream is a host and a port, without a path",
                     SLICE_ARG(slice_take(d->at.network, 100)));
            return ERR_INVALID;
        }
        if (d->at.last_port != d->at.first_port) {
            snprintf(why->text, sizeof why->text,
                     "dial address must represent precisely one socket: " SLICE_FMT
                     " represents %d", SLICE_ARG(text), d->at.last_port - d->at.first_port + 1);
            return ERR_INVALID;
        }
        if (d->at.first_port == 0) {
            snprintf(why->text, sizeof why->text, "missing port");
            return ERR_INVALID;
        }
        d->port = arena_printf(arena, "%u", d->at.first_port);
        d->hostport = address_join(SLICE_NONE, d->host, d->port, arena);
    }
    bool plain = slice_is(d->at.network, "tcp");
    d->text = plain ? d->hostport
                    : arena_join(arena, (struct slice[]){d->at.network, SLICE("/"), d->hostport},
                                 3);
    make_key(d, t, arena);
    const char *trouble = "";
    if (transport_proxy_choose(t, d, arena, &trouble) == OK)
        return OK;
    snprintf(why->text, sizeof why->text, "network proxy: %s", trouble);
    return ERR_INVALID;
}

static enum err read_upstream(struct gateway *g, const json_t *json, unsigned request_limit,
                              unsigned max_fails, struct provision *p)
{
    struct upstream *u = &g->upstreams[g->upstreams_count];
    struct dial_target *t = &g->targets[g->upstreams_count];
    struct address_error why;
    struct slice dial;
    int64_t n;
    TRY(provision_members(p, json, upstream_members));
    TRY(provision_text(p, json, "dial", SLICE(""), &dial));
    TRY(provision_int(p, json, "max_requests", 0, 0, INT32_MAX, &n));
    template_compile(&t->text, dial, p->arena);
    t->constant = t->text.constant;
    if (t->constant &&
        dial_address_read(&t->address, t->text.text, g->transport, p->arena, &why) != OK) {
        LOG(LOG_WARN, LOGGER, "invalid dial address: requests to this upstream are answered by 502",
            LOG_STR("upstream", dial), LOG_CSTR("error", why.text), LOG_STR("at", p->path));
        t->constant = false; /* as in Caddy: other sites are not to suffer */
    }
    u->endpoint = endpoint_ref(dial);
    if (u->endpoint == NULL)
        return provision_fail(p, "more than %d different upstreams", ENDPOINTS_MAX);
    endpoint_show(u->endpoint);
    endpoint_measure(u->endpoint, p->measuring);
    g->upstreams_count++; /* from here on gateway_release lets go of it */
    u->max_requests = n > 0 ? (unsigned)n : request_limit;
    u->max_fails = max_fails;
    return OK;
}

static enum err read_upstreams(struct gateway *g, const json_t *list, unsigned request_limit,
                               unsigned max_fails, struct provision *p)
{
    if (list == NULL || json_is_null(list))
        return OK;
    if (!json_is_array(list))
        return provision_fail(p, "\"upstreams\" must be an array");
    if (json_array_size(list) > UPSTREAMS_MAX)
        return provision_fail(p, "more than %d upstreams", UPSTREAMS_MAX);
    g->upstreams = ARENA_ARRAY(p->arena, struct upstream, json_array_size(list));
    g->targets = ARENA_ARRAY(p->arena, struct dial_target, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(read_upstream(g, json_array_get(list, i), request_limit, max_fails, p));
    return OK;
}

/* --- parts --- */

struct slice gateway_part_text(const json_t *json, const char *key, struct provision *p)
{
    char *text = json_dumps(json_object_get(json, key),
                            JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    struct slice kept = text != NULL ? arena_copy(p->arena, slice_from(text)) : SLICE("");
    free(text); /* NOLINT: jansson's */
    return kept;
}

void transport_count_idle(struct http_transport *t, const json_t *json, struct provision *p)
{
    static const char *const parts[] = {"transport", "upstreams", "dynamic_upstreams", "dial"};
    struct slice text = SLICE("");
    if (t->limits.idle_in_all == 0)
        return;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        text = arena_join(p->arena, (struct slice[]){text, gateway_part_text(json, parts[i], p),
                                                     SLICE("\n")}, 3);
    t->limits.idle_of = idle_name(text);
}

static enum err read_transport(struct gateway *g, const json_t *handler, struct provision *p)
{
    const struct module *m;
    void *cfg;
    const json_t *json = json_object_get(handler, "transport");
    if (json == NULL || json_is_null(json)) {
        g->transport = http_transport_default(p);
        return OK;
    }
    const char *protocol = json_string_value(json_object_get(json, "protocol"));
    if (protocol == NULL)
        return provision_fail(p, "\"transport\" must name its \"protocol\"");
    TRY(provision_module(p, "http.reverse_proxy.transport", protocol, json, &m, &cfg));
    transport_count_idle(cfg, handler, p); /* every transport begins with an http_transport */
    g->transport = cfg;
    return OK;
}

static enum err read_policy(struct gateway *g, const json_t *json, struct provision *p)
{
    const struct module *m;
    void *cfg;
    g->policy = policy_random.face;
    if (json == NULL || json_is_null(json))
        return OK;
    const char *name = json_string_value(json_object_get(json, "policy"));
    if (name == NULL)
        return provision_fail(p, "\"selection_policy\" must name its \"policy\"");
    TRY(provision_module(p, "http.reverse_proxy.selection_policies", name, json, &m, &cfg));
    g->policy = m->face;
    g->policy_cfg = cfg;
    return OK;
}

static enum err read_balancing(struct gateway *g, const json_t *json, struct provision *p)
{
    int64_t ns;
    TRY(read_policy(g, json_object_get(json, "selection_policy"), p));
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, balancing_members));
    TRY(provision_int(p, json, "retries", 0, 0, INT32_MAX, &g->retries));
    TRY(provision_duration(p, json, "try_duration", 0, &ns));
    g->try_ns = ns > 0 ? (uint64_t)ns : 0;
    TRY(provision_duration(p, json, "try_interval", 0, &ns));
    g->try_interval_ns = ns > 0 ? (uint64_t)ns : 0;
    if (g->try_ns > 0 && g->try_interval_ns == 0)
        g->try_interval_ns = 250 * NS_PER_MS;
    return retry_match_provision(g, json_object_get(json, "retry_match"), p);
}

static enum err read_passive(struct gateway *g, const json_t *json, unsigned *request_limit,
                             unsigned *max_fails, struct provision *p)
{
    int64_t n;
    struct passive_health *h = &g->passive;
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, passive_members));
    TRY(provision_duration(p, json, "fail_duration", 0, &n));
    h->fail_ns = n > 0 ? (uint64_t)n : 0;
    TRY(provision_int(p, json, "max_fails", 1, 0, INT64_MAX, &n));
    if (n > ENDPOINT_FAILS_MAX)
        LOG(LOG_WARN, LOGGER, "max_fails is more than what is counted",
            LOG_NUM("counted", ENDPOINT_FAILS_MAX));
    *max_fails = n > ENDPOINT_FAILS_MAX ? ENDPOINT_FAILS_MAX : n > 0 ? (unsigned)n : 1;
    TRY(provision_int(p, json, "unhealthy_request_count", 0, INT64_MIN, INT32_MAX, &n));
    *request_limit = n > 0 ? (unsigned)n : 0;
    TRY(provision_duration(p, json, "unhealthy_latency", 0, &n));
    h->latency_ns = n > 0 ? (uint64_t)n : 0;
    const json_t *list = json_object_get(json, "unhealthy_status");
    h->statuses = ARENA_ARRAY(p->arena, int64_t, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v))
            return provision_fail(p, "\"unhealthy_status\" must be an array of numbers");
        h->statuses[h->statuses_count++] = json_integer_value(v);
    }
    return OK;
}

static enum err read_health(struct gateway *g, const json_t *json, unsigned *request_limit,
                            unsigned *max_fails, struct provision *p)
{
    static const char *const health_members[] = {"active", "passive", NULL};
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, health_members));
    TRY(gateway_read_active(g, json_object_get(json, "active"), p));
    return read_passive(g, json_object_get(json, "passive"), request_limit, max_fails, p);
}

static enum err read_headers(struct gateway *g, const json_t *json, struct provision *p)
{
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, headers_members));
    const json_t *request = json_object_get(json, "request");
    const json_t *response = json_object_get(json, "response");
    if (request != NULL && !json_is_null(request)) {
        g->has_request_ops = true;
        TRY(provision_members(p, request, ops_members));
        TRY(field_ops_provision(&g->request_ops, request, p));
    }
    if (response == NULL || json_is_null(response))
        return OK;
    g->has_response_ops = true;
    TRY(provision_members(p, response, response_members));
    TRY(field_ops_provision(&g->response_ops, response, p));
    g->has_require = json_object_get(response, "require") != NULL;
    return response_match_provision(&g->require, json_object_get(response, "require"), p);
}

static enum err read_rewrite(struct gateway *g, const json_t *json, struct provision *p)
{
    struct slice method;
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_module(p, "http.handlers", "rewrite", json, &g->rewrite, &g->rewrite_cfg));
    TRY(provision_text(p, json, "method", SLICE(""), &method));
    g->rewrite_drops_body = slice_is(method, "GET") || slice_is(method, "HEAD");
    return OK;
}

static enum err read_trusted(struct gateway *g, const json_t *json, struct provision *p)
{
    struct slice *texts;
    size_t count;
    TRY(provision_texts(p, json, "trusted_proxies", &texts, &count));
    struct ip_range *ranges = ARENA_ARRAY(p->arena, struct ip_range, count);
    for (size_t i = 0; i < count; i++) {
        if (!ip_range_parse(texts[i], &ranges[i]))
            return provision_fail(p, "\"trusted_proxies\": invalid IP address or range: '" SLICE_FMT
                                  "'", SLICE_ARG(texts[i]));
    }
    g->trusted = ip_set_build(ranges, count);
    return OK;
}

static enum err read_handler(struct response_handler *h, const json_t *json, struct provision *p)
{
    TRY(provision_members(p, json, handler_members));
    TRY(response_match_provision(&h->match, json_object_get(json, "match"), p));
    TRY(provision_template(p, json, "status_code", SLICE(""), &h->status));
    h->has_status = !h->status.constant || h->status.text.len > 0;
    return route_list_provision(&h->routes, json_object_get(json, "routes"), p);
}

static enum err read_handlers(struct gateway *g, const json_t *list, struct provision *p)
{
    if (list == NULL || json_is_null(list))
        return OK;
    if (!json_is_array(list))
        return provision_fail(p, "\"handle_response\" must be an array");
    g->handlers = ARENA_ARRAY(p->arena, struct response_handler, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct slice outer = p->path;
        p->path = arena_printf(p->arena, SLICE_FMT ".handle_response[%zu]", SLICE_ARG(outer), i);
        TRY(read_handler(&g->handlers[g->handlers_count++], json_array_get(list, i), p));
        p->path = outer;
    }
    return OK;
}

static enum err read_streams(struct gateway *g, const json_t *json, struct provision *p)
{
    int64_t n;
    TRY(provision_duration(p, json, "flush_interval", 0, &g->flush_ns));
    TRY(provision_duration(p, json, "stream_timeout", 0, &n));
    g->stream_ns = n > 0 ? (uint64_t)n : 0;
    TRY(provision_duration(p, json, "stream_close_delay", 0, &n));
    g->stream_close_ns = n > 0 ? (uint64_t)n : 0;
    TRY(provision_int(p, json, "stream_buffer_size", 0, INT64_MIN, INT64_MAX, &n));
    if (n > 0)
        g->stream_buffer = n < PIECE_MIN ? PIECE_MIN : n > PIECE_MAX ? PIECE_MAX : (uint32_t)n;
    TRY(provision_bool(p, json, "verbose_logs", false, &g->verbose));
    if (g->transport->protocol == &protocol_fastcgi)
        g->unknown_buffers = FASTCGI_BUFFERED;
    TRY(provision_int(p, json, "request_buffers", 0, -1, INT64_MAX, &g->request_buffers));
    TRY(provision_int(p, json, "response_buffers", 0, -1, INT64_MAX, &g->response_buffers));
    if (g->request_buffers == -1 || g->response_buffers == -1)
        LOG(LOG_WARN, LOGGER, "UNLIMITED BUFFERING: buffering is enabled without any cap on buffer "
                              "size, which can result in OOM crashes");
    if (g->request_buffers < 0 || g->request_buffers > BUFFERS_MAX)
        g->request_buffers = BUFFERS_MAX;
    if (g->response_buffers < 0 || g->response_buffers > BUFFERS_MAX)
        g->response_buffers = BUFFERS_MAX;
    return OK;
}

/* A place for modules of others: Caddy has none of its own, and so it is here. */
static enum err read_breaker(const json_t *json, struct provision *p)
{
    const struct module *m;
    void *cfg;
    if (json == NULL || json_is_null(json))
        return OK;
    const char *type = json_string_value(json_object_get(json, "type"));
    if (type == NULL)
        return provision_fail(p, "\"circuit_breaker\" must name its \"type\"");
    return provision_module(p, "http.reverse_proxy.circuit_breakers", type, json, &m, &cfg);
}

static enum err read_source(struct gateway *g, const json_t *json, struct provision *p)
{
    const struct module *m;
    void *cfg;
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(upstream_source_read(json, p, &m, &cfg));
    g->source = m->face;
    g->source_cfg = cfg;
    g->repeat_ns = g->source->repeat_ns != NULL ? g->source->repeat_ns(cfg) : 0;
    return OK;
}

enum err gateway_provision(void *cfg, const json_t *json, struct provision *p)
{
    struct gateway *g = cfg;
    unsigned request_limit = 0, max_fails = 0;
    TRY(provision_members(p, json, members));
    TRY(read_breaker(json_object_get(json, "circuit_breaker"), p));
    TRY(read_transport(g, json, p));
    TRY(read_balancing(g, json_object_get(json, "load_balancing"), p));
    TRY(read_health(g, json_object_get(json, "health_checks"), &request_limit, &max_fails, p));
    TRY(overload_read(g, json_object_get(json, "overload"), &request_limit, p));
    g->max_requests = request_limit;
    g->max_fails = max_fails;
    TRY(read_upstreams(g, json_object_get(json, "upstreams"), request_limit, max_fails, p));
    TRY(gateway_begin_checks(g, json, p));
    if (g->policy->prepare != NULL)
        g->policy->prepare(g->policy_cfg, (struct upstream_set){g->upstreams, g->upstreams_count}, p);
    TRY(read_source(g, json_object_get(json, "dynamic_upstreams"), p));
    TRY(overload_begin(g, json, p));
    TRY(read_streams(g, json, p));
    TRY(read_trusted(g, json, p));
    TRY(read_headers(g, json_object_get(json, "headers"), p));
    TRY(read_rewrite(g, json_object_get(json, "rewrite"), p));
    TRY(mirror_provision(g, json_object_get(json, "mirror"), p));
    TRY(hedge_provision(g, json_object_get(json, "hedge"), p));
    gateway_advise(g, json, p);
    g->measuring = p->measuring;
    g->next = p->gateways;
    p->gateways = g;
    return read_handlers(g, json_object_get(json, "handle_response"), p);
}

void gateway_release(void *cfg)
{
    struct gateway *g = cfg;
    gateway_end_checks(g);
    mirror_release(g);
    for (uint32_t i = 0; i < g->upstreams_count; i++) {
        endpoint_hide(g->upstreams[i].endpoint);
        endpoint_unref(g->upstreams[i].endpoint);
    }
    field_ops_release(&g->request_ops);
    field_ops_release(&g->response_ops);
}
