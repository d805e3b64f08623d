/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a configuration says of ports: the sites' listeners, the services' ports, the upstreams, the
 * admin endpoint, and the app "ports":
 *
 *   "ports": {
 *     "declarations": [
 *       {"ports": ["22"], "protocol": "tcp", "name": "ssh", "reach": "network",
 *        "from": ["192.0.2.0/24", "2001:db8::/32"]},
 *       {"ports": ["443", "80"], "reach": "world"}, {"ports": ["8000-8010"], "reach": "device"}
 *     ],
 *     "others": "device",          world | device | nobody; left out: nothing is said of others
 *     "enforce": "observe"         or "nftables"
 *   }
 *
 * "reach" may be "device" and "from" given as well: the device and those prefixes. Pure: no kernel.
 */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "config/origin.h"
#include "ports/port.h"

struct ports_policy {
    const struct port_declaration *items; /* of the app only */
    size_t count;
    enum port_reach others; /* REACH_UNKNOWN: nothing was said */
    bool nftables;          /* enforce */
};

/* The app alone; `app` NULL: empty. An unknown member is an error. A sentence in `error`. */
enum err ports_policy_read(const json_t *app, const struct origins *, struct arena *,
                           struct ports_policy *, char *error, size_t cap);

/* Everything of the document. Conflicts are errors with both places: two services with one port, a
 * site or service bound wider than a declaration allows. `origins` may be NULL. */
enum err ports_declared(const json_t *document, const struct origins *, struct arena *,
                        const struct port_declaration **, size_t *count, char *error, size_t cap);

/* Gives each entry its declarations, and adds entries for declared listeners without a socket. */
void table_declare(struct port_table *, const struct port_declaration *, size_t count);
