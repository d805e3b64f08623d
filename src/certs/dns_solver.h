/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS-01 (RFC 8555 §8.4): a TXT record at the provider, and the wait until others see it.
 */
#pragma once

#include "certs/dns_provider.h"
#include "http/module.h"

enum { DNS_RESOLVERS_MAX = 16 };

struct dns_solver_options {
    const struct dns_provider_type *provider;
    const void *provider_cfg;
    uint32_t ttl_s;
    uint64_t propagation_delay_ns;
    int64_t propagation_timeout_ns; /* 0: two minutes; -1: no checks */
    struct slice *resolvers;        /* "192.0.2.1:53", "ns.example"; none: the system's */
    size_t resolvers_count;
    struct slice override_domain;   /* whole name of the record; empty: _acme-challenge.NAME */
};

/* Reads {"provider": {…}, "ttl", "propagation_delay", "propagation_timeout", "resolvers",
 * "override_domain"}; without a provider of its own, `fallback` (the tls app's "dns") is taken. */
enum err dns_solver_provision(struct provision *, const json_t *, const json_t *fallback,
                              struct dns_solver_options *);

/* A record that is there, with what is needed to take it away. */
struct dns_presented {
    struct dns_record record;
    struct slice fqdn; /* with its final dot */
    bool there;
};

/* A record of that whole name: TXT, or CNAME. */
enum err dns_present(const struct dns_solver_options *, struct slice name, struct slice type,
                     struct slice text, struct arena *, struct dns_presented *, char *why,
                     size_t cap);

/* Until the record is seen, or the time is over: ERR_TIMEOUT. */
enum err dns_await(const struct dns_solver_options *, const struct dns_presented *, struct arena *,
                   char *why, size_t cap);
enum err dns_remove(const struct dns_solver_options *, struct dns_presented *, struct arena *,
                    char *why, size_t cap);
