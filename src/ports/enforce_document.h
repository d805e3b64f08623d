/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a document wants of the firewall.
 */
#pragma once

#include "ports/declared.h"
#include "ports/enforce.h"

struct enforce_wish {
    bool declared; /* it has the app "ports" at all */
    bool nftables; /* "enforce": "nftables" */
    size_t count;  /* declarations of the app */
    struct enforce_plan plan;
};

enum err enforce_document(const json_t *document, const struct origins *, struct arena *,
                          struct enforce_wish *, char *error, size_t cap);
