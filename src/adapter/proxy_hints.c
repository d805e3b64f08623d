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
    {WORDS_PROXY, "buffer_requests", "it is 'request_buffers SIZE' by now"},
    {WORDS_PROXY, "buffer_responses", "it is 'response_buffers SIZE' by now"},
    {WORDS_PROXY, "max_buffer_size", "the size stands behind request_buffers and response_buffers by now"},
    {WORDS_PROXY, "websocket", "nothing needs to be said for WebSockets"},
    {WORDS_PROXY, "transparent", "upstreams get the request's Host and X-Forwarded-* anyway"},
    {WORDS_PROXY, "without", "handle_path around it takes a prefix away"},
    {WORDS_PROXY, "proxy_set_header", "it is header_up here"},
    {WORDS_PROXY, "insecure_skip_verify", "it is tls_insecure_skip_verify of 'transport http'"},
    {WORDS_PROXY, "timeout", TIMEOUTS},
    {WORDS_HTTP, "timeout", TIMEOUTS},
    {WORDS_TRANSPORT, "https", "it is 'http' with 'tls' in its block, or https:// before the upstream"},
    {WORDS_TRANSPORT, "h2c", "it is 'http' with 'versions h2c' in its block, or h2c:// before the upstream"},
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

void proxy_warn_upstream(struct dispenser *d, struct slice text, const struct upstream_address *u)
{
    bool plain = u->network.len == 0 && u->scheme.len == 0;
    bool is_unix = network_is_unix(u->network);
    if (is_unix && is_relative(u))
        warn(d, "upstream", text, "the path of this Unix socket is relative to the folder that portico is "
             "started in: an absolute one has two slashes behind 'unix', as in unix//run/app.sock");
    else if (plain && is_number(text))
        warn(d, "upstream", text, "this is the host of that name, with the port 80: a port is written as "
             "localhost:3000");
    else if (plain && has_odd_colons(text))
        warn(d, "upstream", text, "this is taken for an IPv6 address, with the port 80: with a port it is "
             "written as [::1]:3000");
    else if (!is_unix && slice_find(u->host, '*') != SIZE_MAX)
        warn(d, "upstream", text, "nothing can be asked by a name with a '*'");
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
