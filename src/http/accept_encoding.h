/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accept-Encoding (RFC 9110 §12.5.3), read as Caddy reads it.
 */
#pragma once

#include "base/slice.h"

enum { ACCEPTED_MAX = 24 }; /* codings that are looked at; names longer than 16 bytes are not */

struct accepted {
    char name[16]; /* lower case; `len` of them */
    uint8_t len;
    uint32_t q;    /* in millionths */
    int rank;      /* of the server: the higher the better; -1 when it has none */
};

/* The codings that the field accepts, best first: by q, then by the order of `prefer`, then by their
 * own order. Returns how many. */
size_t accepted_encodings(struct slice field, const struct slice *prefer, size_t prefer_count,
                          struct accepted out[ACCEPTED_MAX]);
