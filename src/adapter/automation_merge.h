/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Automation policies while they are made of sites (tls_app.c), and how they become few.
 */
#pragma once

#include "adapter/adapt.h"

enum names { NAMES_NONE, NAMES_PUBLIC, NAMES_INTERNAL, NAMES_MIXED };

struct policy {
    struct slice *subjects;
    size_t count, cap; /* cap: of an array that others' are joined to; else 0 */
    enum names names;  /* what they are, while policies are consolidated */
    json_t *issuers;  /* global defaults are filled into these */
    json_t *finished; /* as the document has them; NULL: none */
    json_t *managers;
    struct slice key_type;
    double ratio;
    bool on_demand, reuse_private_keys, stapling_off;
};

/* Equal ones become one, those that say nothing go. The first policy that has a name decides, so their
 * order counts, and is put right first. */
void policies_merge(struct adapt *, struct policy **policies, size_t *count);

bool policy_same_issuers(const json_t *, const json_t *);

/* Whether a public authority may sign for the name. */
bool policy_is_public(const struct policy *, struct slice name);
