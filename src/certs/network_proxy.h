/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The member "network_proxy" of transports and of issuers: modules "caddy.network_proxy.*".
 *
 *     {"network_proxy": {"from": "url", "url": "http://user:password@proxy.example:3128"}}
 *     {"network_proxy": {"from": "none"}}
 */
#pragma once

#include "http/module.h"

struct network_proxy {
    struct slice url; /* as it is written, with its placeholders; empty: the environment's */
    bool none;        /* not the environment's either */
};

enum err network_proxy_read(struct provision *, const json_t *, struct network_proxy *);

/* For requests of portico itself: placeholders are replaced now, and what comes out must be a proxy. */
enum err network_proxy_provision(struct provision *, const json_t *, struct network_proxy *);
