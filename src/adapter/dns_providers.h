/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `dns NAME …` and `acme_dns NAME …`: the syntax of each provider of zones.
 */
#pragma once

#include "adapter/adapt.h"

/* The provider whose name is at the cursor, with its inline key. */
MUST_USE enum err dns_provider_read(struct adapt *, struct dispenser *, json_t **provider);
