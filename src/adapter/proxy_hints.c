/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What else may have been meant, said behind the error that Caddy would give: a word of another place,
 * of another server or of an older version; one too many on its line; or one that is nearly right.
 * Upstreams that are taken, as in Caddy, for what hardly anybody means have a warning.
 */
#include "adapter/proxy_parts.h"
#include "adapter/suggest.h"
#include "adapter/upstream_address.h"
#include "base/log.h"
#include "net/address.h"
#include "net/ip_set.h"

static const char *const proxy_words[] = {
    "to", "dynamic", "lb_policy", "lb_retries", "lb_try_duration", "lb_try_interval", "lb_retry_match",
    "health_uri", "health_upstream", "health_port", "health_interval", "health_passes",
    "health_fails", "health_timeout", "health_method", "health_status", "health_request_body",
    "health_body", "health_follow_redirects", "health_headers", "fail_duration", "max_fails",
    "unhealthy_status", "unhealthy_latency", "unhealthy_request_count", "flush_interval",
    "request_buffers", "response_buffers", "stream_timeout", "stream_close_delay",
    "stream_buffer_size", "trusted_proxies", "header_up", "header_down", "method", "rewrite",
    "transport", "replace_status", "handle_response", "verbose_logs", "max_requests", "queue",
    "queue_timeout", "retry_budget", "slow_start", "eject", "warm_connections", "hedge", "mirror",
    NULL};
static const char *const http_words[] = {
    "read_buffer", "write_buffer", "max_response_header", "proxy_protocol", "dial_timeout",
    "dial_fallback_delay", "response_header_timeout", "expect_continue_timeout", "read_timeout",
    "write_timeout", "resolvers", "tls", "tls_client_auth", "tls_insecure_skip_verify", "tls_curves",
    "tls_timeout", "tls_trust_pool", "tls_trusted_ca_certs", "tls_server_name",
    "tls_renegotiation", "tls_except_ports", "keepalive", "keepalive_interval",
    "keepalive_idle_conns", "keepalive_idle_conns_per_host", "versions", "compression",
    "max_conns_per_host", "network_proxy", "local_address", NULL};
static const char *const fastcgi_words[] = {
    "root", "split", "env", "resolve_root_symlink", "dial_timeout", "read_timeout", "write_timeout",
    "capture_stderr", "keepalive", NULL};
static const char *const policy_words[] = {
    "random", "random_choose", "round_robin", "weighted_round_robin", "least_conn", "first", "ip_hash",
    "client_ip_hash", "uri_hash", "query", "header", "cookie", "p2c_ewma", NULL};
static const char *const source_words[] = {"a", "srv", "multi", "service", NULL};
static const char *const transport_words[] = {"http", "fastcgi", NULL};

static const char *const *const words[] = {
    [WORDS_PROXY] = proxy_words,   [WORDS_HTTP] = http_words,     [WORDS_FASTCGI] = fastcgi_words,
    [WORDS_POLICY] = policy_words, [WORDS_SOURCE] = source_words, [WORDS_TRANSPORT] = transport_words,
};

#define TIMEOUTS "timeouts are dial_timeout, response_header_timeout, read_timeout and " \
                 "write_timeout of 'transport http'"

static const struct {
    enum proxy_words where;
    const char *word, *hint;
} hints[] = {
    {WORDS_PROXY, "header", "header_up changes what upstreams get, header_down what clients get"},
    {WORDS_PROXY, "copy_headers", "it belongs to forward_auth"},
    {WORDS_PROXY, "authResponseHeaders", "it is copy_headers of forward_auth"},
    {WORDS_PROXY, "authRequestHeaders", "forward_auth passes all of the request's fields on"},
    {WORDS_PROXY, "trustForwardHeader", "it is trusted_proxies here"},
    {WORDS_PROXY, "address", "the address stands behind the directive's name"},
    {WORDS_PROXY, "buffer_requests", "it is 'request_buffers SIZE' by now"},
    {WORDS_PROXY, "buffer_responses", "it is 'response_buffers SIZE' by now"},
    {WORDS_PROXY, "max_buffer_size", "the size stands behind request_buffers and response_buffers by now"},
    {WORDS_PROXY, "websocket", "nothing needs to be said for WebSockets"},
    {WORDS_PROXY, "transparent", "upstreams get the request's Host and X-Forwarded-* anyway"},
    {WORDS_PROXY, "passHostHeader", "upstreams get the request's Host anyway"},
    {WORDS_PROXY, "without", "handle_path around it takes a prefix away"},
    {WORDS_PROXY, "strip_prefix", "handle_path around it takes a prefix away"},
    {WORDS_PROXY, "stripPrefix", "handle_path around it takes a prefix away"},
    {WORDS_PROXY, "server", "upstreams stand behind the directive's name, or behind 'to'"},
    {WORDS_PROXY, "servers", "upstreams stand behind the directive's name, or behind 'to'"},
    {WORDS_PROXY, "upstreams", "upstreams stand behind the directive's name, or behind 'to'"},
    {WORDS_PROXY, "balance", "it is lb_policy here"},
    {WORDS_PROXY, "policy", "it is lb_policy here"},
    {WORDS_PROXY, "sticky", "it is 'lb_policy cookie' here"},
    {WORDS_PROXY, "weight", "weights stand behind 'lb_policy weighted_round_robin'"},
    {WORDS_PROXY, "maxconn", "it is max_requests here"},
    {WORDS_PROXY, "check", "checks begin with health_uri"},
    {WORDS_PROXY, "health_check", "checks begin with health_uri"},
    {WORDS_PROXY, "healthcheck", "checks begin with health_uri"},
    {WORDS_PROXY, "fail_timeout", "it is fail_duration here"},
    {WORDS_PROXY, "proxy_set_header", "it is header_up here"},
    {WORDS_PROXY, "proxy_hide_header", "it is 'header_down -NAME' here"},
    {WORDS_PROXY, "add_header", "it is header_down here"},
    {WORDS_PROXY, "proxy_connect_timeout", "it is dial_timeout of 'transport http'"},
    {WORDS_PROXY, "proxy_read_timeout", "it is read_timeout of 'transport http'"},
    {WORDS_PROXY, "proxy_send_timeout", "it is write_timeout of 'transport http'"},
    {WORDS_PROXY, "proxy_buffering", "nothing is held back unless response_buffers says so; 'flush_interval "
                                     "-1' passes each piece on at once"},
    {WORDS_PROXY, "proxy_request_buffering", "nothing is held back unless request_buffers says so"},
    {WORDS_PROXY, "proxy_http_version", "it is versions of 'transport http'"},
    {WORDS_PROXY, "proxy_redirect", "it is 'header_down Location FROM TO' here"},
    {WORDS_PROXY, "proxy_next_upstream", "it is lb_retries or lb_try_duration here"},
    {WORDS_PROXY, "proxy_ssl_verify", "it is tls_insecure_skip_verify of 'transport http'"},
    {WORDS_PROXY, "proxy_ssl_name", "it is tls_server_name of 'transport http'"},
    {WORDS_PROXY, "proxy_pass", "upstreams stand behind reverse_proxy, or behind 'to'"},
    {WORDS_PROXY, "client_max_body_size", "it is the directive 'request_body { max_size SIZE }'"},
    {WORDS_PROXY, "fastcgi_param", "it is 'env NAME VALUE' here"},
    {WORDS_PROXY, "fastcgi_index", "it is 'index NAME' of php_fastcgi"},
    {WORDS_PROXY, "fastcgi_split_path_info", "it is 'split .php' here"},
    {WORDS_PROXY, "fastcgi_read_timeout", "it is read_timeout here"},
    {WORDS_PROXY, "insecure_skip_verify", "it is tls_insecure_skip_verify of 'transport http'"},
    {WORDS_PROXY, "timeout", TIMEOUTS},
    {WORDS_HTTP, "timeout", TIMEOUTS},
    {WORDS_POLICY, "source", "it is ip_hash here"},
    {WORDS_POLICY, "sticky", "it is cookie here"},
    {WORDS_POLICY, "hash", "there are ip_hash, client_ip_hash, uri_hash, query, header and cookie"},
    {WORDS_POLICY, "uri", "it is uri_hash here"},
    {WORDS_POLICY, "least_connections", "it is least_conn here"},
    {WORDS_POLICY, "least_requests", "it is least_conn here"},
    {WORDS_POLICY, "least_time", "it is p2c_ewma here"},
    {WORDS_POLICY, "p2c", "it is 'random_choose 2' or p2c_ewma here"},
    {WORDS_POLICY, "rr", "it is round_robin here"},
    {WORDS_POLICY, "wrr", "it is weighted_round_robin here"},
    {WORDS_POLICY, "weighted", "it is weighted_round_robin here"},
    {WORDS_SOURCE, "dns", "it is 'a' for addresses of a host, 'srv' for SRV records"},
    {WORDS_TRANSPORT, "https", "it is 'http' with 'tls' in its block, or https:// before the upstream"},
    {WORDS_TRANSPORT, "h2c", "it is 'http' with 'versions h2c' in its block, or h2c:// before the upstream"},
    {WORDS_TRANSPORT, "grpc", "it is 'http' with 'versions h2c' in its block, or h2c:// before the upstream"},
    {WORDS_TRANSPORT, "fcgi", "it is 'fastcgi' here"},
    {WORDS_TRANSPORT, "php", "it is 'fastcgi' here; php_fastcgi does the rest as well"},
};

static bool is_among(struct slice word, const char *const *list)
{
    while (*list != NULL && !slice_is(word, *list))
        list++;
    return *list != NULL;
}

static const char *hint_for(enum proxy_words where, struct slice word)
{
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (hints[i].where == where && slice_is(word, hints[i].word))
            return hints[i].hint;
    if (where == WORDS_PROXY && is_among(word, http_words))
        return "it belongs into the block of 'transport http'";
    if ((where == WORDS_HTTP || where == WORDS_FASTCGI) && is_among(word, proxy_words))
        return "it belongs into the block around 'transport'";
    return NULL;
}

/* The first word of the line that the cursor is on, unless that is the cursor's. */
static const struct token *begin_of_line(const struct dispenser *d)
{
    ptrdiff_t at = d->cursor;
    while (at > 0 && !token_on_new_line(&d->tokens[at - 1], &d->tokens[at]) &&
           !token_opens(&d->tokens[at - 1]))
        at--;
    return at < 0 || at == d->cursor ? NULL : &d->tokens[at];
}

enum err proxy_hint(struct dispenser *d, enum proxy_words where, enum err e)
{
    struct suggestion near = {0};
    struct slice word = dispenser_val(d);
    bool option = where <= WORDS_FASTCGI;
    const char *hint = hint_for(where, word);
    const struct token *first = option ? begin_of_line(d) : NULL;
    for (const char *const *w = words[where]; *w != NULL; w++)
        suggest(&near, word, *w);
    if (first != NULL)
        diag_append(d->diag, " - a word too many behind '" SLICE_FMT "'?", SLICE_ARG(first->text));
    else if (hint != NULL)
        diag_append(d->diag, " - %s", hint);
    else if (near.word != NULL)
        diag_append(d->diag, " - did you mean '%s'?", near.word);
    return e;
}

/* --- upstreams --- */

static bool is_number(struct slice s)
{
    uint64_t n;
    return slice_to_u64(s, 1000000, &n);
}

/* One that begins with a dot is meant to be that. */
static bool is_relative(const struct upstream_address *u)
{
    return u->host.len > 0 && memchr("/@{.", u->host.ptr[0], 4) == NULL;
}

/* "::1:3000", and what is no address at all. One may stand without brackets, as long as its last group is
 * not written as a port behind what would be an address by itself. */
static bool has_odd_colons(struct slice text)
{
    struct slice plain = slice_take(text, slice_find(text, '%')); /* without a zone */
    size_t last = slice_find_last(plain, ':');
    struct ip_address ip;
    uint64_t port;
    if (slice_find(plain, ':') == last || slice_starts(text, SLICE("[")) ||
        slice_find(text, '{') != SIZE_MAX)
        return false;
    return !ip_parse(plain, &ip) ||
           (ip_parse(slice_take(plain, last), &ip) &&
            slice_to_u64(slice_skip(plain, last + 1), UINT16_MAX, &port) && port >= 80);
}

static void warn(struct dispenser *d, const char *key, struct slice text, const char *why)
{
    struct log_field f[] = {LOG_STR(key, text), LOG_STR("file", dispenser_file(d)),
                            LOG_NUM("line", dispenser_line(d))};
    log_emit(LOG_WARN, "caddyfile", slice_from(why), f, 3);
}

/* "app:3000/api": what stands before the slash would be a network's name. */
static bool has_path(const struct upstream_address *u)
{
    struct slice n = u->network;
    return n.len > 0 && !network_is_unix(n) && !network_is_fd(n) && !slice_starts(n, SLICE("tcp")) &&
           !slice_starts(n, SLICE("udp")) && slice_find(n, '{') == SIZE_MAX;
}

static const char *odd_upstream(struct slice text, const struct upstream_address *u)
{
    bool plain = u->network.len == 0 && u->scheme.len == 0;
    bool is_unix = network_is_unix(u->network);
    if (is_unix && is_relative(u))
        return "the path of this Unix socket is relative to the folder that portico is "
               "started in: an absolute one has two slashes behind 'unix', as in unix//run/app.sock";
    if (has_path(u))
        return "an upstream is a host and a port, without a path: what stands before the '/' is taken for "
               "the name of a network (and matchers of paths begin with a '/')";
    if (plain && is_number(text))
        return "this is the host of that name, with the port 80: a port is written as localhost:3000";
    if (plain && has_odd_colons(text))
        return "this is taken for an IPv6 address, with the port 80: with a port it is written as "
               "[::1]:3000";
    if (is_unix)
        return NULL;
    if (slice_find(u->host, '*') != SIZE_MAX)
        return "nothing can be asked by a name with a '*'";
    if (slice_find(u->host, '$') != SIZE_MAX)
        return "this is taken for the name of a host: a variable of the environment is written {$NAME}";
    if (slice_find(u->host, '=') != SIZE_MAX)
        return "this is taken for the name of a host: weights stand behind 'lb_policy "
               "weighted_round_robin', other options in the block";
    if (u->scheme.len > 0 && slice_find(text, '@') != SIZE_MAX)
        return "the user and password of an upstream's URL are not sent: header_up Authorization can say "
               "them";
    return NULL;
}

void proxy_warn_upstream(struct dispenser *d, struct slice text, const struct upstream_address *u)
{
    const char *why = odd_upstream(text, u);
    if (why != NULL)
        warn(d, "upstream", text, why);
}

static const struct {
    const char *begin, *hint;
} schemes[] = {
    {"unix:", "a Unix socket is written unix//run/app.sock"},
    {"http://unix:", "a Unix socket is written unix//run/app.sock"},
    {"grpc://", "gRPC is spoken to h2c:// in clear text, to https:// with TLS"},
    {"h2://", "HTTP/2 with TLS is agreed upon with any https://, without is h2c://"},
    {"tcp://", "it is the address without a scheme, if HTTP is spoken there"},
    {"fastcgi://", "FastCGI is spoken by php_fastcgi, or with 'transport fastcgi'"},
    {"fcgi://", "FastCGI is spoken by php_fastcgi, or with 'transport fastcgi'"},
};

static const char *wrong_upstream(struct slice text)
{
    char last = text.len > 0 ? text.ptr[text.len - 1] : '\0';
    size_t scheme = slice_find_slice(text, SLICE("://"));
    if (last == ';')
        return "no ';' ends a line here";
    if (last == '{')
        return "a space must stand before the '{'";
    if (last == ',')
        return "spaces part upstreams, not commas";
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (slice_starts(text, slice_from(schemes[i].begin)))
            return schemes[i].hint;
    if (scheme == SIZE_MAX)
        return NULL;
    size_t slash = slice_find(slice_skip(text, scheme + 3), '/');
    if (slash == SIZE_MAX)
        return NULL;
    return scheme + 3 + slash + 1 == text.len
               ? "leave the '/' at its end out"
               : "leave the path out: 'rewrite /api{uri}' in the block puts one before the request's, "
                 "handle_path around it takes one away";
}

enum err proxy_hint_upstream(struct dispenser *d, struct slice text, enum err e)
{
    const char *hint = wrong_upstream(text);
    if (hint != NULL)
        diag_append(d->diag, " - %s", hint);
    return e;
}

/* --- fields --- */

void proxy_warn_field(struct dispenser *d, const char *option, struct slice name)
{
    char why[160];
    struct slice plain = name.len > 1 && strchr("+-?>", name.ptr[0]) != NULL ? slice_skip(name, 1) : name;
    char last = plain.len > 0 ? plain.ptr[plain.len - 1] : '\0';
    plain = slice_take(plain, slice_find(plain, '{')); /* what a placeholder gives is not known */
    if (slice_find(plain, '*') != SIZE_MAX)
        return;
    for (size_t i = 0; i < plain.len; i++) {
        unsigned char c = (unsigned char)plain.ptr[i];
        if (c > ' ' && c < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", c) == NULL)
            continue;
        snprintf(why, sizeof why, "%s: no field has such a name, so this has no effect%s", option,
                 last == ':'   ? ": leave the ':' out"
                 : last == ',' ? ": spaces part names, not commas"
                               : "");
        warn(d, "field", name, why);
        return;
    }
}

void proxy_warn_auth_uri(struct dispenser *d, struct slice uri)
{
    if (slice_find_slice(uri, SLICE("://")) != SIZE_MAX && uri.ptr[0] != '/')
        warn(d, "uri", uri, "forward_auth: uri is a path and a query only: the address stands behind "
             "forward_auth");
}

/* --- header_up --- */

#define UNNEEDED "header_up: this is sent as it stands, not as another server's variable; WebSockets and " \
                 "X-Forwarded-For need no header_up"

/* Variables as nginx has them: nobody sends such a word on purpose. */
static const struct {
    const char *variable, *why;
} variables[] = {
#define WRITTEN(variable, placeholder)                                                             \
    {variable, "header_up: this is sent as it stands: the placeholder is written " placeholder}
    WRITTEN("$host", "{host}"),
    WRITTEN("$http_host", "{hostport}"),
    WRITTEN("$server_name", "{host}"),
    WRITTEN("$proxy_host", "{upstream_hostport}"),
    WRITTEN("$remote_addr", "{remote_host}"),
    WRITTEN("$remote_port", "{remote_port}"),
    WRITTEN("$scheme", "{scheme}"),
    WRITTEN("$request_uri", "{uri}"),
    WRITTEN("$request_method", "{method}"),
#undef WRITTEN
    {"$proxy_add_x_forwarded_for", UNNEEDED},
    {"$http_upgrade", UNNEEDED},
    {"$connection_upgrade", UNNEEDED},
};

void proxy_warn_variable(struct dispenser *d, struct slice value)
{
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        if (slice_is(value, variables[i].variable))
            warn(d, "value", value, variables[i].why);
}
