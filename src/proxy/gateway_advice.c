/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a configuration says in vain, or hardly as it is meant. Nothing of it is wrong: Caddy takes it
 * without a word, and so it is taken here; but whoever has written it waits for something that will
 * not happen. A line at the level warn for each, once, as it is loaded; at the level info what may be meant
 * all the same.
 */
#include "base/log.h"
#include "proxy/gateway.h"

#define LOGGER "http.handlers.reverse_proxy"

enum { HTTPS_PORT = 443 };

static void tell(const struct provision *p, enum log_level level, const char *text)
{
    struct log_field at[] = {LOG_STR("at", p->path)};
    log_emit(level, LOGGER, slice_from(text), at, 1);
}

static void advise(const struct provision *p, const char *text)
{
    tell(p, LOG_WARN, text);
}

static bool says(const json_t *json, const char *key)
{
    const json_t *v = json_object_get(json, key);
    return v != NULL && !json_is_null(v);
}

static void advise_passive(const struct gateway *g, const json_t *passive,
                           const struct provision *p)
{
    bool any = says(passive, "max_fails") || says(passive, "unhealthy_status") ||
               says(passive, "unhealthy_latency");
    if (any && g->passive.fail_ns == 0)
        advise(p, "passive health checks are off: max_fails, unhealthy_status and "
                  "unhealthy_latency have no effect without fail_duration");
}

static void advise_active(const struct gateway *g, const json_t *active, const struct provision *p)
{
    if (g->active == NULL && json_object_size(active) > 0)
        advise(p, "active health checks are off: they need health_uri, or health_port");
    const char *uri = json_string_value(json_object_get(active, "uri"));
    if (g->active != NULL && uri != NULL && strstr(uri, "://") != NULL && uri[0] != '/')
        advise(p, "health_uri: only its path and query are asked for, of each upstream: another address is "
                  "named by health_upstream or health_port");
    if (g->active != NULL && g->source != NULL)
        advise(p, "upstreams that dynamic_upstreams finds are not asked by active health checks, "
                  "only those of the configuration are");
}

static void advise_balancing(const struct gateway *g, const json_t *balancing,
                             const struct provision *p)
{
    bool again = g->try_ns > 0 || g->retries > 0;
    if (!again && (says(balancing, "try_interval") || says(balancing, "retry_match")))
        advise(p, "nothing is tried again: lb_try_interval and lb_retry_match have no effect "
                  "without lb_retries or lb_try_duration");
}

static bool looks_like_https(const struct gateway *g)
{
    for (uint32_t i = 0; i < g->upstreams_count; i++) {
        const struct dial_target *t = &g->targets[i];
        if (t->constant && !t->address.is_unix && !t->address.tls &&
            t->address.at.first_port == HTTPS_PORT)
            return true;
    }
    return false;
}

static void advise_upstreams(const struct gateway *g, const struct provision *p)
{
    bool one = g->source == NULL && g->upstreams_count == 1;
    if (g->source == NULL && g->upstreams_count == 0)
        advise(p, "there are no upstreams: every request will be answered by 503");
    if (g->transport->protocol == &protocol_http && g->transport->tls == NULL && looks_like_https(g))
        tell(p, LOG_INFO, "an upstream with the port 443 is spoken to without TLS: for TLS write https:// "
                          "before it, or tls in its transport");
    if (one && g->hedge != NULL)
        advise(p, "hedge has no effect with one upstream");
    if (one && g->overload.outliers != NULL)
        advise(p, "eject has no effect with one upstream: it never leaves out more than half");
}

void gateway_advise(const struct gateway *g, const json_t *json, const struct provision *p)
{
    const json_t *health = json_object_get(json, "health_checks");
    advise_upstreams(g, p);
    advise_balancing(g, json_object_get(json, "load_balancing"), p);
    advise_active(g, json_object_get(health, "active"), p);
    advise_passive(g, json_object_get(health, "passive"), p);
}
