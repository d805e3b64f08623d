/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /services/ of the admin API. On the fiber: commands wait until they are done.
 */
#pragma once

#include "http/exchange.h"

enum err admin_serve_services(struct exchange *);
