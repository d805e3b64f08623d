/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `servers` option, and how its values get to the servers that it names by a listen address.
 */
#include "adapter/options.h"

#include "adapter/directives.h"
#include "adapter/sites.h"
#include "base/log.h"
#include "base/text.h"

/* --- wrappers --- */

static enum err proxy_protocol(struct adapt *a, struct dispenser *d, json_t *o)
{
    static const char *const policies[] = {"IGNORE", "USE", "REJECT", "REQUIRE", "SKIP"};
    int64_t ns;
    dispenser_next(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0)) {
        struct slice name = dispenser_val(d);
        if (slice_is(name, "allow") || slice_is(name, "deny")) {
            while (dispenser_next_arg(d))
                j_add_to_list(a, o, name, j_text(a, dispenser_val(d)));
            continue;
        }
        bool timeout = slice_is(name, "timeout");
        if ((!timeout && !slice_is(name, "fallback_policy")) || !dispenser_next_arg(d))
            return dispenser_arg_err(d);
        struct slice value = dispenser_val(d);
        if (timeout) {
            if (duration_parse(value, &ns) != OK)
                return dispenser_err_f(d,
                                       "parsing proxy_protocol timeout duration: time: invalid "
                                       "duration \"" SLICE_FMT "\"", SLICE_ARG(value));
            j_put_int(a, o, "timeout", ns);
            continue;
        }
        size_t i = 0;
        while (i < 5 && !slice_eq_nocase(value, slice_from(policies[i])))
            i++;
        if (i == 5)
            return dispenser_err_f(d, "invalid policy");
        j_put_text(a, o, "fallback_policy", slice_from(policies[i]));
    }
    return OK;
}

static enum err read_wrappers(struct adapt *a, struct dispenser *d, json_t *members)
{
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        struct slice name = dispenser_val(d);
        json_t *o = j_object(a);
        if (!slice_is(name, "proxy_protocol") && !slice_is(name, "tls") &&
            !slice_is(name, "http_redirect"))
            return no_module(d, "caddy.listeners", name);
        struct dispenser inner = dispenser_new_from_next_segment(d);
        if (slice_is(name, "proxy_protocol"))
            TRY(proxy_protocol(a, &inner, o));
        j_add_to_list(a, members, SLICE("listener_wrappers"),
                      j_module(a, "wrapper", arena_str(a->arena, name), o));
    }
    return OK;
}

/* --- timeouts --- */

static enum err timeout_value(struct dispenser *d, struct slice name, struct slice text,
                              int64_t *ns)
{
    if (duration_parse(text, ns) == OK)
        return OK;
    return dispenser_err_f(d,
                           "parsing " SLICE_FMT " timeout duration: time: invalid duration \""
                           SLICE_FMT "\"", SLICE_ARG(name), SLICE_ARG(text));
}

/* "read_body_idle 10s 1000": a timeout, and the rate below which it counts. */
static enum err idle_timeout(struct adapt *a, struct dispenser *d, json_t *o, const char *key,
                             const char *rate_key)
{
    struct slice name = dispenser_val(d), *args;
    int64_t n;
    size_t count = dispenser_remaining_args(d, &args);
    if (count < 1 || count > 2)
        return dispenser_arg_err(d);
    TRY(timeout_value(d, name, args[0], &n));
    j_put_int(a, o, key, n);
    if (count == 1)
        return OK;
    if (!slice_to_i64(args[1], &n))
        return dispenser_err_f(d,
                               "parsing " SLICE_FMT " min_rate bytes/second: strconv.ParseInt: "
                               "parsing \"" SLICE_FMT "\": invalid syntax",
                               SLICE_ARG(name), SLICE_ARG(args[1]));
    j_put_int(a, o, rate_key, n);
    return OK;
}

static enum err read_size_option(struct adapt *a, struct dispenser *d, json_t *o, const char *key)
{
    struct slice name = dispenser_val(d), text;
    int64_t size;
    if (!dispenser_all_args(d, &text))
        return dispenser_arg_err(d);
    struct slice what = arena_join(a->arena, (struct slice[]){SLICE("parsing "), name}, 2);
    TRY(read_size(d, text, arena_str(a->arena, what), &size));
    j_put_int(a, o, key, size);
    return OK;
}

static enum err read_timeouts(struct adapt *a, struct dispenser *d, json_t *o)
{
    static const char *const plain[][2] = {
        {"read_body", "read_timeout"},
        {"read_header", "read_header_timeout"},
        {"write", "write_timeout"},
        {"idle", "idle_timeout"},
    };
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        struct slice name = dispenser_val(d);
        int64_t ns;
        size_t i = 0;
        while (i < 4 && !slice_is(name, plain[i][0]))
            i++;
        if (i < 4) {
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            TRY(timeout_value(d, name, dispenser_val(d), &ns));
            j_put_int(a, o, plain[i][1], ns);
        } else if (slice_is(name, "read_body_idle")) {
            TRY(idle_timeout(a, d, o, "read_idle_timeout", "read_min_rate"));
        } else if (slice_is(name, "write_idle")) {
            TRY(idle_timeout(a, d, o, "write_idle_timeout", "write_min_rate"));
        } else if (slice_is(name, "write_max_chunk")) {
            TRY(read_size_option(a, d, o, "max_write_chunk"));
        } else {
            return dispenser_err_f(d, "unrecognized timeouts option '" SLICE_FMT "'",
                                   SLICE_ARG(name));
        }
    }
    return OK;
}

/* --- lists and words --- */

static enum err list_once(struct adapt *a, struct dispenser *d, json_t *o, const char *key,
                          bool protocols)
{
    int nesting;
    struct slice *args;
    size_t count = dispenser_remaining_args(d, &args);
    for (size_t i = 0; i < count; i++) {
        json_t *list = json_object_get(o, key);
        if (protocols && !slice_is(args[i], "h1") && !slice_is(args[i], "h2") &&
            !slice_is(args[i], "h2c") && !slice_is(args[i], "h3"))
            return dispenser_err_f(d,
                                   "unknown protocol '" SLICE_FMT "': expected h1, h2, h2c, or h3",
                                   SLICE_ARG(args[i]));
        for (size_t k = 0; k < json_array_size(list); k++)
            if (slice_is(args[i], json_string_value(json_array_get(list, k))))
                return dispenser_err_f(d, "%s " SLICE_FMT " specified more than once",
                                       protocols ? "protocol" : "client IP header",
                                       SLICE_ARG(args[i]));
        j_add_to_list(a, o, slice_from(key), j_text(a, args[i]));
    }
    nesting = dispenser_nesting(d);
    return dispenser_next_block(d, nesting) ? dispenser_arg_err(d) : OK;
}

static enum err read_trusted(struct adapt *a, struct dispenser *d, json_t *members)
{
    json_t *ranges = j_array(a), *o = j_object(a);
    if (!dispenser_next_arg(d))
        return dispenser_err_f(
            d, "trusted_proxies expects an IP range source module name as its first argument");
    if (!dispenser_val_is(d, "static"))
        return no_module(d, "http.ip_sources", dispenser_val(d));
    struct dispenser inner = dispenser_new_from_next_segment(d);
    dispenser_next(&inner);
    while (dispenser_next_arg(&inner))
        add_ranges(a, ranges, dispenser_val(&inner));
    if (json_array_size(ranges) > 0)
        j_set(a, o, "ranges", ranges);
    j_set(a, members, "trusted_proxies", j_module(a, "source", "static", o));
    return OK;
}

static enum err read_strict_sni(struct adapt *a, struct dispenser *d, json_t *o)
{
    if (dispenser_next_arg(d) && !dispenser_val_is(d, "insecure_off") && !dispenser_val_is(d, "on"))
        return dispenser_err_f(
            d, "strict_sni_host only supports 'on' or 'insecure_off', got '" SLICE_FMT "'",
            SLICE_ARG(dispenser_val(d)));
    j_set(a, o, "strict_sni_host",
          dispenser_val_is(d, "insecure_off") ? json_false() : json_true());
    return OK;
}

static enum err read_metrics(struct adapt *a, struct dispenser *d, json_t *o)
{
    json_t *metrics = j_object(a);
    int nesting = dispenser_nesting(d);
    LOG(LOG_WARN, "",
        "The nested 'metrics' option inside `servers` is deprecated and will be removed in the "
        "next major version. Use the global 'metrics' option instead.");
    while (dispenser_next_block(d, nesting)) {
        if (!dispenser_val_is(d, "per_host"))
            return dispenser_err_f(d, "unrecognized metrics option '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        j_put_bool(a, metrics, "per_host", true);
    }
    j_set(a, o, "metrics", metrics);
    return OK;
}

static enum err read_keepalive_count(struct adapt *a, struct dispenser *d, json_t *o)
{
    int64_t n;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (!slice_to_i64(dispenser_val(d), &n) || n > INT32_MAX || n < INT32_MIN)
        return dispenser_err_f(d,
                               "parsing keepalive count int: strconv.ParseInt: parsing \"" SLICE_FMT
                               "\": invalid syntax", SLICE_ARG(dispenser_val(d)));
    j_put_int(a, o, "keepalive_count", n);
    return OK;
}

static enum err read_keepalive(struct adapt *a, struct dispenser *d, json_t *o)
{
    bool idle = dispenser_val_is(d, "keepalive_idle");
    int64_t ns;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (duration_parse(dispenser_val(d), &ns) != OK)
        return dispenser_err_f(d,
                               "parsing keepalive %s duration: time: invalid duration \"" SLICE_FMT
                               "\"", idle ? "idle" : "interval", SLICE_ARG(dispenser_val(d)));
    j_put_int(a, o, idle ? "keepalive_idle" : "keepalive_interval", ns);
    return OK;
}

static enum err read_0rtt(struct adapt *a, struct dispenser *d, json_t *o)
{
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (!dispenser_val_is(d, "off"))
        return dispenser_err_f(d,
                               "unsupported 0rtt argument '" SLICE_FMT
                               "' (only 'off' is supported)", SLICE_ARG(dispenser_val(d)));
    j_set(a, o, "allow_0rtt", json_false());
    return OK;
}

static enum err no_argument(struct dispenser *d)
{
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

static enum err read_flag(struct adapt *a, struct dispenser *d, struct server_options *s,
                          bool *known)
{
    struct slice name = dispenser_val(d);
    *known = true;
    if (slice_is(name, "log_credentials"))
        s->log_credentials = true;
    else if (slice_is(name, "trace"))
        s->trace = true;
    else if (slice_is(name, "enable_full_duplex") || slice_is(name, "trusted_proxies_unix"))
        j_set_key(a, s->members, name, json_true());
    else if (slice_is(name, "trusted_proxies_strict"))
        j_put_int(a, s->members, "trusted_proxies_strict", 1);
    else
        *known = false;
    return *known ? no_argument(d) : OK;
}

static enum err read_one(struct adapt *a, struct dispenser *d, struct server_options *s)
{
    static const struct option lists[] = {
        {"expected_underscore_headers", OPTION_TEXTS, "expected_underscore_headers", NULL},
        {"expected_dot_headers", OPTION_TEXTS, "expected_dot_headers", NULL},
        {0},
    };
    bool known;
    TRY(read_flag(a, d, s, &known));
    if (!known)
        TRY(option_read(a, d, lists, s->members, &known));
    if (known)
        return OK;
    if (dispenser_val_is(d, "name")) {
        if (s->listener.len == 0)
            return dispenser_err_f(d, "cannot set a name for a server without a listener address");
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        s->name = dispenser_val(d);
        return OK;
    }
    if (dispenser_val_is(d, "listener_wrappers"))
        return read_wrappers(a, d, s->members);
    if (dispenser_val_is(d, "packet_conn_wrappers")) {
        int nesting = dispenser_nesting(d);
        return dispenser_next_block(d, nesting)
                   ? no_module(d, "caddy.packetconns", dispenser_val(d)) : OK;
    }
    if (dispenser_val_is(d, "timeouts"))
        return read_timeouts(a, d, s->members);
    if (dispenser_val_is(d, "keepalive_interval") || dispenser_val_is(d, "keepalive_idle"))
        return read_keepalive(a, d, s->members);
    if (dispenser_val_is(d, "keepalive_count"))
        return read_keepalive_count(a, d, s->members);
    if (dispenser_val_is(d, "max_header_size"))
        return read_size_option(a, d, s->members, "max_header_bytes");
    if (dispenser_val_is(d, "protocols"))
        return list_once(a, d, s->members, "protocols", true);
    if (dispenser_val_is(d, "client_ip_headers"))
        return list_once(a, d, s->members, "client_ip_headers", false);
    if (dispenser_val_is(d, "strict_sni_host"))
        return read_strict_sni(a, d, s->members);
    if (dispenser_val_is(d, "trusted_proxies"))
        return read_trusted(a, d, s->members);
    if (dispenser_val_is(d, "metrics"))
        return read_metrics(a, d, s->members);
    if (dispenser_val_is(d, "0rtt"))
        return read_0rtt(a, d, s->members);
    return dispenser_err_f(d, "unrecognized servers option '" SLICE_FMT "'",
                           SLICE_ARG(dispenser_val(d)));
}

enum err server_options_read(struct adapt *a, struct dispenser *d, struct server_options *s)
{
    s->members = j_object(a);
    dispenser_next(d);
    if (dispenser_next_arg(d)) {
        s->listener = dispenser_val(d);
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
    }
    while (dispenser_next_block(d, 0))
        TRY(read_one(a, d, s));
    return OK;
}

/* --- applying --- */

static bool listens_on(const json_t *server, struct slice address)
{
    const json_t *listen = json_object_get(server, "listen");
    for (size_t i = 0; i < json_array_size(listen); i++)
        if (slice_is(address, json_string_value(json_array_get(listen, i))))
            return true;
    return false;
}

static void apply(struct adapt *a, json_t *server, const struct server_options *s)
{
    const char *key;
    json_t *value;
    json_object_foreach(s->members, key, value)
        j_set(a, server, key, value);
    if (!s->log_credentials && !s->trace)
        return;
    json_t *logs = json_object_get(server, "logs");
    logs = logs != NULL ? keep(a, json_copy(logs)) : j_object(a);
    j_put_bool(a, logs, "should_log_credentials", s->log_credentials);
    j_put_bool(a, logs, "trace", s->trace);
    j_set(a, server, "logs", logs);
}

/* `metrics` of single servers became one option for all. */
static void hoist_metrics(struct adapt *a, json_t *server)
{
    json_t *own = json_object_get(server, "metrics");
    if (own == NULL)
        return;
    json_t *both = j_object(a);
    j_put_bool(a, both, "per_host",
               json_is_true(json_object_get(own, "per_host")) ||
                   json_is_true(json_object_get(a->options.metrics, "per_host")));
    a->options.metrics = both;
    json_object_del(server, "metrics");
}

enum err server_options_apply(struct adapt *a, json_t **servers)
{
    const struct options *o = &a->options;
    const char *name;
    json_t *server, *renamed = j_object(a);
    for (size_t i = 0; i < o->server_count; i++)
        for (size_t k = 0; k < i; k++)
            if (o->servers[i].name.len > 0 && slice_eq(o->servers[i].name, o->servers[k].name))
                return diag_fail(a->diag,
                                 "applying global server options: cannot use duplicate server name "
                                 "'" SLICE_FMT "'", SLICE_ARG(o->servers[i].name));
    json_object_foreach(*servers, name, server) {
        size_t i = 0;
        while (i < o->server_count && o->servers[i].listener.len > 0 &&
               !listens_on(server, o->servers[i].listener))
            i++;
        if (i < o->server_count)
            apply(a, server, &o->servers[i]);
        hoist_metrics(a, server);
        if (i < o->server_count && o->servers[i].name.len > 0)
            j_set_key(a, renamed, o->servers[i].name, server);
        else
            j_set(a, renamed, name, server);
    }
    *servers = renamed;
    return OK;
}
