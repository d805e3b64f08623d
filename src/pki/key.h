/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private keys: made, read and written in the forms that Caddy reads and writes. OpenSSL's type is
 * named by its tag only, so that no other room includes its headers for it.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"

struct evp_pkey_st; /* EVP_PKEY; freed by key_free */

enum key_type { KEY_P256, KEY_P384, KEY_RSA2048, KEY_RSA4096, KEY_ED25519 };

/* "p256", "p384", "rsa2048", "rsa4096", "ed25519"; "" is P-256. */
enum err key_type_parse(struct slice, enum key_type *);

enum err key_generate(enum key_type, struct evp_pkey_st **) MUST_USE;
void key_free(struct evp_pkey_st *);

/* As Go's crypto/x509 writes them: "EC PRIVATE KEY", "RSA PRIVATE KEY", "PRIVATE KEY" of Ed25519.
 * `out` should be wiped by the caller. */
enum err key_put_pem(struct buffer *out, const struct evp_pkey_st *);

/* The first private key of a PEM text, PKCS#1, SEC 1 or PKCS#8; ERR_INVALID, with a sentence. */
enum err key_from_pem(struct slice, struct evp_pkey_st **, char *why, size_t cap);
