/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proxies between this server and what it asks: which one a URL goes by, and the way through it.
 */
#pragma once

#include "client/url.h"
#include "upstream/link.h"

struct forward_proxy {
    struct url url;           /* its host, port and user */
    struct slice credentials; /* the value of Proxy-Authorization; empty: none */
    bool socks;               /* SOCKS 5, by which everything is reached; else HTTP */
};

/* "http://user:password@host:port", or https, socks5, socks5h, which is the same, or without the
 * scheme. ERR_INVALID, ERR_UNSUPPORTED (older SOCKS) with a sentence. */
enum err forward_proxy_parse(struct slice, struct forward_proxy *, struct arena *,
                             const char **why);

/* The URL as it may be shown to people and written to logs: without the password, and without the name
 * where no password stands behind it, which is then a token. */
struct slice forward_proxy_shown(struct slice, struct arena *);

/* What the environment says, as Go reads it. */
struct proxy_rules {
    struct slice http, https, no; /* HTTP_PROXY, HTTPS_PROXY, NO_PROXY or their lower-case names */
    bool cgi;                     /* REQUEST_METHOD is set: HTTP_PROXY may be a client's header */
};

/* The process's own, read once. */
const struct proxy_rules *proxy_rules_of_process(void);

/* The proxy's text for a server, or the empty slice: straight. `host` in lower case. ERR_DENIED with a
 * sentence: HTTP_PROXY in a CGI program. */
enum err proxy_rules_choose(const struct proxy_rules *, bool tls, struct slice host, uint16_t port,
                            struct slice *proxy, const char **why);

/* Whether a server without TLS is asked of it by its whole URL, instead of by a tunnel. */
static inline bool proxy_takes_urls(const struct forward_proxy *p)
{
    return !p->socks;
}

/* What links of that proxy have in their keys. */
struct slice forward_proxy_key(const struct forward_proxy *, struct arena *);

/* CONNECT, or what SOCKS has for it, on a fresh link to the proxy: from then on it is a connection to
 * the target, which is "host:port", without TLS in any case. ERR_DENIED with a sentence: the proxy
 * refuses; else as await_link. */
enum err await_proxy_tunnel(struct link *, const struct forward_proxy *, struct slice target,
                            struct arena *, uint64_t deadline_ns, char *why, size_t cap);
