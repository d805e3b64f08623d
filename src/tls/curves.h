/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups of the key exchange, by Caddy's names: "x25519mlkem768", "x25519", "secp256r1",
 * "secp384r1", "secp521r1".
 */
#pragma once

#include "base/slice.h"

struct ssl_ctx_st; /* OpenSSL's SSL_CTX */

/* In this order of preference; none: the library's defaults. What the library does not have is left
 * out, as long as others are named. ERR_INVALID with a sentence: not a name; ERR_UNSUPPORTED: the
 * library has none of them. */
enum err curves_set(struct ssl_ctx_st *, const struct slice *names, size_t count, char *why,
                    size_t cap);
