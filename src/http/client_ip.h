/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who the client is when trusted proxies stand before the server: the address that they name in
 * X-Forwarded-For or another field, else the peer's own.
 */
#pragma once

#include "http/module.h"
#include "net/ip_set.h"

/* The face of modules in http.ip_sources. Must not wait. */
struct ip_source {
    bool (*has)(const void *cfg, const struct ip_address *);
};

extern const struct module ip_source_static;

/* What a server says about it. */
struct client_ip_policy {
    const struct ip_source *source; /* trusted_proxies; NULL: no address is trusted */
    const void *source_cfg;
    struct slice *fields;           /* client_ip_headers, X-Forwarded-For by default */
    size_t fields_count;
    bool strict;                    /* the first untrusted address from the right, not the leftmost */
    bool trust_unix;                /* peers on Unix sockets are proxies */
};

/* Reads trusted_proxies, trusted_proxies_strict, trusted_proxies_unix, client_ip_headers. */
enum err client_ip_provision(struct client_ip_policy *, const json_t *server, struct provision *);

/* Before request fields are changed: where a proxy may be trusted the client's address comes from
 * them as they arrived. */
void client_ip_settle(struct exchange *);
