/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many requests the admin API has answered, as Caddy counts them.
 */
#pragma once

#include "base/buffer.h"
#include "http/exchange.h"

/* `path`: the pattern that took the request, "" when none did. On the control thread. */
void admin_count(const struct exchange *, const char *path, const char *handler);

/* Prometheus text. */
enum err admin_count_put(struct buffer *);
