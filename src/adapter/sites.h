/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From site blocks to servers: which addresses each block is served at, which blocks share the same
 * addresses, and what each such group makes of its routes.
 */
#pragma once

#include "adapter/adapt.h"
#include "adapter/site_address.h"

/* A block of the file with what its directives gave. */
struct site {
    const struct server_block *block;
    struct values pile;    /* routes, error routes, binds, logs */
    struct values invoked; /* named routes that it uses */
};

struct site_key {
    struct token token;
    struct site_address address; /* in its normal form */
};

/* Those keys of a site that are served at one address. */
struct mapped_site {
    const struct site *site;
    struct site_key *keys;
    size_t key_count;
};

struct listen_at {
    struct slice address;
    struct slice *protocols; /* sorted; "" stands for the default ones */
    size_t protocol_count;
};

/* Addresses that serve the same sites: one server. */
struct pairing {
    struct listen_at *listen;
    size_t listen_count;
    struct mapped_site *sites;
    size_t site_count;
};

enum err sites_map(struct adapt *, const struct site *, size_t count, struct pairing **,
                   size_t *pairing_count);

/* The object of "servers", and the metrics that servers asked for (into a->options.metrics). */
enum err servers_build(struct adapt *, struct pairing *, size_t count, struct counter *,
                       json_t **servers);
