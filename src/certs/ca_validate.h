/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a client of an authority of ours holds a name: the three validations of RFC 8555 §8 and
 * RFC 8737. On a fiber of the control thread; may wait.
 */
#pragma once

#include "certs/ca_records.h"

struct ca_proof {
    struct slice kind, name; /* "dns" or "ip" */
    struct slice token, key_authorization;
    const struct slice *resolvers; /* for DNS-01; none: the system's */
    size_t resolvers_count;
    const char *error_type;        /* without the namespace: "connection" */
    char why[512];
};

/* OK, or ERR_FAILED with type and sentence. */
enum err ca_validate(struct slice challenge_type, struct ca_proof *, struct arena *);
