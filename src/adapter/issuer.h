/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Issuers of certificates: ACME, the internal authority, ZeroSSL's API. As JSON with "module"; not
 * sorted yet, since global options still fill in what is missing.
 */
#pragma once

#include "adapter/adapt.h"

/* The issuer whose name is at the cursor. */
MUST_USE enum err issuer_read(struct adapt *, struct dispenser *, json_t **issuer);

/* One of the options of the DNS challenge that the `tls` directive and issuers share: resolvers,
 * propagation_delay, propagation_timeout, dns_ttl. `dns` is made where it is missing. */
MUST_USE enum err dns_option_read(struct adapt *, struct dispenser *, json_t *owner,
                                  const char *path, bool *known);

MUST_USE enum err preferred_chains_read(struct adapt *, struct dispenser *, json_t **chains);

json_t *issuer_new(struct adapt *, const char *module);
bool issuer_is_acme(const json_t *);

/* What a site says of ACME on top of the global issuers, or of the default ones. */
json_t *issuers_implied(struct adapt *, json_t *own);

/* The default issuers for this e-mail address; empty: none known. */
json_t *issuers_default(struct adapt *, struct slice email);

/* Fills in what the global options say. */
MUST_USE enum err issuer_defaults(struct adapt *, json_t *issuer);

/* Adds a text to the list at `key` unless it is there. */
void add_once(struct adapt *, json_t *object, const char *key, json_t *text);
