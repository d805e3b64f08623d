/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_auth of the `tls` directive: which certificates clients must show.
 */
#pragma once

#include "adapter/adapt.h"

/* The block at the cursor, the name "client_auth". */
MUST_USE enum err client_auth_read(struct adapt *, struct dispenser *, json_t **out);
