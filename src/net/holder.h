/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds a TCP port: for the error that a person reads when it is taken.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/slice.h"

/* "nginx (pid 812)", or "a process of another user" when /proc does not tell, or "" when nobody
 * listens there. `host`: which address of it was wanted; empty: all. Reads /proc; may take some
 * milliseconds. */
void port_holder(struct slice host, uint16_t port, char *out, size_t cap);

/* Whoever knows more (the unit, the container) answers instead, unless it says ""; NULL: nobody. */
extern void (*port_holder_hook)(struct slice host, uint16_t port, char *out, size_t cap);

/* Whether a socket that is none of `own` (their inodes) listens on the port. True also when /proc
 * does not tell. */
bool port_foreign(uint16_t port, const ino_t *own, size_t own_count);
