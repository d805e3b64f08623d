/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The global options: a Caddyfile's first block without an address.
 */
#pragma once

#include "adapter/adapt.h"

MUST_USE enum err options_read(struct adapt *, const struct server_block *);

/* The `servers` option at the cursor's block. */
MUST_USE enum err server_options_read(struct adapt *, struct dispenser *, struct server_options *);
