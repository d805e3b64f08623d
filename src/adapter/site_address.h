/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of sites, as they stand before a block: "https://example.com:8443", ":80", "localhost".
 */
#pragma once

#include "net/address.h"

struct site_address {
    struct slice original, scheme, host, port, path; /* parts that were not written are empty */
};

/* ERR_INVALID with a sentence for a bad port. */
enum err site_address_parse(struct slice, struct site_address *, struct arena *,
                            struct address_error *);

/* Scheme and host in lower case but for placeholders; IPv6 in its short form. */
void site_address_normalize(struct site_address *, struct arena *);

/* As a URL; empty without host and port. */
struct slice site_address_text(const struct site_address *, struct arena *);

/* How specific a host or path pattern is: its length without wildcards and placeholders. */
int64_t pattern_specificity(struct slice);
