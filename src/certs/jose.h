/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signed requests of ACME (RFC 8555 §6.2): JWS in its flattened form, thumbprints of keys, what a
 * challenge is answered with, and the binding to an account elsewhere.
 */
#pragma once

#include "base/arena.h"
#include "pki/jose_key.h"

struct jws {
    const struct evp_pkey_st *key;
    struct slice kid;     /* the account's URL; empty: the public key itself is sent */
    struct slice nonce;   /* empty: none, for a JWS inside another */
    struct slice url;
    struct slice payload; /* JSON; empty: POST-as-GET (RFC 8555 §6.3) */
};

/* {"protected":"…","payload":"…","signature":"…"}. ERR_UNSUPPORTED: a key of another kind. */
enum err jws_put(struct buffer *, const struct jws *);

/* External account binding (RFC 8555 §7.3.4): the public key, signed with the authority's secret. */
enum err jws_put_binding(struct buffer *, const struct evp_pkey_st *key, struct slice mac_key,
                         struct slice kid, struct slice url);

/* RFC 7638, base64url. */
enum err jwk_thumbprint(const struct evp_pkey_st *, struct arena *, struct slice *);

/* RFC 8555 §8.1: token and thumbprint. */
enum err key_authorization(const struct evp_pkey_st *, struct slice token, struct arena *,
                           struct slice *);

/* The TXT record of DNS-01 (RFC 8555 §8.4): base64url of the digest. */
struct slice dns01_value(struct slice key_authorization, struct arena *);
