/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server that starts does about the trust in its root.
 */
#pragma once

#include "pki/authority.h"

struct root_trust {
    struct arena arena;
    struct slice pem, path;
    bool known, allowed;
    enum err result;
    char why[512]; /* not allowed, or what was told last */
};

/* On a fiber; may wait. Says what it does, or why it does not, in one line of the log. The memory is
 * the caller's, given back by root_trust_deinit. */
void root_trust_begin(struct root_trust *, const struct authority *, bool wanted);
void root_trust_deinit(struct root_trust *);
