/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates of an order: download, alternates, and which of them is preferred.
 */
#pragma once

#include "certs/acme_order.h"

/* All chains; each is checked against the request. */
enum err acme_download(struct acme *, const struct acme_signer *, struct slice url,
                       struct slice csr_der, struct acme_chains *);

struct chain_preference {
    int smallest; /* 1: fewest bytes first; -1: most; 0: as they come */
    struct slice *root_common_names, *any_common_names;
    size_t root_common_names_count, any_common_names_count;
};

/* The index of the preferred one. */
size_t acme_prefer(const struct acme_chains *, const struct chain_preference *, struct arena *);
