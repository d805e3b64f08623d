/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keyed digests (RFC 2104) for protocols that let one choose the hash.
 */
#pragma once

#include "base/slice.h"

enum { HMAC_MAX = 64 };

/* "md5", "sha1", "sha224", "sha256", "sha384", "sha512". The digest's length, or 0 for a hash that
 * is not known or that the library's policy refuses. */
size_t hmac_compute(const char *hash, struct slice key, struct slice data, uint8_t out[HMAC_MAX]);

/* In a time that does not depend on where they differ. */
bool hmac_equal(const uint8_t *a, const uint8_t *b, size_t len);
