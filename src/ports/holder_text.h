/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has a TCP port, in the words of an error that a person reads: for net/holder.h's hook.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

/* "nginx (pid 812, user www-data, unit nginx.service, container web)", or "a process of the user
 * postgres"; "" when nobody is found. Of several on one port the one whose address is in the way of
 * `host` (empty: all are). Blocking, for some tens of milliseconds. */
void port_holder_text(struct slice host, uint16_t port, char *out, size_t cap);
