/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place where an authority finds the answer to a challenge when no server of the configuration
 * listens on the port: opened for the first challenge, closed after the last.
 */
#pragma once

#include "base/slice.h"

enum challenge_kind { CHALLENGE_HTTP, CHALLENGE_TLS_ALPN };

/* Counted. A port that somebody, also this program, has already is not opened: whoever listens there
 * is taken to answer. ERR_DENIED, ERR_IO with a sentence. On a fiber; may wait. */
enum err challenge_listener_open(enum challenge_kind, struct slice host, uint16_t port, char *why,
                                 size_t cap);
void challenge_listener_close(enum challenge_kind, struct slice host, uint16_t port);

/* Filled in by app/. The first binds a port that this process may not: ERR_EXISTS when it is taken.
 * The second makes a handshake with whatever credentials_challenge has, on a fiber. NULL: neither. */
extern enum err (*challenge_bind_hook)(struct slice host, uint16_t port, int *fd, char *why,
                                       size_t cap);
extern void (*challenge_tls_hook)(int fd, uint64_t deadline_ns);
