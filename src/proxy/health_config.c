/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the JSON of active health checks to what health_check.c asks:
 *
 *     {"uri": "/health?deep=1", "interval": "10s", "timeout": "2s", "expect_status": 2,
 *      "headers": {"X-For": ["{http.reverse_proxy.active.target_upstream}"]}, "passes": 2, "fails": 3}
 *
 * Without "uri", "path" or "port" there is nothing to ask, and the rest means nothing, as in Caddy.
 * What is known of an upstream belongs to its check: its key is the description, the transport and
 * the address.
 */
#include "base/log.h"
#include "base/text.h"
#include "http/regexp.h"
#include "proxy/gateway.h"
#include "proxy/health_check.h"

#define LOGGER "http.handlers.reverse_proxy.health_checker.active"

static const char *const members[] = {
    "path", "uri", "upstream", "port", "headers", "method", "body", "follow_redirects", "interval",
    "timeout", "passes", "fails", "max_size", "expect_status", "expect_body", NULL};

/* --- what is asked --- */

static enum err put_target(struct buffer *b, struct slice text, const char *escaped)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool plain = c > ' ' && c < 0x7f && strchr("\"<>\\^`{|}", c) == NULL &&
                     strchr(escaped, c) == NULL;
        TRY(plain ? buffer_append_byte(b, (char)c) : buffer_append_f(b, "%%%02X", c));
    }
    return OK;
}

/* The path and the query of a URI; where it leads to is the upstream's. */
static struct slice path_of(struct slice uri)
{
    size_t at = slice_find_slice(uri, SLICE("://"));
    size_t end = slice_find(uri, '#');
    if (end != SIZE_MAX)
        uri = slice_take(uri, end);
    if (at == SIZE_MAX || at > uri.len)
        return uri;
    uri = slice_skip(uri, at + 3);
    at = slice_find(uri, '/');
    return at == SIZE_MAX ? SLICE("") : slice_skip(uri, at);
}

static enum err read_target(struct active_health *h, struct slice path, struct slice uri,
                            struct provision *p)
{
    struct buffer b;
    struct slice text = uri.len > 0 ? path_of(uri) : path;
    buffer_init(&b, 65536);
    enum err e = OK;
    if (text.len == 0 || text.ptr[0] != '/')
        e = buffer_append_byte(&b, '/');
    if (e == OK)
        e = put_target(&b, text, uri.len > 0 ? "" : "?#%");
    if (e == OK)
        h->target = arena_copy(p->arena, buffer_slice(&b));
    buffer_deinit(&b);
    return e == OK ? OK : provision_fail(p, "\"uri\" of the active health checks is too long");
}

static enum err read_field(struct active_health *h, const char *name, const json_t *values,
                           struct provision *p)
{
    if (!json_is_array(values))
        return provision_fail(p, "\"headers\" must be an object of arrays of strings");
    struct health_field *fields = ARENA_ARRAY(p->arena, struct health_field,
                                              h->fields_count + json_array_size(values));
    if (h->fields_count > 0)
        memcpy(fields, h->fields, h->fields_count * sizeof *fields);
    h->fields = fields;
    for (size_t i = 0; i < json_array_size(values); i++) {
        const json_t *v = json_array_get(values, i);
        if (!json_is_string(v))
            return provision_fail(p, "\"headers\" must be an object of arrays of strings");
        h->fields[h->fields_count++] = (struct health_field){
            arena_copy(p->arena, slice_from(name)),
            arena_copy(p->arena, slice_of(json_string_value(v), json_string_length(v)))};
    }
    return OK;
}

static enum err read_fields(struct active_health *h, const json_t *headers, struct provision *p)
{
    const char *name;
    json_t *values;
    if (headers == NULL || json_is_null(headers))
        return OK;
    if (!json_is_object(headers))
        return provision_fail(p, "\"headers\" must be an object of arrays of strings");
    json_object_foreach((json_t *)(uintptr_t)headers, name, values)
        TRY(read_field(h, name, values, p));
    return OK;
}

static enum err read_question(struct active_health *h, const json_t *json, struct slice path,
                              struct slice uri, struct provision *p)
{
    TRY(read_target(h, path, uri, p));
    TRY(provision_text(p, json, "method", SLICE("GET"), &h->method));
    if (h->method.len == 0)
        h->method = SLICE("GET");
    TRY(provision_text(p, json, "body", SLICE(""), &h->body));
    TRY(provision_text(p, json, "upstream", SLICE(""), &h->upstream));
    TRY(provision_bool(p, json, "follow_redirects", false, &h->follow));
    return read_fields(h, json_object_get(json, "headers"), p);
}

/* --- how the answer is judged --- */

static void free_pattern(void *arg)
{
    regexp_free(arg);
}

static enum err read_pattern(struct active_health *h, const json_t *json, struct provision *p)
{
    struct slice pattern;
    TRY(provision_text(p, json, "expect_body", SLICE(""), &pattern));
    if (pattern.len == 0)
        return OK;
    TRY(regexp_compile(p, pattern, &h->body_matches));
    provision_on_release(p, free_pattern, h->body_matches);
    return OK;
}

static enum err read_verdict(struct active_health *h, const json_t *json, struct provision *p)
{
    int64_t n;
    TRY(provision_duration(p, json, "interval", 0, &n));
    if (n < 0)
        return provision_fail(p, "\"interval\" of the active health checks is negative");
    h->interval_ns = n == 0 ? 30 * NS_PER_S : n < (int64_t)NS_PER_MS ? NS_PER_MS : (uint64_t)n;
    TRY(provision_duration(p, json, "timeout", 0, &n));
    h->timeout_ns = n <= 0 ? 5 * NS_PER_S : (uint64_t)n;
    TRY(provision_int(p, json, "passes", 1, INT32_MIN, INT32_MAX, &n));
    h->passes = n > 0 ? (unsigned)n : 1;
    TRY(provision_int(p, json, "fails", 1, INT32_MIN, INT32_MAX, &n));
    h->fails = n > 0 ? (unsigned)n : 1;
    TRY(provision_int(p, json, "expect_status", 0, 0, 999, &h->status));
    TRY(provision_int(p, json, "max_size", 0, 0, INT64_MAX, &n));
    h->body_max = n > 0 && n < HEALTH_BODY_MAX ? (size_t)n : HEALTH_BODY_MAX;
    return read_pattern(h, json, p);
}

enum err gateway_read_active(struct gateway *g, const json_t *json, struct provision *p)
{
    struct slice path, uri;
    int64_t port;
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "path", SLICE(""), &path));
    TRY(provision_text(p, json, "uri", SLICE(""), &uri));
    TRY(provision_int(p, json, "port", 0, 0, UINT16_MAX, &port));
    struct active_health *h = ARENA_NEW(p->arena, struct active_health);
    h->gateway = g;
    h->port = (uint16_t)port;
    TRY(read_question(h, json, path, uri, p));
    TRY(read_verdict(h, json, p));
    if (path.len > 0)
        LOG(LOG_WARN, LOGGER, "the 'path' option is deprecated, please use 'uri' instead!");
    if (path.len > 0 || uri.len > 0 || port > 0)
        g->active = h;
    return OK;
}

/* --- the upstreams that are asked --- */

enum err gateway_begin_checks(struct gateway *g, const json_t *json, struct provision *p)
{
    struct active_health *h = g->active;
    if (h == NULL)
        return OK;
    const json_t *health = json_object_get(json, "health_checks");
    struct slice check = gateway_part_text(health, "active", p);
    struct slice transport = gateway_part_text(json, "transport", p);
    struct active_target *targets = ARENA_ARRAY(p->arena, struct active_target, g->upstreams_count);
    g->active_targets = targets;
    for (uint32_t i = 0; i < g->upstreams_count; i++) {
        struct slice key = arena_join(p->arena,
                                      (struct slice[]){g->upstreams[i].endpoint->name, SLICE("\n"),
                                                       check, SLICE("\n"), transport}, 5);
        targets[i] = (struct active_target){p->active_targets, h, i, health_state_ref(key)};
        if (targets[i].state == NULL)
            return provision_fail(p, "too many different active health checks");
        g->active_targets_count++;
        p->active_targets = &targets[i];
        g->upstreams[i].unhealthy = &targets[i].state->unhealthy;
    }
    return OK;
}

void gateway_end_checks(struct gateway *g)
{
    for (uint32_t i = 0; i < g->active_targets_count; i++)
        health_state_unref(g->active_targets[i].state);
}
