/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signed requests to an authority of ours (RFC 8555 §6): taken apart, their signature checked; and
 * the nonces that keep them from coming twice. On the control thread.
 */
#pragma once

#include "base/arena.h"
#include "pki/jose_verify.h"

enum { CA_BODY_MAX = 256 << 10, CA_NONCES = 4096 };

struct ca_jws {
    struct slice algorithm, nonce, url, kid;
    struct jwk jwk;
    bool has_jwk;
    struct slice signed_text; /* header, point, payload: what the signature is over */
    struct slice payload;     /* decoded; empty: POST-as-GET */
    struct slice signature;
};

/* The parts, nothing checked but their form. ERR_INVALID with a sentence. */
enum err ca_jws_read(struct slice body, struct arena *, struct ca_jws *, const char **why);

/* A public key as JSON: the text whose digest is its thumbprint. */
enum err ca_jwk_text(const struct evp_pkey_st *, struct arena *, struct slice *);

/* The key of such a text. */
enum err ca_jwk_load(struct slice json, struct evp_pkey_st **);

struct slice ca_nonce_make(struct arena *);
bool ca_nonce_use(struct slice); /* once */
