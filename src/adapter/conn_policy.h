/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TLS connection policies of one server.
 */
#pragma once

#include "adapter/sites.h"

struct conn_policies {
    json_t *list;
    json_t *plain; /* lists of host names of sites that set nothing */
    bool catches_all;
};

void conn_policies_init(struct adapt *, struct conn_policies *);

/* The site's policies. `hosts` has room for one more name: of the policies' defaults. Returns how
 * many there are then. */
size_t conn_policies_of_site(struct adapt *, struct conn_policies *, const struct placed_site *,
                             struct slice *hosts, size_t count);

/* Behind the last site. */
MUST_USE enum err conn_policies_finish(struct adapt *, struct conn_policies *, bool qualifies,
                                       bool auto_https_adds_one);

/* The last step of it (conn_merge.c): those that belong together become one. */
MUST_USE enum err conn_policies_merge(struct adapt *, struct conn_policies *);

extern const char *const conn_policy_keys[]; /* in the document's order */

/* Whether a certificate for `wildcard` ("*.example.com") is one for `name`. */
bool wildcard_matches(struct slice name, struct slice wildcard, struct arena *);
