/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates as an authority makes them: the forms are those of Caddy's.
 */
#pragma once

#include "pki/certificate.h"

struct minting {
    const struct x509_st *issuer;   /* NULL: itself */
    struct evp_pkey_st *issuer_key; /* NULL: `key` */
    int64_t from_s, to_s;
};

/* A new key and its authority's certificate, with room for `depth` authorities below. */
enum err mint_authority(const struct minting *, struct slice common_name, int depth,
                        struct x509_st **, struct evp_pkey_st **);

/* For the key of a request and its names, or the names that are given. ERR_INVALID with a sentence:
 * the request is malformed, not signed by its key, or names nobody. */
enum err mint_leaf(const struct minting *, struct slice csr_der, const struct slice *names,
                   size_t count, struct x509_st **, char *why, size_t cap);
