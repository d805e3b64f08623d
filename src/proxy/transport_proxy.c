/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upstreams behind a proxy: the transport's "network_proxy" (or the older "forward_proxy_url"), else
 * HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment, as in Caddy. An upstream with TLS is
 * reached by CONNECT; one without is asked for by its whole URL. The addresses of most upstreams are
 * known at load, and so is whether a proxy stands before them; nothing is looked at per request then.
 * A proxy that speaks SOCKS 5 is asked for a connection in any case.
 *
 * The PROXY protocol is the other thing of that name: with "proxy_protocol" a connection begins by
 * saying whose it is, {"proxy_protocol": "v1"} or "v2". It is then kept for that client only.
 */
#include "certs/network_proxy.h"
#include "net/proxy_header.h"
#include "proxy/gateway.h"

static enum err read_url(struct http_transport *t, struct slice text, struct provision *p)
{
    const char *why;
    template_compile(&t->proxy_text, text, p->arena);
    t->proxy_by_url = true;
    if (!t->proxy_text.constant)
        return OK;
    t->proxy = ARENA_NEW(p->arena, struct forward_proxy);
    if (forward_proxy_parse(text, t->proxy, p->arena, &why) != OK)
        return provision_fail(p, "network proxy \"" SLICE_FMT "\": %s",
                              SLICE_ARG(forward_proxy_shown(text, p->arena)), why);
    return OK;
}

static enum err read_header(struct http_transport *t, const json_t *json, struct provision *p)
{
    struct slice version;
    TRY(provision_text(p, json, "proxy_protocol", SLICE(""), &version));
    t->proxy_header = slice_is(version, "v1") ? 1 : slice_is(version, "v2") ? 2 : 0;
    return t->proxy_header > 0 || version.len == 0
               ? OK
               : provision_fail(p, "invalid proxy protocol version '" SLICE_FMT "'",
                                SLICE_ARG(version));
}

enum err transport_proxy_provision(struct http_transport *t, const json_t *json,
                                   struct provision *p)
{
    struct slice text;
    struct network_proxy proxy;
    TRY(read_header(t, json, p));
    TRY(provision_text(p, json, "forward_proxy_url", SLICE(""), &text));
    if (text.len > 0)
        return read_url(t, text, p);
    TRY(network_proxy_read(p, json_object_get(json, "network_proxy"), &proxy));
    t->no_proxy = proxy.none;
    return proxy.url.len > 0 ? read_url(t, proxy.url, p) : OK;
}

static void settle(struct dial_address *d, struct forward_proxy *proxy, struct arena *arena)
{
    d->proxy = proxy;
    d->key = arena_join(arena, (struct slice[]){d->key, SLICE("\nproxy "),
                                                forward_proxy_key(proxy, arena)}, 3);
    if (proxy->url.tls)
        (void)tls_client_system(); /* reads the system's roots, which no worker should have to */
}

static enum err settle_text(struct dial_address *d, struct slice text, struct arena *arena,
                            const char **why)
{
    struct forward_proxy *proxy = ARENA_NEW(arena, struct forward_proxy);
    TRY(forward_proxy_parse(text, proxy, arena, why));
    settle(d, proxy, arena);
    return OK;
}

static enum err by_environment(struct dial_address *d, struct arena *arena, const char **why)
{
    struct slice text, host;
    char *lower = arena_str(arena, d->host);
    for (size_t i = 0; i < d->host.len; i++)
        lower[i] = ascii_lower(lower[i]);
    host = slice_of(lower, d->host.len);
    TRY(proxy_rules_choose(proxy_rules_of_process(), d->tls, host, d->at.first_port, &text, why));
    return text.len > 0 ? settle_text(d, text, arena, why) : OK;
}

enum err transport_proxy_choose(const struct http_transport *t, struct dial_address *d,
                                struct arena *arena, const char **why)
{
    d->proxy = NULL;
    if (t->no_proxy || d->is_unix)
        return OK;
    if (!t->proxy_by_url)
        return by_environment(d, arena, why);
    if (t->proxy != NULL) /* else the request says */
        settle(d, t->proxy, arena);
    return OK;
}

enum err transport_proxy_ask(struct round *r)
{
    const struct http_transport *t = r->g->transport;
    const char *why = "";
    if (!t->proxy_by_url || t->proxy != NULL || r->address.is_unix)
        return OK;
    struct slice text = round_text(r, &t->proxy_text);
    if (settle_text(&r->address, text, r->x->arena, &why) == OK)
        return OK;
    r->error = exchange_fail_f(r->x, 502, "network proxy \"" SLICE_FMT "\": %s", SLICE_ARG(text),
                               why);
    return gateway_round_error(r, FAILURE_HANDLED, 0, "no network proxy");
}

enum err transport_proxy_pass(struct round *r, uint64_t deadline_ns, char *why, size_t cap)
{
    const struct forward_proxy *p = r->address.proxy;
    if (p->url.tls)
        TRY(await_link_tls(r->link, tls_client_system(), p->url.host, deadline_ns, why, cap));
    if (gateway_by_url(r))
        return OK;
    return await_proxy_tunnel(r->link, p, r->address.hostport, r->x->arena, deadline_ns, why, cap);
}

/* --- the PROXY protocol --- */

void transport_header_key(struct round *r)
{
    if (r->g->transport->proxy_header == 0)
        return;
    exchange_addresses(r->x);
    r->address.key = arena_join(r->x->arena, (struct slice[]){r->address.key, SLICE("\nfor "),
                                                              r->x->client_ip}, 3);
}

enum err transport_header_send(struct round *r, uint64_t deadline_ns, char *why, size_t cap)
{
    char header[PROXY_PUT_MAX];
    struct slice host, zone;
    struct ip_address ip;
    size_t sent;
    exchange_addresses(r->x);
    slice_cut(r->x->client_ip, '%', &host, &zone);
    bool known = ip_parse(host, &ip);
    struct iovec part = {header, proxy_header_put(r->g->transport->proxy_header,
                                                  known ? &ip : NULL, 0, header)};
    enum err e = stream_send(&r->link->stream, &part, 1, 0, deadline_ns, &sent);
    if (e != OK)
        snprintf(why, cap, "sending the PROXY header: %s", err_text(e));
    return e;
}
