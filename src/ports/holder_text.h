/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has a TCP port, in the words of an error that a person reads: for net/holder.h's hook.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* "nginx (pid 812, user www-data, unit nginx.service, container web)", or "a process of the user
 * postgres"; "" when nobody is found. Blocking, for some tens of milliseconds. */
void port_holder_text(uint16_t port, char *out, size_t cap);
