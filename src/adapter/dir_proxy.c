/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse_proxy: all that a Caddyfile may say about it, and the two directives for answers of
 * upstreams. Most options are one value at one place, so most of it is a table.
 */
#include "adapter/directives.h"

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

static const struct option transport_options[] = {
    {"read_buffer", OPTION_SIZE, "read_buffer_size", "invalid read buffer size"},
    {"write_buffer", OPTION_SIZE, "write_buffer_size", "invalid write buffer size"},
    {"read_timeout", OPTION_DURATION, "read_timeout", "invalid read timeout duration"},
    {"write_timeout", OPTION_DURATION, "write_timeout", "invalid write timeout duration"},
    {"max_response_header", OPTION_SIZE, "max_response_header_size",
     "invalid max response header size"},
    {"dial_timeout", OPTION_DURATION, "dial_timeout", "bad timeout value"},
    {"dial_fallback_delay", OPTION_DURATION, "dial_fallback_delay", "bad fallback delay value"},
    {"response_header_timeout", OPTION_DURATION, "response_header_timeout", "bad timeout value"},
    {"expect_continue_timeout", OPTION_DURATION, "expect_continue_timeout", "bad timeout value"},
    {"tls_insecure_skip_verify", OPTION_FLAG, "tls.insecure_skip_verify", NULL},
    {"tls_curves", OPTION_TEXTS, "tls.curves", NULL},
    {"tls_timeout", OPTION_DURATION, "tls.handshake_timeout", "bad timeout value"},
    {"tls_server_name", OPTION_TEXT, "tls.server_name", NULL},
    {"tls_except_ports", OPTION_TEXTS, "tls.except_ports", NULL},
    {"tls_trusted_ca_certs", OPTION_TEXTS, "tls.root_ca_pem_files", NULL},
    {"keepalive_interval", OPTION_DURATION, "keep_alive.probe_interval", "bad interval value"},
    {"keepalive_idle_conns", OPTION_INT, "keep_alive.max_idle_conns", "bad integer value"},
    {"keepalive_idle_conns_per_host", OPTION_INT, "keep_alive.max_idle_conns_per_host",
     "bad integer value"},
    {"versions", OPTION_TEXTS, "versions", NULL},
    {"max_conns_per_host", OPTION_INT, "max_conns_per_host", "bad integer value"},
    {"local_address", OPTION_TEXT, "local_address", NULL},
    {0},
};

struct named_matcher {
    struct slice name;
    json_t *matcher;
    struct named_matcher *next;
};

struct proxy {
    struct helper *h;
    json_t *o;
    struct slice scheme;     /* of all upstreams */
    bool any_upstream;
    json_t *transport;       /* its options; NULL when not said */
    const char *protocol;    /* the transport's name */
    struct named_matcher *matchers;
    json_t *with, *without;  /* handle_response with a matcher and without */
    struct dispenser segments[64];
    size_t segment_count;
};

/* --- upstreams --- */

static void put_upstream(struct proxy *p, struct slice dial)
{
    json_t *u = j_object(p->h->a);
    j_put_text(p->h->a, u, "dial", dial);
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

static enum err append_upstream(struct proxy *p, struct slice text)
{
    struct upstream_address u;
    struct address_error why;
    enum err e;
    if (upstream_address_parse(text, &u, p->h->a->arena, &why) != OK)
        e = dispenser_err_f(&p->h->d, "%s", why.text);
    else if ((e = check_scheme(p, u.scheme)) == OK)
        e = expand_upstream(p, &u);
    if (e == OK)
        return OK;
    char *old = arena_str(p->h->a->arena, slice_from(p->h->a->diag->text));
    diag_say(p->h->a->diag, "parsing upstream '" SLICE_FMT "': %s", SLICE_ARG(text), old);
    return e;
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

static enum err read_dynamic(struct adapt *a, struct dispenser *outer, json_t **source);

static enum err dynamic_options(struct adapt *a, struct dispenser *d, struct slice name, json_t *o)
{
    static const struct option srv[] = {
        {"service", OPTION_TEXT, "service", NULL},
        {"proto", OPTION_TEXT, "proto", NULL},
        {"grace_period", OPTION_DURATION, "grace_period", "bad grace period value"},
        {0},
    };
    static const struct option both[] = {
        {"name", OPTION_TEXT, "name", NULL},
        {"refresh", OPTION_DURATION, "refresh", "parsing refresh interval duration"},
        {"resolvers", OPTION_TEXTS, "resolver.addresses", NULL},
        {"dial_timeout", OPTION_DURATION, "dial_timeout", "bad timeout value"},
        {"dial_fallback_delay", OPTION_DURATION, "dial_fallback_delay", "bad delay value"},
        {0},
    };
    bool is_a = slice_is(name, "a"), known;
    while (dispenser_next_block(d, 0)) {
        struct slice option = dispenser_val(d);
        if (j_get(o, option) != NULL && !slice_is(option, "refresh"))
            return dispenser_err_f(d, SLICE_FMT " has already been specified", SLICE_ARG(option));
        TRY(option_read(a, d, both, o, &known));
        if (!known && !is_a)
            TRY(option_read(a, d, srv, o, &known));
        if (known)
            continue;
        if (is_a && slice_is(option, "port")) {
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            j_put_text(a, o, "port", dispenser_val(d));
        } else if (is_a && slice_is(option, "versions")) {
            if (dispenser_count_remaining_args(d) == 0)
                return dispenser_err_f(d, "must specify at least one version");
            while (dispenser_next_arg(d)) {
                if (!dispenser_val_is(d, "ipv4") && !dispenser_val_is(d, "ipv6"))
                    return dispenser_err_f(d, "unsupported version: '" SLICE_FMT "'",
                                           SLICE_ARG(dispenser_val(d)));
                j_set_key(a, j_at(a, o, "versions"), dispenser_val(d), json_true());
            }
        } else {
            return dispenser_err_f(d, "unrecognized " SLICE_FMT " option '" SLICE_FMT "'",
                                   SLICE_ARG(name), SLICE_ARG(option));
        }
    }
    return OK;
}

/* The source named at the cursor: a, srv, multi. */
static enum err read_dynamic(struct adapt *a, struct dispenser *outer, json_t **source)
{
    struct slice name = dispenser_val(outer), *args;
    struct dispenser in = dispenser_new_from_next_segment(outer), *d = &in;
    json_t *o = j_object(a), *inner;
    bool is_a = slice_is(name, "a"), is_srv = slice_is(name, "srv");
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (is_a || is_srv) {
        if (count > (is_a ? 2 : 1))
            return dispenser_arg_err(d);
        if (count > 0)
            j_put_text(a, o, "name", args[0]);
        if (count > 1)
            j_put_text(a, o, "port", args[1]);
        TRY(dynamic_options(a, d, name, o));
    } else if (slice_is(name, "multi")) {
        if (count > 0)
            return dispenser_arg_err(d);
        while (dispenser_next_block(d, 0)) {
            TRY(read_dynamic(a, d, &inner));
            j_add_to_list(a, o, SLICE("sources"), inner);
        }
    } else {
        return dispenser_err_f(outer,
                               "getting module named 'http.reverse_proxy.upstreams." SLICE_FMT
                               "': module not registered: http.reverse_proxy.upstreams." SLICE_FMT,
                               SLICE_ARG(name), SLICE_ARG(name));
    }
    *source = j_module(a, "source", arena_str(a->arena, name), o);
    return OK;
}

/* --- choosing --- */

static enum err read_policy(struct adapt *a, struct dispenser *outer, json_t **policy);

static enum err policy_block(struct adapt *a, struct dispenser *d, bool cookie, json_t *o)
{
    while (dispenser_next_block(d, 0)) {
        json_t *fallback;
        if (dispenser_val_is(d, "fallback")) {
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            if (json_object_get(o, "fallback") != NULL)
                return dispenser_err_f(d, "fallback selection policy already specified");
            TRY(read_policy(a, d, &fallback));
            j_set(a, o, "fallback", fallback);
        } else if (cookie && dispenser_val_is(d, "max_age")) {
            int64_t age;
            struct slice text;
            if (json_object_get(o, "max_age") != NULL)
                return dispenser_err_f(d, "cookie max_age already specified");
            if (!dispenser_all_args(d, &text))
                return dispenser_arg_err(d);
            TRY(read_duration(d, text, "invalid duration", &age));
            if (age <= 0)
                return dispenser_err_f(d,
                                       "invalid duration: " SLICE_FMT
                                       ", max_age should be non-zero and positive",
                                       SLICE_ARG(text));
            j_put_int(a, o, "max_age", age);
        } else {
            return dispenser_err_f(d, "unrecognized option '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        }
    }
    return OK;
}

static enum err policy_weights(struct adapt *a, struct dispenser *d, json_t *o)
{
    if (dispenser_count_remaining_args(d) == 0)
        return dispenser_arg_err(d);
    while (dispenser_next_arg(d)) {
        int64_t weight;
        TRY(read_int(d, dispenser_val(d), "invalid weight value", &weight));
        if (weight < 0)
            return dispenser_err_f(d,
                                   "invalid weight value '" SLICE_FMT
                                   "': weight should be non-negative",
                                   SLICE_ARG(dispenser_val(d)));
        j_add_to_list(a, o, SLICE("weights"), j_int(a, weight));
    }
    return OK;
}

static enum err policy_options(struct adapt *a, struct dispenser *d, struct slice name, json_t *o)
{
    static const char *const plain[] = {"random", "least_conn", "round_robin", "first", "ip_hash",
                                        "client_ip_hash", "uri_hash"};
    struct slice *args;
    int64_t choose;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (slice_is(name, plain[i]))
            return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
    if (slice_is(name, "weighted_round_robin"))
        return policy_weights(a, d, o);
    if (slice_is(name, "random_choose")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        TRY(read_int(d, dispenser_val(d), "invalid choice value", &choose));
        j_put_int(a, o, "choose", choose);
        return OK;
    }
    if (slice_is(name, "query") || slice_is(name, "header")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_put_text(a, o, slice_is(name, "query") ? "key" : "field", dispenser_val(d));
        return policy_block(a, d, false, o);
    }
    if (slice_is(name, "cookie")) {
        size_t count = dispenser_remaining_args(d, &args);
        if (count > 2)
            return dispenser_arg_err(d);
        if (count > 0)
            j_put_text(a, o, "name", args[0]);
        if (count > 1)
            j_put_text(a, o, "secret", args[1]);
        return policy_block(a, d, true, o);
    }
    return ERR_NOT_FOUND;
}

static enum err read_policy(struct adapt *a, struct dispenser *outer, json_t **policy)
{
    struct slice name = dispenser_val(outer);
    struct dispenser in = dispenser_new_from_next_segment(outer);
    json_t *o = j_object(a);
    dispenser_next(&in);
    enum err e = policy_options(a, &in, name, o);
    if (e == ERR_NOT_FOUND)
        return dispenser_err_f(outer,
                               "getting module named 'http.reverse_proxy.selection_policies." SLICE_FMT
                               "': module not registered: "
                               "http.reverse_proxy.selection_policies." SLICE_FMT,
                               SLICE_ARG(name), SLICE_ARG(name));
    *policy = e == OK ? j_module(a, "policy", arena_str(a->arena, name), o) : NULL;
    return e;
}

/* --- transports --- */

static enum err transport_tls(struct adapt *a, struct dispenser *d, json_t *o, bool *known)
{
    json_t *tls;
    *known = true;
    if (dispenser_val_is(d, "tls")) {
        j_at(a, o, "tls");
        return OK;
    }
    if (dispenser_val_is(d, "tls_client_auth")) {
        struct slice *args;
        size_t count = dispenser_remaining_args(d, &args);
        tls = j_at(a, o, "tls");
        if (count != 1 && count != 2)
            return dispenser_arg_err(d);
        j_put_text(a, tls, count == 1 ? "client_certificate_automate" : "client_certificate_file",
                   args[0]);
        if (count == 2)
            j_put_text(a, tls, "client_certificate_key_file", args[1]);
        return OK;
    }
    if (dispenser_val_is(d, "tls_renegotiation")) {
        tls = j_at(a, o, "tls");
        if (!dispenser_next_arg(d) ||
            (!dispenser_val_is(d, "never") && !dispenser_val_is(d, "once") &&
             !dispenser_val_is(d, "freely")))
            return dispenser_arg_err(d);
        j_put_text(a, tls, "renegotiation", dispenser_val(d));
        return OK;
    }
    *known = false;
    return OK;
}

static enum err transport_proxy(struct adapt *a, struct dispenser *d, json_t *o)
{
    json_t *url = j_object(a);
    bool old = dispenser_val_is(d, "forward_proxy_url");
    if (old)
        LOG(LOG_WARN, "", "The 'forward_proxy_url' field is deprecated. Use 'network_proxy <url>' "
                          "instead.");
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice kind = old ? SLICE("url") : dispenser_val(d);
    if (!slice_is(kind, "url") && !slice_is(kind, "none"))
        return dispenser_err_f(d,
                               "getting module named 'caddy.network_proxy." SLICE_FMT
                               "': module not registered: caddy.network_proxy." SLICE_FMT,
                               SLICE_ARG(kind), SLICE_ARG(kind));
    if (slice_is(kind, "url")) {
        if (!old && !dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_put_text(a, url, "url", dispenser_val(d));
    }
    j_set(a, o, "network_proxy", j_module(a, "from", arena_str(a->arena, kind), url));
    return OK;
}

static enum err transport_other(struct adapt *a, struct dispenser *d, json_t *o)
{
    int64_t ns;
    if (dispenser_val_is(d, "proxy_protocol")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        if (!dispenser_val_is(d, "v1") && !dispenser_val_is(d, "v2"))
            return dispenser_err_f(d, "invalid proxy protocol version '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        j_put_text(a, o, "proxy_protocol", dispenser_val(d));
    } else if (dispenser_val_is(d, "network_proxy") || dispenser_val_is(d, "forward_proxy_url")) {
        return transport_proxy(a, d, o);
    } else if (dispenser_val_is(d, "resolvers")) {
        struct slice *args;
        size_t count = dispenser_remaining_args(d, &args);
        if (count == 0)
            return dispenser_err_f(d, "must specify at least one resolver address");
        j_put_strings(a, j_at(a, o, "resolver"), "addresses", args, count);
    } else if (dispenser_val_is(d, "keepalive")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        json_t *alive = j_at(a, o, "keep_alive");
        if (dispenser_val_is(d, "off")) {
            j_set(a, alive, "enabled", json_false());
        } else {
            TRY(read_duration(d, dispenser_val(d), "bad duration value", &ns));
            j_put_int(a, alive, "idle_timeout", ns);
        }
    } else if (dispenser_val_is(d, "compression")) {
        if (dispenser_next_arg(d) && dispenser_val_is(d, "off"))
            j_set(a, o, "compression", json_false());
    } else {
        return dispenser_unrecognized(d);
    }
    return OK;
}

static enum err read_transport(struct proxy *p)
{
    struct adapt *a = p->h->a;
    struct dispenser *outer = &p->h->d;
    bool known;
    if (!dispenser_next_arg(outer))
        return dispenser_arg_err(outer);
    if (p->transport != NULL)
        return dispenser_err_f(outer, "transport already specified");
    if (!dispenser_val_is(outer, "http"))
        return dispenser_err_f(outer,
                               "transport not supported yet by this version of portico: " SLICE_FMT,
                               SLICE_ARG(dispenser_val(outer)));
    struct dispenser in = dispenser_new_from_next_segment(outer);
    dispenser_next(&in);
    p->transport = j_object(a);
    p->protocol = "http";
    while (dispenser_next_block(&in, 0)) {
        if (dispenser_val_is(&in, "tls_trusted_ca_certs"))
            LOG(LOG_WARN, "", "The 'tls_trusted_ca_certs' field is deprecated. Use the "
                              "'tls_trust_pool' field instead.");
        TRY(option_read(a, &in, transport_options, p->transport, &known));
        if (!known)
            TRY(transport_tls(a, &in, p->transport, &known));
        if (!known)
            TRY(transport_other(a, &in, p->transport));
    }
    return OK;
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
    if (slice_is(p->scheme, "https"))
        j_at(a, p->transport, "tls");
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
    if (count < 1 || count > 3)
        return dispenser_arg_err(d);
    if (up && count == 2)
        warn_needless(args[0], args[1]);
    return header_op(a, d, ops, NULL, args[0], count > 1 ? args[1] : SLICE_NONE,
                     count > 2 ? &args[2] : NULL);
}

/* --- answers of upstreams --- */

static enum err find_matcher(struct proxy *p, struct dispenser *d, struct slice name, json_t **out)
{
    if (!slice_starts(name, SLICE("@")))
        return dispenser_err_f(d, "must use a named response matcher, starting with '@'");
    for (struct named_matcher *m = p->matchers; m != NULL; m = m->next)
        if (slice_eq(m->name, name)) {
            *out = m->matcher;
            return OK;
        }
    return dispenser_err_f(d, "no named response matcher defined with name '" SLICE_FMT "'",
                           SLICE_ARG(slice_skip(name, 1)));
}

static enum err define_matcher(struct proxy *p)
{
    struct adapt *a = p->h->a;
    struct dispenser in = dispenser_new_from_next_segment(&p->h->d);
    struct named_matcher *m = ARENA_NEW(a->arena, struct named_matcher);
    TRY(response_matcher_parse(a, &in, &m->name, &m->matcher));
    for (struct named_matcher *o = p->matchers; o != NULL; o = o->next)
        if (slice_eq(o->name, m->name))
            return dispenser_err_f(&in, "matcher is defined more than once: " SLICE_FMT,
                                   SLICE_ARG(m->name));
    m->next = p->matchers;
    p->matchers = m;
    return OK;
}

static void add_response(struct proxy *p, json_t *matcher, json_t *o)
{
    if (matcher != NULL)
        j_set(p->h->a, o, "match", matcher);
    j_append(matcher != NULL ? p->with : p->without, o);
}

static enum err replace_status(struct proxy *p)
{
    struct dispenser *d = &p->h->d;
    struct slice *args;
    json_t *matcher = NULL, *o = j_object(p->h->a);
    size_t count = dispenser_remaining_args(d, &args);
    if (count != 1 && count != 2)
        return dispenser_err_f(d, "must have one or two arguments: an optional response matcher, "
                                  "and a status code");
    if (count == 2)
        TRY(find_matcher(p, d, args[0], &matcher));
    j_put_weak(p->h->a, o, "status_code", args[count - 1]);
    if (dispenser_next_block(d, dispenser_nesting(d)))
        return dispenser_err_f(
            d, "cannot define routes for 'replace_status', use 'handle_response' instead.");
    add_response(p, matcher, o);
    return OK;
}

static enum err handle_response(struct proxy *p, struct dispenser *d)
{
    struct adapt *a = p->h->a;
    struct slice *args;
    struct route *routes;
    json_t *matcher = NULL, *o = j_object(a);
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count > 1) {
        struct slice parts[128];
        size_t n = 0;
        for (size_t i = 0; i < count && n < 126; i++) {
            if (i > 0)
                parts[n++] = SLICE(" ");
            parts[n++] = args[i];
        }
        struct slice all = arena_join(a->arena, parts, n);
        return dispenser_err_f(d,
                               "too many arguments for 'handle_response': only a single response "
                               "matcher name is allowed, but got: [" SLICE_FMT "]",
                               SLICE_ARG(all));
    }
    if (count == 1)
        TRY(find_matcher(p, d, args[0], &matcher));
    struct helper inner = *p->h;
    inner.d = dispenser_new_from_next_segment(d);
    TRY(helper_subroute(&inner, true, &routes, &count));
    if (count > 0)
        j_set(a, o, "routes", routes_json(a, routes, count));
    add_response(p, matcher, o);
    return OK;
}

/* --- the rest --- */

/* A duration, or a bare number of nanoseconds such as -1. */
static enum err loose_duration(struct proxy *p, const char *key)
{
    struct dispenser *d = &p->h->d;
    int64_t ns;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (!slice_to_i64(dispenser_val(d), &ns))
        TRY(read_duration(d, dispenser_val(d), "bad duration value", &ns));
    j_put_int(p->h->a, p->o, key, ns);
    return OK;
}

static enum err status_of(struct dispenser *d, struct slice s, int64_t *out)
{
    if (s.len == 3 && slice_ends(s, SLICE("xx")))
        s.len = 1;
    return read_int(d, s, "bad status value", out);
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
    } else if (slice_is(name, "health_upstream")) {
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
    } else {
        return dispenser_unrecognized(d);
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
        TRY(read_dynamic(a, d, &module));
        j_set(a, p->o, "dynamic_upstreams", module);
        return OK;
    }
    json_t *balancing = j_at(a, p->o, "load_balancing");
    if (json_object_get(balancing, "selection_policy") != NULL)
        return dispenser_err_f(d, "load balancing selection policy already specified");
    TRY(read_policy(a, d, &module));
    j_set(a, balancing, "selection_policy", module);
    return OK;
}

static enum err proxy_option(struct proxy *p)
{
    struct dispenser *d = &p->h->d;
    struct slice name = dispenser_val(d);
    bool known;
    if (slice_starts(name, SLICE("@")))
        return define_matcher(p);
    TRY(option_read(p->h->a, d, proxy_options, p->o, &known));
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
    if (slice_is(name, "replace_status"))
        return replace_status(p);
    if (slice_is(name, "handle_response")) {
        if (p->segment_count == sizeof p->segments / sizeof *p->segments)
            return dispenser_err_f(d, "too many handle_response blocks: more than 64");
        p->segments[p->segment_count++] = dispenser_new_from_next_segment(d);
        return OK;
    }
    if (slice_is(name, "verbose_logs")) {
        if (json_object_get(p->o, "verbose_logs") != NULL)
            return dispenser_err_f(d, "verbose_logs already specified");
        j_put_bool(p->h->a, p->o, "verbose_logs", true);
        return OK;
    }
    return dispenser_unrecognized(d);
}

enum err parse_reverse_proxy(struct helper *h, json_t **handler)
{
    struct adapt *a = h->a;
    struct proxy *p = ARENA_NEW(a->arena, struct proxy);
    p->h = h;
    p->o = *handler = j_object(a);
    p->with = j_array(a);
    p->without = j_array(a);
    dispenser_next(&h->d);
    TRY(append_upstreams(p, false));
    while (dispenser_next_block(&h->d, 0))
        TRY(proxy_option(p));
    TRY(finish_transport(p));
    for (size_t i = 0; i < p->segment_count; i++)
        TRY(handle_response(p, &p->segments[i]));
    json_array_extend(p->with, p->without);
    if (json_array_size(p->with) > 0)
        j_set(a, p->o, "handle_response", p->with);
    return OK;
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
