/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the certificate of a client says of it, for placeholders and logs. All of it comes from the
 * client, also where nobody has verified it.
 */
#pragma once

#include "base/arena.h"

enum peer_name { PEER_DNS, PEER_MAIL, PEER_IP, PEER_URI, PEER_NAME_KINDS };

struct peer_names {
    struct slice *all;
    size_t count;
};

struct peer_certificate {
    struct slice der;
    struct slice subject, issuer; /* as RFC 2253 text */
    struct slice common_name;     /* of the subject */
    struct slice serial;          /* decimal */
    struct slice public_key;      /* the bytes of its bit string: as Go marshals keys */
    struct peer_names names[PEER_NAME_KINDS];
    uint8_t sha256[32];           /* of the DER form */
};

/* In the arena; ERR_INVALID: it is none. */
enum err peer_certificate_read(struct slice der, struct arena *, struct peer_certificate *);
