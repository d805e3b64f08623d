/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A certificate as the storage has it: chain, key and what its issuer said, in certmagic's places:
 * certificates/<issuer>/<name>/<name>.crt, .key and .json.
 */
#pragma once

#include "certs/automation.h"

struct asset {
    struct slice chain_pem, key_pem;
    struct slice issuer_data; /* JSON; may be "null" */
    struct slice issuer_key;
};

struct slice asset_key(struct arena *, struct slice issuer_key, struct slice name,
                       const char *ending);

/* ERR_NOT_FOUND when one of the three is missing; ERR_INVALID when the third is no JSON. */
enum err asset_load(struct storage *, struct slice issuer_key, struct slice name, struct arena *,
                    struct asset *, struct storage_why *);

/* Of all issuers of a policy the one that was issued last. */
enum err asset_load_any(const struct automation_policy *, struct slice name, struct arena *,
                        struct asset *, struct storage_why *);

/* Whether an issuer of the policy has all three. */
bool asset_exists_any(const struct automation_policy *, struct slice name);

/* All three or none. */
enum err asset_store(struct storage *, struct slice name, const struct asset *, struct storage_why *);

/* The third only. */
enum err asset_store_data(struct storage *, struct slice name, const struct asset *,
                          struct storage_why *);

/* Whether the key is the certificate's. Nearly free for keys that carry their public half. */
bool asset_is_pair(const struct asset *);
