/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has begun and not yet ended: the key and the request before an authority is asked, its answer
 * before it is in its place. After a crash at any point the same request is made again, not a new
 * one, and a certificate that came is not asked for twice. Below pending/<name>/ in the storage,
 * where certmagic never looks; written and read by the holder of the name's lock.
 */
#pragma once

#include "certs/asset.h"

struct pending {
    struct slice kind;             /* of key and request, as the policy wanted them */
    struct slice key_pem, csr_der; /* empty: nothing has begun */
    struct slice noted_for, noted; /* an issuer's key, and where it may have the certificate */
    struct asset issued;           /* its chain empty: no answer yet */
};

void pending_load(struct storage *, struct slice name, struct arena *, struct pending *);
enum err pending_begin(struct storage *, struct slice name, const struct pending *,
                       struct storage_why *);
enum err pending_issued(struct storage *, struct slice name, const struct asset *,
                        struct storage_why *);
/* Not a failure if it cannot be kept: then it is asked for once more. */
void pending_note(struct storage *, struct slice name, struct slice issuer_key, struct slice where);
void pending_end(struct storage *, struct slice name);
