/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When the set of bound sockets changes. The kernel tells when a socket is destroyed, never when one
 * is bound, so the truth is a short dump (sockets only, no owners) compared with the one before;
 * events only make it come sooner.
 */
#pragma once

#include "ports/sockets.h"

struct port_watch;

/* Takes the first look. `interval_ms`: between looks, at least 10. */
enum err port_watch_open(struct port_watch **, const struct socket_options *, unsigned interval_ms,
                         char *error, size_t cap);
void port_watch_close(struct port_watch *); /* NULL is allowed */

/* Waits until something changed since the look before (the first: since the open): OK, and then the
 * ledger is to be read again; at most `timeout_ms`: ERR_TIMEOUT. A signal: ERR_CANCELLED. */
enum err port_watch_wait(struct port_watch *, unsigned timeout_ms);

/* The same without waiting, for those who have a timer of their own: whether something changed since
 * the look before. A millisecond for a hundred sockets; namespaces are looked for every two seconds,
 * which takes ten for a thousand processes. */
bool port_watch_look(struct port_watch *);
