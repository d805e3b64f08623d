/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites of a Caddyfile, and where they are served: a site's keys are spread over the addresses
 * that its keys and its `bind` mean, and addresses with the same sites become one server.
 */
#pragma once

#include "adapter/adapt.h"
#include "adapter/site_address.h"

/* A server block that is a site, with what its directives gave, by kind. */
struct site {
    struct server_block *block;
    struct site_address *addresses; /* of each key, normal */
    struct values routes, errors, binds, logs, invoked, tls, authorities;
};

/* A site with those of its keys that one address serves. */
struct placed_site {
    struct site *site;
    struct slice *keys; /* as written */
    struct site_address *addresses;
    size_t count, cap;
};

struct listen_address {
    struct slice address;
    struct slice *protocols; /* "": the default ones */
    size_t protocol_count;
};

/* A server to be. */
struct pairing {
    struct listen_address *listeners;
    size_t listener_count;
    struct placed_site *sites;
    size_t site_count;
};

MUST_USE enum err sites_place(struct adapt *, struct site *, size_t count, struct pairing **out,
                              size_t *pairing_count);

/* The names of hosts among the keys, each once. Without `logger`, none when a key has no host;
 * with it, uncommon ports are part of the names. */
size_t placed_hosts(struct adapt *, const struct placed_site *, bool logger, struct slice **out);
bool placed_catches_all(const struct placed_site *);

/* Whether a listener has another port than this one. */
bool listeners_use_other_port(struct adapt *, const struct pairing *, int64_t port);

int64_t http_port(const struct adapt *);
int64_t https_port(const struct adapt *);
bool auto_https_says(const struct adapt *, const char *word);

/* {"srv0": …}; NULL with a diag. */
MUST_USE enum err servers_build(struct adapt *, struct pairing *, size_t count, json_t **servers);

/* Sets what the `servers` options say; renames. */
MUST_USE enum err server_options_apply(struct adapt *, json_t **servers);
