/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "did you mean": the known word that is nearest to one that is not.
 */
#pragma once

#include "base/slice.h"

struct suggestion {
    const char *word; /* NULL: none is near */
    size_t distance;
};

/* Keeps the nearer one of what is there and `known`. Start with {0}. */
void suggest(struct suggestion *, struct slice unknown, const char *known);
