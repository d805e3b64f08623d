/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse_proxy: all that a Caddyfile may say about it, and the two directives for answers of
 * upstreams. Most options are one value at one place, so most of it is a table.
 */
#include "adapter/proxy_parts.h"

#include "adapter/service_option.h"
#include "adapter/upstream_address.h"
#include "base/log.h"
#include "net/address.h"

static const struct option proxy_options[] = {
    {"lb_retries", OPTION_INT, "load_balancing.retries", "bad lb_retries number"},
    {"lb_try_duration", OPTION_DURATION, "load_balancing.try_duration", "bad duration value"},
    {"lb_try_interval", OPTION_DURATION, "load_balancing.try_interval", "bad interval value"},
    {"health_uri", OPTION_TEXT, "health_checks.active.uri", NULL},
    {"health_method", OPTION_TEXT, "health_checks.active.method", NULL},
    {"health_request_body", OPTION_TEXT, "health_checks.active.body", NULL},
    {"health_interval", OPTION_DURATION, "health_checks.active.interval", "bad interval value"},
    {"health_timeout", OPTION_DURATION, "health_checks.active.timeout", "bad timeout value"},
    {"health_body", OPTION_TEXT, "health_checks.active.expect_body", NULL},
    {"health_follow_redirects", OPTION_FLAG, "health_checks.active.follow_redirects", NULL},
    {"health_passes", OPTION_INT, "health_checks.active.passes", "invalid passes count"},
    {"health_fails", OPTION_INT, "health_checks.active.fails", "invalid fails count"},
    {"max_fails", OPTION_INT, "health_checks.passive.max_fails", "invalid maximum fail count"},
    {"fail_duration", OPTION_DURATION, "health_checks.passive.fail_duration", "bad duration value"},
    {"unhealthy_request_count", OPTION_INT, "health_checks.passive.unhealthy_request_count",
     "invalid maximum connection count"},
    {"unhealthy_latency", OPTION_DURATION, "health_checks.passive.unhealthy_latency",
     "bad duration value"},
    {"request_buffers", OPTION_BYTES, "request_buffers", "invalid byte size"},
    {"response_buffers", OPTION_BYTES, "response_buffers", "invalid byte size"},
    {"stream_buffer_size", OPTION_BYTES, "stream_buffer_size", "invalid byte size"},
    {0},
};

struct proxy {
    struct helper *h;
    json_t *o;
    struct slice scheme;     /* of all upstreams */
    bool any_upstream;
    json_t *transport;       /* its options; NULL when not said */
    const char *protocol;    /* the transport's name */
    struct responses responses;
};

/* --- upstreams --- */

static void put_upstream(struct proxy *p, struct slice dial)
{
    json_t *u = j_object(p->h->a);
    j_put_text(p->h->a, u, "dial", dial);
    adapt_origin(p->h->a, arena_printf(p->h->a->arena, "upstream " SLICE_FMT, SLICE_ARG(dial)), dial,
                 dispenser_file(&p->h->d), dispenser_line(&p->h->d));
    j_add_to_list(p->h->a, p->o, SLICE("upstreams"), u);
}

static enum err check_scheme(struct proxy *p, struct slice scheme)
{
    struct dispenser *d = &p->h->d;
    if (slice_is(scheme, "wss"))
        return dispenser_err_f(
            d, "the scheme wss:// is only supported in browsers; use https:// instead");
    if (slice_is(scheme, "ws"))
        return dispenser_err_f(
            d, "the scheme ws:// is only supported in browsers; use http:// instead");
    if (scheme.len > 0 && !slice_is(scheme, "http") && !slice_is(scheme, "https") &&
        !slice_is(scheme, "h2c"))
        return dispenser_err_f(d, "unsupported URL scheme " SLICE_FMT "://", SLICE_ARG(scheme));
    if (p->scheme.len > 0 && scheme.len == 0)
        return dispenser_err_f(d, "all proxy upstreams must use the same scheme: this one has none, those "
                                  "before it have '" SLICE_FMT "://'", SLICE_ARG(p->scheme));
    if (p->scheme.len > 0 && !slice_eq(scheme, p->scheme))
        return dispenser_err_f(d,
                               "for now, all proxy upstreams must use the same scheme (transport "
                               "protocol); expecting '" SLICE_FMT "://' but got '" SLICE_FMT "://'",
                               SLICE_ARG(p->scheme), SLICE_ARG(scheme));
    p->scheme = scheme;
    return OK;
}

static enum err expand_upstream(struct proxy *p, const struct upstream_address *u)
{
    struct dispenser *d = &p->h->d;
    struct arena *arena = p->h->a->arena;
    struct slice dial = upstream_dial(u, arena);
    struct network_address n;
    struct address_error why;
    if (slice_find(u->port, '{') != SIZE_MAX && slice_find(u->port, '}') != SIZE_MAX) {
        put_upstream(p, dial);
        return OK;
    }
    if (address_parse(dial, SLICE("tcp"), 0, &n, arena, &why) != OK)
        return dispenser_err_f(d, "%s", why.text);
    if (network_is_unix(u->network) || slice_find(u->port, '-') == SIZE_MAX) {
        put_upstream(p, dial);
        return OK;
    }
    for (unsigned port = n.first_port; port <= n.last_port; port++)
        put_upstream(p, address_join(SLICE_NONE, n.host, arena_printf(arena, "%u", port), arena));
    return OK;
}

static bool has_service(const json_t *source)
{
    const json_t *first = json_array_get(json_object_get(source, "sources"), 0);
    const char *name = json_string_value(json_object_get(first != NULL ? first : source, "source"));
    return name != NULL && strcmp(name, "service") == 0;
}

/* Ours: "service/NAME". Several of them stand for one another. */
static enum err append_service(struct proxy *p, struct slice name)
{
    struct adapt *a = p->h->a;
    json_t *source, *multi, *old = json_object_get(p->o, "dynamic_upstreams");
    if (json_object_get(p->o, "upstreams") != NULL)
        return dispenser_err_f(&p->h->d, "a service cannot stand beside other upstreams");
    if (old != NULL && !has_service(old))
        return dispenser_err_f(&p->h->d, "a service cannot stand beside other dynamic upstreams");
    TRY(service_upstream(a, &p->h->d, name, &source));
    if (old == NULL) {
        j_set(a, p->o, "dynamic_upstreams", source);
        return OK;
    }
    if (json_object_get(old, "sources") == NULL) {
        multi = j_object(a);
        j_add_to_list(a, multi, SLICE("sources"), old);
        old = j_module(a, "source", "multi", multi);
        j_set(a, p->o, "dynamic_upstreams", old);
    }
    j_append(json_object_get(old, "sources"), source);
    return OK;
}

static enum err append_upstream(struct proxy *p, struct slice text)
{
    struct upstream_address u;
    struct address_error why;
    enum err e;
    if (slice_starts(text, SLICE("service/")))
        e = append_service(p, slice_skip(text, sizeof "service/" - 1));
    else if (has_service(json_object_get(p->o, "dynamic_upstreams")))
        e = dispenser_err_f(&p->h->d, "a service cannot stand beside other upstreams");
    else if (upstream_address_parse(text, &u, p->h->a->arena, &why) != OK)
        e = dispenser_err_f(&p->h->d, "%s", why.text);
    else if ((e = check_scheme(p, u.scheme)) == OK)
        e = expand_upstream(p, &u);
    if (e == OK && !slice_starts(text, SLICE("service/")))
        proxy_warn_upstream(&p->h->d, text, &u);
    if (e == OK)
        return OK;
    char *old = arena_str(p->h->a->arena, slice_from(p->h->a->diag->text));
    diag_say(p->h->a->diag, "parsing upstream '" SLICE_FMT "': %s", SLICE_ARG(text), old);
    return proxy_hint_upstream(&p->h->d, text, e);
}

static enum err append_upstreams(struct proxy *p, bool must)
{
    struct slice *args;
    size_t count = dispenser_remaining_args(&p->h->d, &args);
    if (count == 0 && must)
        return dispenser_arg_err(&p->h->d);
    for (size_t i = 0; i < count; i++)
        TRY(append_upstream(p, args[i]));
    return OK;
}

/* The last one counts, unless the directive brought its own. */
static enum err read_transport(struct proxy *p)
{
    struct dispenser *d = &p->h->d;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (json_object_get(p->o, "transport") != NULL)
        return dispenser_err_f(d, "transport already specified");
    return transport_read(p->h->a, d, &p->protocol, &p->transport);
}

static void warn_needless_host(const struct proxy *p)
{
    const json_t *set = json_object_get(json_object_get(json_object_get(p->o, "headers"), "request"),
                                        "set");
    const char *host = json_string_value(json_array_get(json_object_get(set, "Host"), 0));
    if (host != NULL && (strcmp(host, "{http.reverse_proxy.upstream.hostport}") == 0 ||
                         strcmp(host, "{upstream_hostport}") == 0))
        LOG(LOG_WARN, "caddyfile",
            "Unnecessary header_up Host: the reverse proxy's default behavior is to pass the "
            "configured upstream address to the upstream when proxying to HTTPS");
}

/* What the scheme of the upstreams says about the transport. */
static enum err finish_transport(struct proxy *p)
{
    struct adapt *a = p->h->a;
    if (p->transport == NULL && (slice_is(p->scheme, "https") || slice_is(p->scheme, "h2c"))) {
        p->transport = j_object(a);
        p->protocol = "http";
    }
    if (p->transport == NULL)
        return OK;
    if (strcmp(p->protocol, "fastcgi") == 0) {
        if (slice_is(p->scheme, "https"))
            return dispenser_err_f(&p->h->d, "upstreams are configured for HTTPS but transport "
                                             "module does not support TLS: fastcgi");
        j_set(a, p->o, "transport", j_module(a, "protocol", "fastcgi", p->transport));
        return OK;
    }
    if (slice_is(p->scheme, "https"))
        j_at(a, p->transport, "tls");
    if (json_object_get(p->transport, "tls") != NULL)
        warn_needless_host(p);
    if (slice_is(p->scheme, "http") && json_object_get(p->transport, "tls") != NULL)
        return dispenser_err_f(&p->h->d, "upstream address scheme is HTTP but transport is "
                                         "configured for HTTP+TLS (HTTPS)");
    if (slice_is(p->scheme, "h2c"))
        j_set(a, p->transport, "versions",
              j_strings(a, (struct slice[]){SLICE("h2c"), SLICE("2")}, 2));
    if (json_object_size(p->transport) > 0)
        j_set(a, p->o, "transport", j_module(a, "protocol", p->protocol, p->transport));
    return OK;
}

/* --- header_up, header_down --- */

static void warn_needless(struct slice field, struct slice value)
{
    static const char *const usual[][5] = {
        {"X-Forwarded-For", "{http.request.remote}", "{http.request.remote.host}", "{remote}",
         "{remote_host}"},
        {"X-Forwarded-Proto", "{http.request.scheme}", "{scheme}", "", ""},
        {"X-Forwarded-Host", "{http.request.host}", "{http.request.hostport}", "{host}",
         "{hostport}"},
    };
    for (int i = 0; i < 3; i++)
        for (int k = 1; k < 5; k++)
            if (value.len > 0 && slice_eq_nocase(field, slice_from(usual[i][0])) &&
                slice_is(value, usual[i][k])) {
                struct log_field f[] = {LOG_STR("field", field)};
                log_emit(LOG_WARN, "caddyfile",
                         SLICE("Unnecessary header_up: the reverse proxy's default behavior is to "
                               "pass headers to the upstream"),
                         f, 1);
            }
}

static enum err read_header_op(struct proxy *p, bool up)
{
    struct adapt *a = p->h->a;
    struct dispenser *d = &p->h->d;
    struct slice *args;
    json_t *ops = j_at(a, p->o, up ? "headers.request" : "headers.response");
    size_t count = dispenser_remaining_args(d, &args);
    if (count < 1 || count > 3) {
        enum err e = dispenser_arg_err(d);
        if (count > 3)
            diag_append(d->diag, " - a value with spaces stands in quotes");
        return e;
    }
    proxy_warn_field(d, up ? "header_up" : "header_down", args[0]);
    if (up && count == 2) {
        warn_needless(args[0], args[1]);
        proxy_warn_variable(d, args[1]);
    }
    return header_op(a, d, ops, NULL, args[0], count > 1 ? args[1] : SLICE_NONE,
                     count > 2 ? &args[2] : NULL);
}

/* --- the rest --- */

/* A duration, or a bare number of nanoseconds such as -1. */
static enum err loose_duration(struct proxy *p, const char *key)
{
    struct dispenser *d = &p->h->d;
    int64_t ns;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (!slice_to_i64(dispenser_val(d), &ns) &&
        read_duration(d, dispenser_val(d), "bad duration value", &ns) != OK) {
        if (strcmp(key, "flush_interval") == 0)
            diag_append(d->diag, ", or -1: at once");
        return ERR_INVALID;
    }
    j_put_int(p->h->a, p->o, key, ns);
    return OK;
}

static enum err status_of(struct dispenser *d, struct slice s, int64_t *out)
{
    if (s.len == 3 && slice_ends(s, SLICE("xx")))
        s.len = 1;
    enum err e = read_int(d, s, "bad status value", out);
    if (e != OK)
        diag_append(d->diag, " - it is a status such as 200, or a class such as 2xx");
    return e;
}

static enum err health_option(struct proxy *p)
{
    struct adapt *a = p->h->a;
    struct dispenser *d = &p->h->d;
    struct slice name = dispenser_val(d);
    int64_t n;
    json_t *active = j_at(a, p->o, "health_checks.active");
    if (slice_is(name, "health_headers")) {
        json_t *headers = j_object(a);
        int nesting = dispenser_nesting(d);
        while (dispenser_next_block(d, nesting)) {
            struct slice key = dispenser_val(d);
            if (dispenser_count_remaining_args(d) == 0)
                j_add_to_list(a, headers, key, j_text(a, SLICE_NONE));
            while (dispenser_next_arg(d))
                j_add_to_list(a, headers, key, j_text(a, dispenser_val(d)));
        }
        if (json_object_size(headers) > 0)
            j_set(a, active, "headers", headers);
        return OK;
    }
    if (!slice_is(name, "health_status") && !slice_is(name, "health_path") &&
        !slice_is(name, "health_port") && !slice_is(name, "health_upstream"))
        return proxy_hint(d, WORDS_PROXY, dispenser_unrecognized(d));
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice value = dispenser_val(d);
    if (slice_is(name, "health_status")) {
        TRY(status_of(d, value, &n));
        j_put_int(a, active, "expect_status", n);
    } else if (slice_is(name, "health_path")) {
        LOG(LOG_WARN, "config.adapter.caddyfile",
            "the 'health_path' subdirective is deprecated, please use 'health_uri' instead!");
        j_put_text(a, active, "path", value);
    } else if (slice_is(name, "health_port")) {
        if (json_object_get(active, "upstream") != NULL)
            return dispenser_err_f(d, "the 'health_port' subdirective is ignored if "
                                      "'health_upstream' is used!");
        TRY(read_int(d, value, "bad port number", &n));
        j_put_int(a, active, "port", n);
    } else {
        struct slice network, host, port;
        struct address_error why;
        if (address_split(value, &network, &host, &port, a->arena, &why) != OK || port.len == 0)
            return dispenser_err_f(d,
                                   "health_upstream is malformed '" SLICE_FMT
                                   "': missing port in address",
                                   SLICE_ARG(value));
        if (!slice_to_i64(port, &n))
            return dispenser_err_f(d, "bad port number '" SLICE_FMT "'", SLICE_ARG(value));
        j_put_text(a, active, "upstream", value);
    }
    return OK;
}

static enum err one_text(struct proxy *p, json_t *o, const char *key)
{
    struct slice value;
    if (!dispenser_all_args(&p->h->d, &value))
        return dispenser_arg_err(&p->h->d);
    j_put_text(p->h->a, o, key, value);
    return OK;
}

static enum err list_option(struct proxy *p, struct slice name)
{
    struct adapt *a = p->h->a;
    struct dispenser *d = &p->h->d;
    if (slice_is(name, "trusted_proxies")) {
        json_t *ranges = json_object_get(p->o, "trusted_proxies");
        ranges = ranges != NULL ? ranges : j_array(a);
        while (dispenser_next_arg(d))
            add_ranges(a, ranges, dispenser_val(d));
        if (json_array_size(ranges) > 0)
            j_set(a, p->o, "trusted_proxies", ranges);
        return OK;
    }
    if (dispenser_count_remaining_args(d) == 0)
        return dispenser_arg_err(d);
    while (dispenser_next_arg(d)) {
        int64_t status;
        TRY(status_of(d, dispenser_val(d), &status));
        j_add_to_list(a, j_at(a, p->o, "health_checks.passive"), SLICE("unhealthy_status"),
                      j_int(a, status));
    }
    return OK;
}

static enum err module_option(struct proxy *p, struct slice name)
{
    struct adapt *a = p->h->a;
    struct dispenser *d = &p->h->d;
    json_t *module;
    bool dynamic = slice_is(name, "dynamic");
    if (slice_is(name, "lb_retry_match")) {
        if (matcher_set_parse(a, d, &module) != OK) {
            diag_prefix(a, "failed to parse lb_retry_match");
            return dispenser_wrap_err(d, ERR_INVALID);
        }
        j_add_to_list(a, j_at(a, p->o, "load_balancing"), SLICE("retry_match"), module);
        return OK;
    }
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (dynamic && json_object_get(p->o, "dynamic_upstreams") != NULL)
        return dispenser_err_f(d, "dynamic upstreams already specified");
    if (dynamic) {
        TRY(dynamic_read(a, d, &module));
        j_set(a, p->o, "dynamic_upstreams", module);
        return OK;
    }
    json_t *balancing = j_at(a, p->o, "load_balancing");
    if (json_object_get(balancing, "selection_policy") != NULL)
        return dispenser_err_f(d, "load balancing selection policy already specified");
    TRY(policy_read(a, d, &module));
    j_set(a, balancing, "selection_policy", module);
    return OK;
}

static enum err proxy_option(struct proxy *p)
{
    struct dispenser *d = &p->h->d;
    struct slice name = dispenser_val(d);
    bool known;
    if (slice_starts(name, SLICE("@")))
        return responses_matcher(&p->responses);
    TRY(option_read(p->h->a, d, proxy_options, p->o, &known));
    if (!known)
        TRY(overload_option(p->h->a, d, p->o, &known));
    if (known)
        return OK;
    if (slice_is(name, "to"))
        return append_upstreams(p, true);
    if (slice_is(name, "dynamic") || slice_is(name, "lb_policy") ||
        slice_is(name, "lb_retry_match"))
        return module_option(p, name);
    if (slice_starts(name, SLICE("health_")))
        return health_option(p);
    if (slice_is(name, "unhealthy_status") || slice_is(name, "trusted_proxies"))
        return list_option(p, name);
    if (slice_is(name, "flush_interval") || slice_is(name, "stream_timeout") ||
        slice_is(name, "stream_close_delay"))
        return loose_duration(p, arena_str(p->h->a->arena, name));
    if (slice_is(name, "header_up") || slice_is(name, "header_down"))
        return read_header_op(p, slice_is(name, "header_up"));
    if (slice_is(name, "method"))
        return one_text(p, j_at(p->h->a, p->o, "rewrite"), "method");
    if (slice_is(name, "rewrite"))
        return one_text(p, j_at(p->h->a, p->o, "rewrite"), "uri");
    if (slice_is(name, "transport"))
        return read_transport(p);
    if (slice_is(name, "mirror"))
        return mirror_read(p->h->a, d, p->o);
    if (slice_is(name, "hedge"))
        return hedge_read(p->h->a, d, p->o);
    if (slice_is(name, "replace_status"))
        return responses_replace_status(&p->responses);
    if (slice_is(name, "handle_response"))
        return responses_block(&p->responses);
    if (slice_is(name, "verbose_logs")) {
        if (json_object_get(p->o, "verbose_logs") != NULL)
            return dispenser_err_f(d, "verbose_logs already specified");
        j_put_bool(p->h->a, p->o, "verbose_logs", true);
        return OK;
    }
    return proxy_hint(d, WORDS_PROXY, dispenser_unrecognized(d));
}

enum err proxy_read(struct helper *h, json_t *handler, json_t *first)
{
    struct proxy *p = ARENA_NEW(h->a->arena, struct proxy);
    p->h = h;
    p->o = handler;
    responses_init(&p->responses, h);
    if (first != NULL)
        j_append(p->responses.with, first);
    dispenser_next(&h->d);
    TRY(append_upstreams(p, false));
    while (dispenser_next_block(&h->d, 0))
        TRY(proxy_option(p));
    TRY(finish_transport(p));
    return responses_finish(&p->responses, handler);
}

enum err parse_reverse_proxy(struct helper *h, json_t **handler)
{
    *handler = j_object(h->a);
    return proxy_read(h, *handler, NULL);
}

enum err parse_copy_response(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    struct slice *args;
    int64_t status;
    *handler = j_object(h->a);
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 1 && slice_to_i64(args[0], &status) && status > 0) {
        j_put_weak(h->a, *handler, "status_code", args[0]);
        return OK;
    }
    while (dispenser_next_block(d, 0)) {
        if (!dispenser_val_is(d, "status"))
            return dispenser_err_f(d, "unrecognized subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_put_weak(h->a, *handler, "status_code", dispenser_val(d));
    }
    return OK;
}

enum err parse_copy_response_headers(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    *handler = j_object(h->a);
    dispenser_next(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0)) {
        struct slice name = dispenser_val(d);
        if (!slice_is(name, "include") && !slice_is(name, "exclude"))
            return dispenser_err_f(d, "unrecognized subdirective '" SLICE_FMT "'", SLICE_ARG(name));
        while (dispenser_next_arg(d))
            j_add_to_list(h->a, *handler, name, j_text(h->a, dispenser_val(d)));
    }
    return OK;
}
