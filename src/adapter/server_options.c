/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The global option `servers`: settings for all servers, or for the one that listens on an address.
 */
#include "adapter/adapt.h"

#include "base/log.h"

static enum err min_rate(struct adapt *a, struct dispenser *d, const char *what, json_t *o,
                         const char *duration_key, const char *rate_key)
{
    struct slice *args;
    char text[80];
    int64_t n;
    size_t count = dispenser_remaining_args(d, &args);
    if (count < 1 || count > 2)
        return dispenser_arg_err(d);
    snprintf(text, sizeof text, "parsing %s timeout duration:", what);
    TRY(read_duration(d, args[0], text, &n));
    j_put_int(a, o, duration_key, n);
    if (count == 1)
        return OK;
    snprintf(text, sizeof text, "parsing %s min_rate bytes/second:", what);
    TRY(read_int(d, args[1], text, &n));
    j_put_int(a, o, rate_key, n);
    return OK;
}

static enum err timeouts(struct adapt *a, struct dispenser *d, json_t *o)
{
    static const struct option table[] = {
        {"read_body", OPTION_DURATION, "read_timeout", "parsing read_body timeout duration:"},
        {"read_header", OPTION_DURATION, "read_header_timeout",
         "parsing read_header timeout duration:"},
        {"write", OPTION_DURATION, "write_timeout", "parsing write timeout duration:"},
        {"write_max_chunk", OPTION_SIZE, "max_write_chunk", "parsing write_max_chunk:"},
        {"idle", OPTION_DURATION, "idle_timeout", "parsing idle timeout duration:"},
        {0},
    };
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        bool known;
        if (dispenser_val_is(d, "read_body_idle")) {
            TRY(min_rate(a, d, "read_body_idle", o, "read_idle_timeout", "read_min_rate"));
            continue;
        }
        if (dispenser_val_is(d, "write_idle")) {
            TRY(min_rate(a, d, "write_idle", o, "write_idle_timeout", "write_min_rate"));
            continue;
        }
        TRY(option_read(a, d, table, o, &known));
        if (!known)
            return dispenser_err_f(d, "unrecognized timeouts option '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
    }
    return OK;
}

static enum err proxy_protocol_policy(struct adapt *a, struct dispenser *d, json_t *o)
{
    static const char *const policies[] = {"IGNORE", "USE", "REJECT", "REQUIRE", "SKIP"};
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    for (size_t i = 0; i < 5; i++) {
        if (slice_eq_nocase(dispenser_val(d), slice_from(policies[i]))) {
            j_put_text(a, o, "fallback_policy", slice_from(policies[i]));
            return OK;
        }
    }
    return dispenser_err_f(d, "unknown policy: " SLICE_FMT, SLICE_ARG(dispenser_val(d)));
}

static enum err proxy_protocol(struct adapt *a, struct dispenser *d, json_t *o)
{
    static const struct option table[] = {
        {"timeout", OPTION_DURATION, "timeout", "parsing proxy_protocol timeout duration:"}, {0}};
    bool known;
    while (dispenser_next_block(d, 0)) {
        if (dispenser_val_is(d, "allow") || dispenser_val_is(d, "deny")) {
            struct slice key = dispenser_val(d);
            while (dispenser_next_arg(d)) {
                json_t *list = j_get(o, key);
                if (list == NULL)
                    j_set_key(a, o, key, list = j_array(a));
                add_ranges(a, list, dispenser_val(d));
            }
            continue;
        }
        if (dispenser_val_is(d, "fallback_policy")) {
            TRY(proxy_protocol_policy(a, d, o));
            continue;
        }
        TRY(option_read(a, d, table, o, &known));
        if (!known)
            return dispenser_arg_err(d);
    }
    return OK;
}

/* The wrappers in the order in which they wrap. */
static enum err listener_wrappers(struct adapt *a, struct dispenser *outer, json_t *o)
{
    int nesting = dispenser_nesting(outer);
    static const struct option redirect[] = {
        {"max_header_bytes", OPTION_INT, "max_header_bytes", "converting max_header_bytes"}, {0}};
    while (dispenser_next_block(outer, nesting)) {
        struct slice name = dispenser_val(outer);
        struct dispenser d = dispenser_new_from_next_segment(outer);
        json_t *wrapper = j_object(a);
        bool known;
        dispenser_next(&d);
        if (slice_is(name, "proxy_protocol")) {
            TRY(proxy_protocol(a, &d, wrapper));
        } else if (slice_is(name, "http_redirect")) {
            while (dispenser_next_block(&d, 0))
                TRY(option_read(a, &d, redirect, wrapper, &known));
        } else if (!slice_is(name, "tls")) {
            return dispenser_err_f(outer,
                                   "getting module named 'caddy.listeners." SLICE_FMT
                                   "': module not registered: caddy.listeners." SLICE_FMT,
                                   SLICE_ARG(name), SLICE_ARG(name));
        }
        j_add_to_list(a, o, SLICE("listener_wrappers"),
                      j_module(a, "wrapper", arena_str(a->arena, name), wrapper));
    }
    return OK;
}

/* The words of the line behind those that stand at `key` already; each once. */
static enum err unique_words(struct adapt *a, struct dispenser *d, json_t *o, const char *key,
                             const char *what)
{
    while (dispenser_next_arg(d)) {
        struct slice word = dispenser_val(d);
        const json_t *list = json_object_get(o, key);
        for (size_t i = 0; i < json_array_size(list); i++)
            if (slice_is(word, json_string_value(json_array_get(list, i))))
                return dispenser_err_f(d, "%s " SLICE_FMT " specified more than once", what,
                                       SLICE_ARG(word));
        j_add_to_list(a, o, slice_from(key), j_text(a, word));
    }
    return dispenser_next_block(d, dispenser_nesting(d)) ? dispenser_arg_err(d) : OK;
}

static enum err protocols(struct adapt *a, struct dispenser *d, json_t *o)
{
    static const char *const known[] = {"h1", "h2", "h2c", "h3"};
    struct dispenser look = *d;
    while (dispenser_next_arg(&look)) {
        size_t k = 0;
        while (k < 4 && !dispenser_val_is(&look, known[k]))
            k++;
        if (k == 4)
            return dispenser_err_f(&look, "unknown protocol '" SLICE_FMT
                                   "': expected h1, h2, h2c, or h3",
                                   SLICE_ARG(dispenser_val(&look)));
    }
    return unique_words(a, d, o, "protocols", "protocol");
}

static enum err trusted_proxies(struct adapt *a, struct dispenser *outer, json_t *o)
{
    json_t *source = j_object(a), *ranges = j_array(a);
    if (!dispenser_next_arg(outer))
        return dispenser_err_f(outer, "trusted_proxies expects an IP range source module name as "
                                      "its first argument");
    struct slice name = dispenser_val(outer);
    if (!slice_is(name, "static"))
        return dispenser_err_f(outer,
                               "getting module named 'http.ip_sources." SLICE_FMT
                               "': module not registered: http.ip_sources." SLICE_FMT,
                               SLICE_ARG(name), SLICE_ARG(name));
    struct dispenser d = dispenser_new_from_next_segment(outer);
    while (dispenser_next(&d) && dispenser_next_arg(&d)) {
        do
            add_ranges(a, ranges, dispenser_val(&d));
        while (dispenser_next_arg(&d));
    }
    if (json_array_size(ranges) > 0)
        j_set(a, source, "ranges", ranges);
    j_set(a, o, "trusted_proxies", j_module(a, "source", "static", source));
    return OK;
}

static enum err nested_metrics(struct adapt *a, struct dispenser *d, json_t *o)
{
    int nesting = dispenser_nesting(d);
    json_t *metrics = j_object(a);
    LOG(LOG_WARN, "config.adapter.caddyfile",
        "the nested 'metrics' option inside `servers` is deprecated; use the global 'metrics' "
        "option instead");
    while (dispenser_next_block(d, nesting)) {
        if (!dispenser_val_is(d, "per_host"))
            return dispenser_err_f(d, "unrecognized metrics option '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        j_put_bool(a, metrics, "per_host", true);
    }
    j_set(a, o, "metrics", metrics);
    return OK;
}

static enum err sni_host(struct adapt *a, struct dispenser *d, json_t *o)
{
    bool on = true;
    if (dispenser_next_arg(d)) {
        on = !dispenser_val_is(d, "insecure_off");
        if (on && !dispenser_val_is(d, "on"))
            return dispenser_err_f(d,
                                   "strict_sni_host only supports 'on' or 'insecure_off', got '"
                                   SLICE_FMT "'", SLICE_ARG(dispenser_val(d)));
    }
    j_set(a, o, "strict_sni_host", on ? json_true() : json_false());
    return OK;
}

static enum err special_option(struct adapt *a, struct dispenser *d, struct server_options *s)
{
    json_t *o = s->members;
    if (dispenser_val_is(d, "name")) {
        if (s->listener.len == 0)
            return dispenser_err_f(d, "cannot set a name for a server without a listener address");
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        s->name = dispenser_val(d);
        return OK;
    }
    if (dispenser_val_is(d, "listener_wrappers"))
        return listener_wrappers(a, d, o);
    if (dispenser_val_is(d, "timeouts"))
        return timeouts(a, d, o);
    if (dispenser_val_is(d, "protocols"))
        return protocols(a, d, o);
    if (dispenser_val_is(d, "strict_sni_host"))
        return sni_host(a, d, o);
    if (dispenser_val_is(d, "trusted_proxies"))
        return trusted_proxies(a, d, o);
    if (dispenser_val_is(d, "client_ip_headers"))
        return unique_words(a, d, o, "client_ip_headers", "client IP header");
    if (dispenser_val_is(d, "metrics"))
        return nested_metrics(a, d, o);
    if (dispenser_val_is(d, "trusted_proxies_strict")) {
        j_put_int(a, o, "trusted_proxies_strict", 1);
        return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
    }
    if (dispenser_val_is(d, "log_credentials") || dispenser_val_is(d, "trace")) {
        *(dispenser_val_is(d, "trace") ? &s->trace : &s->log_credentials) = true;
        return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
    }
    if (!dispenser_val_is(d, "0rtt"))
        return dispenser_err_f(d, "unrecognized servers option '" SLICE_FMT "'",
                               SLICE_ARG(dispenser_val(d)));
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (!dispenser_val_is(d, "off"))
        return dispenser_err_f(d, "unsupported 0rtt argument '" SLICE_FMT
                               "' (only 'off' is supported)", SLICE_ARG(dispenser_val(d)));
    j_set(a, o, "allow_0rtt", json_false());
    return OK;
}

enum err server_options_read(struct adapt *a, struct dispenser *d, struct server_options *s)
{
    static const struct option table[] = {
        {"keepalive_interval", OPTION_DURATION, "keepalive_interval",
         "parsing keepalive interval duration:"},
        {"keepalive_idle", OPTION_DURATION, "keepalive_idle", "parsing keepalive idle duration:"},
        {"keepalive_count", OPTION_INT, "keepalive_count", "parsing keepalive count int:"},
        {"max_header_size", OPTION_SIZE, "max_header_bytes", "parsing max_header_size:"},
        {"enable_full_duplex", OPTION_FLAG, "enable_full_duplex", NULL},
        {"expected_underscore_headers", OPTION_TEXTS, "expected_underscore_headers", NULL},
        {"expected_dot_headers", OPTION_TEXTS, "expected_dot_headers", NULL},
        {"trusted_proxies_unix", OPTION_FLAG, "trusted_proxies_unix", NULL},
        {0},
    };
    bool known;
    *s = (struct server_options){.members = j_object(a)};
    dispenser_next(d);
    if (dispenser_next_arg(d)) {
        s->listener = dispenser_val(d);
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
    }
    while (dispenser_next_block(d, 0)) {
        TRY(option_read(a, d, table, s->members, &known));
        if (!known)
            TRY(special_option(a, d, s));
    }
    return OK;
}
