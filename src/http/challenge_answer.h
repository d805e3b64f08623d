/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests by which an authority looks whether a name is ours (HTTP-01, RFC 8555 §8.3). They are
 * answered before any route, by every server; those for challenges of others go on.
 */
#pragma once

#include "http/exchange.h"

#define CHALLENGE_PREFIX "/.well-known/acme-challenge/"
#define VALIDATION_PREFIX "/.well-known/pki-validation/" /* files of ZeroSSL's API */

/* A challenge that another instance with the same storage has begun; app/ fills it in. On the
 * exchange's fiber; may wait. ERR_NOT_FOUND: nobody has. */
extern enum err (*challenge_stored_hook)(struct exchange *, struct slice host, struct slice token,
                                         struct slice *key_authorization);

/* True when the request was one of ours; *e is what came of the answer then. */
bool challenge_answer(struct exchange *, enum err *e);

/* Cheap: for every request. */
static inline bool challenge_asked(const struct exchange *x)
{
    return slice_starts(x->req.uri.path, SLICE("/.well-known/")) &&
           (slice_starts(x->req.uri.path, SLICE(CHALLENGE_PREFIX)) ||
            slice_starts(x->req.uri.path, SLICE(VALIDATION_PREFIX)));
}
