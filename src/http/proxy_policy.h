/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "listener_wrappers" of a server: what happens to a connection before TLS: the PROXY protocol, and
 * a redirect for those who speak HTTP where TLS is spoken.
 */
#pragma once

#include "http/module.h"
#include "net/ip_set.h"

/* Whose headers count. */
enum proxy_use {
    PROXY_IGNORE,  /* a header is taken off; the address is the connection's own */
    PROXY_USE,     /* a header's address counts */
    PROXY_REJECT,  /* a header ends the connection */
    PROXY_REQUIRE, /* no header ends the connection */
    PROXY_SKIP,    /* what comes is for HTTP, whatever it is */
};

struct proxy_policy {
    struct ip_set allow, deny;
    enum proxy_use fallback;
    uint64_t timeout_ns; /* for the header; 0: none */
};

struct listener_wrappers {
    const struct proxy_policy *proxy; /* NULL: none */
    uint32_t redirect_max; /* http_redirect: bytes of the request's head; 0: no redirect. Of encrypted
                            * addresses only. */
};

extern const struct module listener_http_redirect, listener_proxy_protocol, listener_tls;

/* `encrypted`: the server has TLS, and what stands behind the wrapper "tls" would be inside of it. */
enum err listener_wrappers_provision(struct listener_wrappers *, const json_t *server,
                                     bool encrypted, struct provision *);

/* For a connection from that address; an IPv4 address that came in on an IPv6 socket is IPv4. */
enum proxy_use proxy_policy_for(const struct proxy_policy *, const struct sockaddr_storage *peer);
