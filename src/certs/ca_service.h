/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An ACME authority of our own (RFC 8555), without its HTTP: a request in, an answer out. On a fiber
 * of the control thread; may wait. What must last is in the storage.
 */
#pragma once

#include "certs/ca_policy.h"
#include "pki/storage.h"

enum ca_challenge_bit { CA_HTTP_01 = 1, CA_DNS_01 = 2, CA_TLS_ALPN_01 = 4 };

struct ca_settings {
    struct slice id; /* of the authority in the pki app */
    int64_t lifetime_ns;
    bool sign_with_root;
    unsigned challenges; /* bits of enum ca_challenge_bit */
    struct ca_policy policy;
    struct slice *resolvers;
    size_t resolvers_count;
    struct storage *storage;
};

struct ca_request {
    struct slice method;
    struct slice base; /* "https://ca.example/acme/local" */
    struct slice path; /* behind it: "/new-order" */
    struct slice content_type;
    struct slice body;
};

struct ca_answer {
    int status;
    struct slice body, location, link, nonce; /* in the arena; empty: none */
    const char *media;                        /* NULL: no body */
    bool retry;                               /* come again in a second */
};

void ca_serve(const struct ca_settings *, const struct ca_request *, struct arena *,
              struct ca_answer *);
