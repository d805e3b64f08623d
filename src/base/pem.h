/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PEM texts (RFC 7468): blocks of base64 between "-----BEGIN X-----" and "-----END X-----". What
 * stands between blocks is skipped, as is one that is broken, as Go's encoding/pem does.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"

struct pem_block {
    struct slice type; /* "CERTIFICATE", "EC PRIVATE KEY" */
    struct slice text; /* with both lines, as it stands */
    struct slice body; /* the base64 between them, with its line breaks; of an encrypted key, headers */
};

/* Takes the next block off the front; false when there is none. Nothing is decoded. */
bool pem_next(struct slice *rest, struct pem_block *);

/* The decoded bytes. ERR_INVALID: no base64. */
enum err pem_decode(const struct pem_block *, struct arena *, struct slice *der);

/* A block as Go writes it, lines of 64 characters. */
enum err pem_put(struct buffer *, const char *type, struct slice der);
