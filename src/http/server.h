/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP server of the configuration ("apps.http.servers.NAME"): its listen addresses, limits,
 * routes, error routes and access logs. Immutable once provisioned.
 */
#pragma once

#include <stdatomic.h>

#include "http/client_ip.h"
#include "http/proxy_policy.h"
#include "http/route.h"
#include "tls/policy.h"

enum http_protocol { HTTP_1 = 1, HTTP_2 = 2, HTTP_2_CLEAR = 4, HTTP_3 = 8 };
enum { HTTP_2_IS_THERE = 1 }; /* of the protocols that are asked for, h2 is offered */

struct http_server {
    struct slice name;
    struct slice *listen; /* network addresses as written */
    size_t listen_count;
    struct route_list routes, errors;
    struct access_log *logs; /* NULL: no access log */
    /* Nanoseconds, 0: none. The whole request; its head (1 minute by default); a pause within its
     * body (1 minute); the whole response; a pause of a reader (1 minute); between requests
     * (5 minutes). */
    uint64_t read_timeout_ns, read_header_timeout_ns, read_idle_timeout_ns;
    uint64_t write_timeout_ns, write_idle_timeout_ns, idle_timeout_ns;
    uint64_t read_min_rate, write_min_rate; /* bytes a second, 0: none */
    /* TCP probes; 0: 15 s, 15 s, 9. An interval below 0: none; idle or count: the kernel's. */
    int64_t keepalive_interval_ns, keepalive_idle_ns;
    int32_t keepalive_count;
    uint32_t max_header_bytes; /* 16 KiB by default */
    const atomic_uint_fast64_t *shutdown_ns; /* monotonic: when a delayed shutdown begins; holds 0
                                              * while none is ahead; may be NULL */
    bool full_duplex;
    unsigned protocols;         /* HTTP_1 | …: of any of its addresses */
    unsigned *listen_protocols; /* of each member of `listen` */
    struct tls_server *tls;     /* NULL: no address is encrypted; else all but those on the HTTP port */
    bool strict_sni_host;       /* a request for another host than the handshake's is refused: 421 */
    struct client_ip_policy client_ip;
    const struct proxy_policy *proxy; /* whose PROXY headers count; NULL: none is looked for */
    uint32_t redirect_max; /* HTTP spoken to an encrypted address is redirected; its head's bytes; 0: no */
    struct slice *underscore_headers, *dot_headers; /* names with '_' or '.' that are let through */
    size_t underscore_count, dot_count;
};

/* Provisions one member of "servers". */
enum err http_server_provision(struct http_server *, struct slice name, const json_t *,
                               struct provision *);

/* Answers one request: runs the routes, then, after a failure, the error routes; always ends the
 * response. Runs on the exchange's fiber. What wire/ calls. */
void http_server_serve(const struct http_server *, struct exchange *);
