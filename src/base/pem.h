/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PEM texts (RFC 7468): blocks of base64 between "-----BEGIN X-----" and "-----END X-----". What
 * stands between blocks is skipped, as is one that is broken, as Go's encoding/pem does.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"

enum { PEM_MAX = 1 << 20 }; /* of text that is one certificate chain or one key; more is neither */

struct pem_block {
    struct slice type; /* "CERTIFICATE", "EC PRIVATE KEY" */
    struct slice text; /* with both lines, as it stands */
    struct slice body; /* the base64 between them, with its line breaks, without headers */
    bool encrypted;    /* its headers say so (RFC 1421): the bytes are of no use */
};

/* Takes the next block off the front; false when there is none. Its base64 is good. */
bool pem_next(struct slice *rest, struct pem_block *);

/* The decoded bytes: in the arena, or behind what the buffer holds; never ERR_INVALID for a block of
 * pem_next. The buffer grows once, and leaves none of its bytes behind in the heap: it may hold keys. */
enum err pem_decode(const struct pem_block *, struct arena *, struct slice *der);
enum err pem_decode_to(const struct pem_block *, struct buffer *);

/* A block as Go writes it, lines of 64 characters; the buffer grows once, likewise. */
enum err pem_put(struct buffer *, const char *type, struct slice der);
