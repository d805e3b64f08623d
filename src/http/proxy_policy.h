/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "listener_wrappers" of a server: today the PROXY protocol, and the mark of where TLS would stand.
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

extern const struct module listener_proxy_protocol, listener_tls;

/* *out stays NULL when the server has no such wrapper. */
enum err listener_wrappers_provision(const struct proxy_policy **out, const json_t *server,
                                     struct provision *);

/* For a connection from that address; an IPv4 address that came in on an IPv6 socket is IPv4. */
enum proxy_use proxy_policy_for(const struct proxy_policy *, const struct sockaddr_storage *peer);
