/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redirects from HTTP to HTTPS that automatic HTTPS adds.
 */
#pragma once

#include "base/map.h"
#include "http/module.h"
#include "net/address.h"

enum { REDIRECT_ADDRESSES_MAX = 256 };

struct redirect_name;

struct redirects {
    struct arena *arena;
    uint16_t http_port, https_port;
    struct network_address addresses[REDIRECT_ADDRESSES_MAX]; /* that are redirected to */
    unsigned addresses_count;
    struct redirect_name *names; /* in the order in which they were recorded */
    struct redirect_name **end;
    struct map by_name;
};

void redirects_init(struct redirects *, struct arena *, uint16_t http_port, uint16_t https_port);
void redirects_deinit(struct redirects *);

/* A server answers for the name (empty: for any) at the address. Of several ports the HTTPS port
 * wins, else the first; ERR_LIMIT: too many addresses. */
enum err redirects_record(struct redirects *, struct slice name, const struct network_address *);

/* Adds the routes to the servers (an object, name → server, all of it the caller's own copy) that
 * listen on the HTTP port already, else a server of its own with `logs` (NULL: none). */
void redirects_apply(struct redirects *, json_t *servers, bool any_certificate, json_t *logs);
