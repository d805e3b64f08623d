/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a name may have a certificate from. The rules are those of Caddy's certmagic.
 */
#pragma once

#include "base/slice.h"

bool subject_qualifies(struct slice);        /* for any certificate */
bool subject_qualifies_public(struct slice); /* for one of a public authority, by default */
bool subject_is_ip(struct slice);
bool subject_is_internal(struct slice);
bool subject_is_tailscale(struct slice);

/* Whether a name is meant by a pattern: itself, or one with "*" for any of its first labels, all
 * labels before that one being "*", too. Case is ignored. */
bool subject_matches(struct slice name, struct slice pattern);

/* The name with its first `stars` labels replaced by "*"; false when it has not so many, or is longer
 * than a name may be. */
enum { SUBJECT_MAX = 255 };
bool subject_wildcard(struct slice name, size_t stars, char out[SUBJECT_MAX + 1], struct slice *);
