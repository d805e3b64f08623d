/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools of certificate authorities: "file /ca.pem", "inline { trust_der … }", "system" and so on.
 */
#pragma once

#include "adapter/adapt.h"

/* The pool whose name is at the cursor, with its inline key. */
MUST_USE enum err ca_pool_read(struct adapt *, struct dispenser *, struct slice name, json_t **pool);
