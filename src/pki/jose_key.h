/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What JOSE asks of a key (RFC 7515, 7517, 7518): its public half as JSON, and raw signatures. The
 * texts and their order are certs/jose.c's.
 */
#pragma once

#include "pki/key.h"

enum { SHA256_LEN = 32, JOSE_SIGNATURE_MAX = 1024 };

/* "ES256", "ES384", "ES512", "RS256", "EdDSA"; NULL for a key that no authority takes. */
const char *jose_algorithm(const struct evp_pkey_st *);

/* The public key as a JWK, its members in the order of a thumbprint (RFC 7638 §3.2). */
enum err jwk_put(struct buffer *, const struct evp_pkey_st *);

/* The signature as JWS carries it: R and S of ECDSA side by side. ERR_FAILED when the library
 * refuses. */
enum err jose_sign(const struct evp_pkey_st *, struct slice data, struct buffer *signature);

void sha256(struct slice, uint8_t out[SHA256_LEN]);
void hmac_sha256(struct slice key, struct slice data, uint8_t out[SHA256_LEN]);

/* Whether both have the same public half. */
bool key_same(const struct evp_pkey_st *, const struct evp_pkey_st *);
