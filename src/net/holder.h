/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds a TCP port: for the error that a person reads when it is taken.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* "nginx (pid 812)", or "a process of another user" when /proc does not tell, or "" when nobody
 * listens there. Reads /proc; may take some milliseconds. */
void port_holder(uint16_t port, char *out, size_t cap);
