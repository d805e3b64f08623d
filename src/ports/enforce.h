/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping ports shut: what the app "ports" declares, as one nftables table of our own, `inet
 * portico`, replaced in one transaction. Making the script is pure; `nft -f -` is run by the
 * privileged side only (the keeper's helper process, or `portico ports apply` as root).
 */
#pragma once

#include "base/buffer.h"
#include "base/err.h"
#include "ports/declared.h"

/* The whole table as text for nft. `trial_s`: seconds after which the kernel itself goes back to
 * what was in force (0: at once and for good). */
enum err enforce_script(const struct port_declaration *, size_t count, enum port_reach others,
                        unsigned trial_s, struct buffer *);

/* Established connections into this machine that the rules would cut (SSH above all): a sentence
 * each. */
enum err enforce_would_cut(const struct port_declaration *, size_t count, enum port_reach others,
                           struct arena *, struct slice **sentences, size_t *n);

/* Runs nft; its errors are told by `error`. Blocking. */
enum err enforce_apply(struct slice script, char *error, size_t cap);
enum err enforce_remove(char *error, size_t cap);
