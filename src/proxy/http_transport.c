/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport "http": HTTP/1.1 over TCP or a Unix socket, with TLS or without. Its options, and how
 * a request comes to a connection: one that is idle, or a new one, which is dialed within dial_timeout.
 *
 *     {"protocol": "http", "dial_timeout": "3s", "keep_alive": {"max_idle_conns_per_host": 32}, …}
 */
#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "base/clock.h"
#include "loop/await.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"

enum { HEAD_MAX = 64 << 20, IDLE_PER_GROUP = 32 };

static const char *const members[] = {
    "protocol", "resolver", "tls", "keep_alive", "compression", "max_conns_per_host",
    "proxy_protocol", "forward_proxy_url", "dial_timeout", "dial_fallback_delay",
    "response_header_timeout", "expect_continue_timeout", "max_response_header_size",
    "write_buffer_size", "read_buffer_size", "read_timeout", "write_timeout", "versions",
    "local_address", "network_proxy", NULL};
static const char *const keep_alive_members[] = {"enabled", "probe_interval", "max_idle_conns",
                                                 "max_idle_conns_per_host", "idle_timeout", NULL};

enum err transport_duration(struct provision *p, const json_t *json, const char *key,
                            int64_t fallback, uint64_t *out)
{
    int64_t ns;
    TRY(provision_duration(p, json, key, 0, &ns));
    *out = ns > 0 ? (uint64_t)ns : ns == 0 ? (uint64_t)fallback : 0;
    return OK;
}

static enum err read_timeouts(struct http_transport *t, const json_t *json, struct provision *p)
{
    int64_t ns;
    TRY(transport_duration(p, json, "dial_timeout", 3 * (int64_t)NS_PER_S, &t->dial_ns));
    TRY(transport_duration(p, json, "response_header_timeout", 0, &t->header_ns));
    TRY(transport_duration(p, json, "expect_continue_timeout", 0, &t->continue_ns));
    TRY(transport_duration(p, json, "read_timeout", 0, &t->read_ns));
    TRY(transport_duration(p, json, "write_timeout", 0, &t->write_ns));
    TRY(provision_duration(p, json, "dial_fallback_delay", 0, &ns));
    int64_t ms = ns / (int64_t)NS_PER_MS;
    t->fallback_ms = ns < 0 ? DIAL_ONE_BY_ONE : ns == 0 ? 0 : ms > 0 ? (uint32_t)ms : 1;
    return OK;
}

static enum err read_keep_alive(struct http_transport *t, const json_t *json, struct provision *p)
{
    int64_t n;
    uint64_t ns;
    if (json != NULL && !json_is_null(json))
        TRY(provision_members(p, json, keep_alive_members));
    TRY(provision_bool(p, json, "enabled", true, &t->keep_alive));
    TRY(provision_duration(p, json, "probe_interval", 30 * (int64_t)NS_PER_S, &n));
    t->probes = n >= 0;
    t->probe_s = n > (int64_t)NS_PER_S ? (unsigned)(n / (int64_t)NS_PER_S) : n == 0 ? 30 : 1;
    TRY(provision_int(p, json, "max_idle_conns", 0, 0, INT32_MAX, &n));
    t->limits.idle_in_all = (uint32_t)n;
    TRY(provision_int(p, json, "max_idle_conns_per_host", 0, -1, INT32_MAX, &n));
    t->limits.idle_per_group = n > 0 ? (uint32_t)n : n == 0 ? IDLE_PER_GROUP : 0;
    TRY(transport_duration(p, json, "idle_timeout", 120 * (int64_t)NS_PER_S, &ns));
    t->limits.idle_timeout_ns = ns;
    return OK;
}

static enum err read_sizes(struct http_transport *t, const json_t *json, struct provision *p)
{
    int64_t n;
    bool ignored;
    TRY(provision_int(p, json, "max_response_header_size", 0, 0, INT64_MAX, &n));
    t->head_max = n > HEAD_MAX ? HEAD_MAX : n > 0 ? (uint64_t)n : HEAD_DEFAULT;
    TRY(provision_int(p, json, "max_conns_per_host", 0, INT64_MIN, INT32_MAX, &n));
    t->limits.links = n > 0 ? (uint32_t)n : 0;
    /* Buffers are recycled pieces of one size, and nothing is compressed on the way up or unpacked
     * on the way down: these three are understood, and need nothing. */
    TRY(provision_int(p, json, "read_buffer_size", 0, 0, INT32_MAX, &n));
    TRY(provision_int(p, json, "write_buffer_size", 0, 0, INT32_MAX, &n));
    return provision_bool(p, json, "compression", true, &ignored);
}

/* As in Caddy: "h2c" alone decides what is spoken without TLS, and HTTP/1.1 is offered with it always. */
static enum err read_versions(struct http_transport *t, const json_t *json, struct provision *p)
{
    struct slice *names;
    size_t count;
    TRY(provision_texts(p, json, "versions", &names, &count));
    t->h2_offered = count == 0;
    for (size_t i = 0; i < count; i++) {
        bool two = slice_is(names[i], "2"), clear = slice_is(names[i], "h2c");
        if (slice_is(names[i], "3"))
            return provision_fail(p, "HTTP version \"3\" to upstreams is not supported yet; use "
                                  "\"2\" or \"1.1\"");
        if (!slice_is(names[i], "1.1") && !two && !clear)
            return provision_fail(p, "unsupported HTTP version: " SLICE_FMT ", supported version: "
                                  "1.1, 2, h2c", SLICE_ARG(names[i]));
        t->h2_offered |= two || clear;
        t->h2c |= clear;
    }
    return OK;
}

/* A name is looked up once, at load: IPv4 first, as in Go. */
static bool look_up(const char *host, struct ip_address *ip)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL, *best = NULL;
    if (getaddrinfo(host, NULL, &hints, &list) != 0)
        return false;
    for (struct addrinfo *i = list; i != NULL; i = i->ai_next)
        if ((i->ai_family == AF_INET || i->ai_family == AF_INET6) &&
            (best == NULL || (best->ai_family == AF_INET6 && i->ai_family == AF_INET)))
            best = i;
    if (best != NULL) {
        *ip = (struct ip_address){.is_six = best->ai_family == AF_INET6};
        if (ip->is_six)
            memcpy(ip->bytes, &((struct sockaddr_in6 *)best->ai_addr)->sin6_addr, 16);
        else
            memcpy(ip->bytes, &((struct sockaddr_in *)best->ai_addr)->sin_addr, 4);
    }
    freeaddrinfo(list);
    return best != NULL;
}

static enum err read_local(struct http_transport *t, const json_t *json, struct provision *p)
{
    struct network_address a;
    struct address_error why;
    TRY(provision_text(p, json, "local_address", SLICE(""), &t->local_text));
    if (t->local_text.len == 0)
        return OK;
    if (address_parse(t->local_text, SLICE("tcp"), 0, &a, p->arena, &why) != OK)
        return provision_fail(p, "\"local_address\": %s", why.text);
    if (!slice_starts(a.network, SLICE("tcp")))
        return provision_fail(p, "\"local_address\" must be a TCP address");
    if (a.first_port != a.last_port)
        return provision_fail(p, "local_address must be a single address, not a port range");
    struct ip_address ip;
    if (!ip_parse(a.host.len > 0 ? a.host : SLICE("0.0.0.0"), &ip) &&
        !look_up(arena_str(p->arena, a.host), &ip))
        return provision_fail(p, "lookup " SLICE_FMT ": no such host", SLICE_ARG(a.host));
    struct sockaddr_in *four = (struct sockaddr_in *)&t->local;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&t->local;
    if (ip.is_six) {
        *six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(a.first_port)};
        memcpy(&six->sin6_addr, ip.bytes, 16);
    } else {
        *four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(a.first_port)};
        memcpy(&four->sin_addr, ip.bytes, 4);
    }
    t->local_len = ip.is_six ? sizeof *six : sizeof *four;
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct http_transport *t = cfg;
    t->protocol = &protocol_http;
    if (json != NULL)
        TRY(provision_members(p, json, members));
    TRY(read_timeouts(t, json, p));
    TRY(read_sizes(t, json, p));
    TRY(read_versions(t, json, p));
    TRY(read_local(t, json, p));
    TRY(transport_resolver_provision(t, json_object_get(json, "resolver"), p));
    TRY(transport_tls_provision(t, json_object_get(json, "tls"), p));
    TRY(transport_proxy_provision(t, json, p));
    return read_keep_alive(t, json_object_get(json, "keep_alive"), p);
}

const struct http_transport *http_transport_default(struct provision *p)
{
    struct http_transport *t = ARENA_NEW(p->arena, struct http_transport);
    (void)!provision(t, NULL, p); /* without JSON nothing can be wrong */
    return t;
}

static void release(void *cfg)
{
    struct http_transport *t = cfg;
    tls_client_unref(t->tls);
    tls_client_unref(t->tls_one);
}

const struct module transport_http = {
    .id = "http.reverse_proxy.transport.http",
    .cfg_size = sizeof(struct http_transport),
    .provision = provision,
    .release = release,
};

/* --- connecting --- */

struct slice round_text(const struct round *r, const struct template *t)
{
    struct gateway_view *view = r->x->gateway;
    if (r->probe)
        return template_expand_now(t->text, r->x->arena);
    r->x->gateway = (struct gateway_view *)(uintptr_t)&r->view; /* there may be two attempts at once */
    struct slice text = template_expand(t, r->x);
    r->x->gateway = view;
    return text;
}

enum err gateway_dial_failed(struct round *r, enum err e, const char *why)
{
    struct slice network = r->address.is_unix ? r->address.at.network : SLICE("tcp");
    if (fiber_self()->cancelled != OK) {
        r->error = fiber_self()->cancelled;
        return gateway_round_error(r, FAILURE_CLIENT, 499, "context canceled");
    }
    if (e == ERR_TIMEOUT)
        why = slice_starts(slice_from(why), SLICE("tls: "))     ? "tls: handshake timeout"
              : slice_starts(slice_from(why), SLICE("proxy: ")) ? "proxy: i/o timeout"
                                                                : "i/o timeout";
    struct slice by = r->address.proxy != NULL ? r->address.proxy->url.hostport : SLICE_NONE;
    struct slice text = arena_printf(r->x->arena, "dial " SLICE_FMT " " SLICE_FMT "%s" SLICE_FMT
                                     ": %s%c", SLICE_ARG(network), SLICE_ARG(r->address.hostport),
                                     by.len > 0 ? " by proxy " : "", SLICE_ARG(by), why, 0);
    return gateway_round_error(r, FAILURE_DIAL, e == ERR_TIMEOUT ? 504 : 502, text.ptr);
}

static enum err fail_connect(struct round *r, enum err e, const struct dialed *d)
{
    char text[160];
    if (d->error == 0)
        return gateway_dial_failed(r, e, e == ERR_INVALID ? "no suitable address" : err_text(e));
    snprintf(text, sizeof text, "connect: %s", strerrordesc_np(d->error));
    for (char *c = text; *c != '\0'; c++)
        *c = ascii_lower(*c);
    return gateway_dial_failed(r, e, text);
}

enum err gateway_await_room(struct round *r)
{
    const struct http_transport *t = r->g->transport;
    if (link_reserve(r->upstream->endpoint, &t->limits))
        return OK;
    gateway_watch(r); /* this may take as long as the upstream does */
    enum err e = await_link_room(r->address.key, r->upstream->endpoint, &t->limits, &r->link);
    return e == OK ? OK : gateway_dial_failed(r, e, err_text(e));
}

static enum err resolve(struct round *r, uint64_t deadline, struct resolved *to)
{
    char text[200];
    const struct forward_proxy *p = r->address.proxy;
    struct slice host = p != NULL ? p->url.host : r->address.host;
    uint16_t port = p != NULL ? p->url.port : r->address.at.first_port;
    enum err e = r->address.is_unix ? resolved_unix(r->address.host, to)
                                    : transport_resolve(r->g->transport, host, port, deadline, to);
    if (e == OK)
        return OK;
    snprintf(text, sizeof text, "lookup " SLICE_FMT ": %s", SLICE_ARG(host),
             to->why != NULL ? to->why : err_text(e));
    return gateway_dial_failed(r, e, text);
}

static enum err dial(struct round *r, uint64_t deadline)
{
    const struct http_transport *t = r->g->transport;
    struct resolved to;
    struct dialed out;
    struct dial_options options = {
        .deadline_ns = deadline,
        .fallback_ms = t->fallback_ms,
        .local = t->local_len > 0 && !r->address.is_unix ? (const struct sockaddr *)&t->local
                                                         : NULL,
        .local_len = t->local_len,
        .keepalive = t->probes,
        .keepalive_idle_s = t->probe_s,
        .keepalive_interval_s = t->probe_s,
    };
    TRY(resolve(r, options.deadline_ns, &to));
    enum err e = await_dial(&to, &options, &out);
    if (e != OK)
        return fail_connect(r, e, &out);
    r->link = link_open(r->address.key, r->upstream->endpoint, out.fd);
    return OK;
}

static enum err drop_fresh(struct round *r, enum err e, const char *why)
{
    link_close(r->link);
    r->link = NULL;
    return gateway_dial_failed(r, e, why);
}

/* Proxy and TLS. Nothing of the request has been sent when they fail: as a failure of the dial. */
static enum err prepare_link(struct round *r, uint64_t deadline)
{
    char proxy[400] = "proxy: ", tls[400] = "tls: ";
    if (r->g->transport->proxy_header > 0) {
        enum err e = transport_header_send(r, deadline, proxy + 7, sizeof proxy - 7);
        if (e != OK)
            return drop_fresh(r, e, proxy + 7);
    }
    if (r->address.proxy != NULL) {
        enum err e = transport_proxy_pass(r, deadline, proxy + 7, sizeof proxy - 7);
        if (e != OK)
            return drop_fresh(r, e, proxy);
    }
    if (r->address.tls) {
        enum err e = transport_tls_handshake(r, tls + 5, sizeof tls - 5);
        if (e != OK)
            return drop_fresh(r, e, tls);
    }
    return OK;
}

enum err gateway_open_link(struct round *r)
{
    uint64_t limit = r->g->transport->dial_ns;
    uint64_t deadline = limit > 0 ? loop_now_ns(loop_self()) + limit : 0;
    enum err e = dial(r, deadline);
    if (e != OK)
        link_unreserve(r->upstream->endpoint);
    return e == OK ? prepare_link(r, deadline) : e;
}

enum err gateway_connect(struct round *r, bool fresh)
{
    r->protocol = r->g->transport->protocol;
    if (gateway_may_speak_h2(r))
        return gateway_connect_h2(r, fresh);
    bool kept = r->g->transport->keep_alive && !fresh; /* others may have left some of that key */
    r->link = kept ? link_take(r->address.key) : NULL;
    if (r->link != NULL)
        return OK;
    TRY(gateway_await_room(r));
    return r->link != NULL ? OK : gateway_open_link(r);
}
