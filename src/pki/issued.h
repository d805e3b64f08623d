/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an authority gave, against what was asked of it. The authority may be anybody: everything
 * here is checked before it is kept or served.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"

enum { ISSUED_CHAIN_MAX = 16 };

/* A PEM chain of certificates and nothing else, whose first one has the key and all names of the
 * request (PKCS#10, DER) and is not over. ERR_INVALID with a sentence. */
enum err issued_check(struct slice chain_pem, struct slice csr_der, char *why, size_t cap);

/* The common name of each certificate's issuer, the leaf's first; empty where there is none. */
enum err issued_issuers(struct slice chain_pem, struct arena *, struct slice **names, size_t *count);

/* The first certificate, DER. */
enum err issued_leaf(struct slice chain_pem, struct buffer *der);
