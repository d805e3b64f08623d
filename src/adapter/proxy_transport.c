/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse_proxy: how it talks to its upstreams, by HTTP or FastCGI.
 */
#include "adapter/proxy_parts.h"

#include "adapter/ca_pool.h"
#include "base/log.h"

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
            if (read_duration(d, dispenser_val(d), "bad duration value", &ns) != OK) {
                diag_append(d->diag, "; how many connections are kept, keepalive_idle_conns_per_host says");
                return ERR_INVALID;
            }
            j_put_int(a, alive, "idle_timeout", ns);
        }
    } else if (dispenser_val_is(d, "compression")) {
        if (dispenser_next_arg(d) && dispenser_val_is(d, "off"))
            j_set(a, o, "compression", json_false());
    } else {
        return proxy_hint(d, WORDS_HTTP, dispenser_unrecognized(d));
    }
    return OK;
}

/* The pool of authorities that upstreams are checked by. */
static enum err trust_pool(struct adapt *a, struct dispenser *d, json_t *o)
{
    json_t *tls = j_at(a, o, "tls"), *pool;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice name = dispenser_val(d);
    TRY(ca_pool_read(a, d, name, &pool));
    if (json_object_get(tls, "root_ca_pem_files") != NULL)
        return dispenser_err_f(
            d, "cannot specify both 'tls_trust_pool' and 'tls_trusted_ca_certs'");
    if (json_object_get(tls, "ca") != NULL)
        return dispenser_err_f(d, "cannot specify \"tls_trust_pool\" twice in caddyfile");
    j_set(a, tls, "ca", pool);
    return OK;
}

static enum err http_option(struct adapt *a, struct dispenser *d, json_t *o)
{
    bool known;
    if (dispenser_val_is(d, "tls_trust_pool"))
        return trust_pool(a, d, o);
    if (dispenser_val_is(d, "tls_trusted_ca_certs")) {
        LOG(LOG_WARN, "", "The 'tls_trusted_ca_certs' field is deprecated. Use the "
                          "'tls_trust_pool' field instead.");
        if (json_object_get(json_object_get(o, "tls"), "ca") != NULL)
            return dispenser_err_f(
                d, "cannot specify both 'tls_trust_pool' and 'tls_trusted_ca_certs");
    }
    TRY(option_read(a, d, transport_options, o, &known));
    if (!known)
        TRY(transport_tls(a, d, o, &known));
    return known ? OK : transport_other(a, d, o);
}

static enum err fastcgi_option(struct adapt *a, struct dispenser *d, json_t *o)
{
    static const struct option options[] = {
        {"root", OPTION_TEXT, "root", NULL},
        {"split", OPTION_TEXTS, "split_path", NULL},
        {"resolve_root_symlink", OPTION_FLAG, "resolve_root_symlink", NULL},
        {"dial_timeout", OPTION_DURATION, "dial_timeout", "bad timeout value"},
        {"read_timeout", OPTION_DURATION, "read_timeout", "bad timeout value"},
        {"write_timeout", OPTION_DURATION, "write_timeout", "bad timeout value"},
        {"capture_stderr", OPTION_FLAG, "capture_stderr", NULL},
        {"keepalive", OPTION_INT, "keepalive", "bad number of connections"}, /* ours */
        {0},
    };
    struct slice *args;
    bool known;
    TRY(option_read(a, d, options, o, &known));
    if (known)
        return OK;
    if (!dispenser_val_is(d, "env"))
        return proxy_hint(d, WORDS_FASTCGI, dispenser_unrecognized(d));
    if (dispenser_remaining_args(d, &args) != 2)
        return dispenser_arg_err(d);
    j_set_key(a, j_at(a, o, "env"), args[0], j_text(a, args[1]));
    return OK;
}

enum err transport_read(struct adapt *a, struct dispenser *outer, const char **name, json_t **out)
{
    bool http = dispenser_val_is(outer, "http");
    if (!http && !dispenser_val_is(outer, "fastcgi"))
        return proxy_hint(outer, WORDS_TRANSPORT,
                          no_module(outer, "http.reverse_proxy.transport", dispenser_val(outer)));
    struct dispenser d = dispenser_new_from_next_segment(outer);
    dispenser_next(&d);
    *name = http ? "http" : "fastcgi";
    *out = j_object(a);
    while (dispenser_next_block(&d, 0))
        TRY(http ? http_option(a, &d, *out) : fastcgi_option(a, &d, *out));
    return OK;
}
