/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private keys: made, read and written in the forms that Caddy reads and writes. OpenSSL's types are
 * named by their tags only, so that no other room includes its headers for them.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"

struct evp_pkey_st; /* EVP_PKEY; freed by key_free */
struct evp_md_st;

enum key_type { KEY_P256, KEY_P384, KEY_RSA2048, KEY_RSA4096, KEY_RSA8192, KEY_ED25519 };

/* "p256", "p384", "rsa2048", "rsa4096", "rsa8192", "ed25519"; "" is P-256. */
enum err key_type_parse(struct slice, enum key_type *);

/* Of RSA may wait when made on a fiber: it computes for long, and does so elsewhere. */
enum err key_generate(enum key_type, struct evp_pkey_st **) MUST_USE;
void key_free(struct evp_pkey_st *);

/* The digest that goes with it in signatures, as Go chooses it; NULL: Ed25519 has none. */
const struct evp_md_st *key_digest(const struct evp_pkey_st *);

/* As certmagic writes them: "EC PRIVATE KEY" (SEC 1), "RSA PRIVATE KEY" (PKCS#1), "ED25519 PRIVATE
 * KEY" (PKCS#8 inside). `out` should be wiped by the caller, key_wipe. */
enum err key_put_pem(struct buffer *out, const struct evp_pkey_st *);

/* The first private key of a PEM text, PKCS#1, SEC 1 or PKCS#8; RSA of 1,024 to 16,384 bits, NIST's
 * curves, Ed25519. ERR_INVALID, with a sentence. */
enum err key_from_pem(struct slice, struct evp_pkey_st **, char *why, size_t cap);

/* Why a key, be it a public one, is none that Caddy would use; NULL: it is one. */
const char *key_objection(const struct evp_pkey_st *);

/* Overwrites and frees. */
void key_wipe(struct buffer *);
