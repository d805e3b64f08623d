/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways to show an authority that a name is ours: presented before it looks, taken away afterwards.
 * One type of challenge has one solver; which of them an issuer has, its configuration says.
 */
#pragma once

#include "certs/acme_objects.h"
#include "certs/challenge_listener.h"
#include "certs/dns_solver.h"
#include "pki/storage.h"

struct solver_options {
    bool http, tls_alpn;
    const struct dns_solver_options *dns; /* NULL: none */
    bool distributed;         /* what is presented is also written to the storage */
    struct storage *storage;
    struct slice issuer_key;  /* of the storage's folders */
    struct slice bind_host;   /* of a temporary listener; empty: all addresses */
    uint16_t http_port, tls_alpn_port;
};

struct solving {
    const struct solver_options *options;
    struct arena *arena;
    struct acme_identifier identifier; /* without "*." */
    const struct acme_challenge *challenge;
    struct slice key_authorization;
    bool shared;              /* written to the storage */
    struct challenge_user user; /* of a listener's port */
    struct dns_presented dns; /* what DNS-01 has to take away */
    char why[512];
};

struct solver {
    const char *type; /* "http-01" */
    bool (*enabled)(const struct solver_options *);
    enum err (*present)(struct solving *);
    enum err (*wait)(struct solving *); /* NULL: it is there at once */
    void (*cleanup)(struct solving *);  /* also after a failed present */
};

/* Ends with NULL. */
extern const struct solver *const all_solvers[];
extern const struct solver solver_dns01; /* certs/dns_solver.c */

const struct solver *solver_find(struct slice type);

/* The name under which a challenge is kept: the identifier, or an address' name in reverse for
 * TLS-ALPN (RFC 8738 §6), which is what the authority sends as SNI. */
struct slice solving_name(const struct acme_identifier *, bool tls_alpn, struct arena *);

/* What another instance that shares the storage has presented for a name, if it has that token: its
 * key authorization. On any thread's fiber; may wait. ERR_NOT_FOUND; ERR_INVALID when what is there
 * is not to be read. */
enum err challenge_load(struct storage *, struct slice issuer_key, struct slice name,
                        struct slice token, struct arena *, struct slice *key_authorization);
