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

enum {
    POLICY_PORTS_MAX = 65536,  /* ports and ranges that the app may name */
    POLICY_FROM_MAX = 65536,   /* prefixes of one declaration */
};

struct ports_policy {
    const struct port_declaration *items; /* of the app only */
    size_t count;
    enum port_reach others; /* REACH_UNKNOWN: nothing was said */
    bool nftables;          /* enforce */
};

/* The app alone; `app` NULL: empty. An unknown member is an error, as is a port that is declared
 * twice. A sentence in `error`. */
enum err ports_policy_read(const json_t *app, const struct origins *, struct arena *,
                           struct ports_policy *, char *error, size_t cap);

/* A growing list of declarations. */
struct declarations {
    struct arena *arena;
    struct port_declaration *items;
    size_t count, cap;
};

struct port_declaration *declarations_add(struct declarations *);

/* Everything of the document. Conflicts are errors with both places: two services with one port, a
 * site or service bound wider than a declaration allows. `origins` may be NULL. What is declared is
 * given back all the same when the only error is a conflict (ERR_EXISTS). */
enum err ports_declared(const json_t *document, const struct origins *, struct arena *,
                        const struct port_declaration **, size_t *count, char *error, size_t cap);

/* ERR_EXISTS and a sentence for the first two that exclude each other. */
enum err declarations_conflict(const struct port_declaration *, size_t count, char *error,
                               size_t cap);

/* "the site example.com (Caddyfile:3)" */
struct slice declaration_text(const struct port_declaration *, struct arena *);

/* Whether a host means this device only: "localhost", 127.0.0.0/8, ::1. */
bool host_is_loopback(struct slice);

bool address_is_any(const struct ip_address *);
bool address_is_loopback(const struct ip_address *);

/* Gives each entry IANA's name and class. */
void table_name(struct port_table *);

/* What runs: [{"name", "replicas": [{"pid", "port"}]}]. Tells owners that are of a service; gives
 * services whose ports are in no document those that they were given. */
void table_services(struct port_table *, const json_t *services);

/* Why no replica is ready, of an object of GET /services/ (NULL: not known): "gave up: exited with
 * status 3". Empty for one that answers, is on its way there, or waits for its first request. */
struct slice service_trouble(const json_t *service, struct arena *);
void declarations_settle(const json_t *services, struct arena *, const struct port_declaration **,
                         size_t *count);

/* Gives each entry its declarations, and adds entries for declared listeners without a socket; the
 * table is sorted again. */
void table_declare(struct port_table *, const struct port_declaration *, size_t count);
