/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other side of pki/jose_key.h: keys and signatures of somebody who asks an authority of ours.
 * Whatever is given may be anything.
 */
#pragma once

#include "pki/jose_key.h"

enum { JWK_RSA_MIN_BITS = 2048, JWK_RSA_MAX_BITS = 8192 };

struct jwk { /* members as they stand: base64url texts; empty: not there */
    struct slice kty, crv, x, y, n, e;
};

/* ERR_INVALID: not a public key; ERR_UNSUPPORTED: of a kind or size that is not taken. */
enum err jwk_read(const struct jwk *, struct evp_pkey_st **);

/* Whether the signature over the data is the key's, by that algorithm, which must be the key's. */
bool jose_verify(const struct evp_pkey_st *, struct slice algorithm, struct slice data,
                 struct slice signature);

/* A request for a certificate (PKCS#10, DER): its signature is checked, its names are read: DNS names
 * in lower case, addresses as text, and the subject's common name where it is not among them.
 * ERR_INVALID with a sentence. */
enum err csr_read(struct slice der, struct arena *, struct slice **names, size_t *count, char *why,
                  size_t cap);

/* Whether a certificate (DER) answers a challenge of TLS-ALPN-01 (RFC 8737 §3). */
enum err alpn_certificate_check(struct slice der, struct slice name, struct slice key_authorization,
                                char *why, size_t cap);

/* Whether a certificate (DER) has that public key. */
bool certificate_key_is(struct slice der, const struct evp_pkey_st *);
