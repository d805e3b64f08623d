/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The global options: a Caddyfile's first block without an address.
 */
#pragma once

#include "adapter/adapt.h"

MUST_USE enum err options_read(struct adapt *, const struct server_block *);

/* The option's only word; a duration. The cursor is before the option's name. */
MUST_USE enum err option_word(struct dispenser *, struct slice *);
MUST_USE enum err option_duration(struct adapt *, struct dispenser *, int64_t *ns);

/* The `servers` option at the cursor's block. */
MUST_USE enum err server_options_read(struct adapt *, struct dispenser *, struct server_options *);

/* The option `ports`, to the app. */
MUST_USE enum err ports_option_read(struct adapt *, struct dispenser *);

/* The storage whose name is at the cursor, with its inline key. */
MUST_USE enum err storage_read(struct adapt *, struct dispenser *, json_t **storage);
