/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /reverse_proxy/upstreams of the admin API.
 */
#pragma once

#include "http/exchange.h"

/* An array of {"address", "num_requests", "fails"}, by address, with a line end behind it; in the
 * arena. */
struct slice admin_upstreams(struct arena *);
