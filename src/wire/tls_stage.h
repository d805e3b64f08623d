/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a connection is until its TLS handshake is over: the stage between accept (or the PROXY
 * header) and HTTP, where a site's server has connection policies.
 */
#pragma once

#include "wire/h1_conn.h"

struct h1_addresses;

enum {
    HANDSHAKES_MAX = 16384, /* in progress, per worker: more are closed */
    ASKS_MAX = 1024,        /* of them waiting for a certificate: more fail */
};

/* Takes over the socket and `given`; hands them to HTTP, or closes. `hurry_ns` as below, 0: none. */
void tls_stage_open(struct h1_worker *, struct h1_site *, int fd, struct h1_addresses *given,
                    uint64_t hurry_ns);

/* Those of one site, or with NULL all, have at most so long from now on: a drain. */
void tls_stage_hurry(struct h1_worker *, const struct h1_site *, uint64_t ns);

/* Closes all that stand on this stage. */
void tls_stage_abort(struct h1_worker *);
