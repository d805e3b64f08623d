/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting to what the resolver found, by Happy Eyeballs (RFC 8305), or to a Unix socket.
 */
#pragma once

#include "net/resolver.h"

enum { DIAL_FALLBACK_MS = 300, DIAL_ONE_BY_ONE = UINT32_MAX };

struct dial_options {
    uint64_t deadline_ns;  /* of all of it; 0: none */
    uint32_t fallback_ms;  /* how long an attempt is alone before the next starts beside it; 0:
                            * DIAL_FALLBACK_MS; DIAL_ONE_BY_ONE: until it has failed */
    const struct sockaddr *local; /* bound before; only its family is tried. NULL: none */
    socklen_t local_len;
    bool keepalive; /* TCP keep-alive, with … */
    unsigned keepalive_idle_s, keepalive_interval_s, keepalive_count; /* 0: the kernel's */
};

struct dialed {
    int fd;        /* non-blocking, close-on-exec, registered with this thread's loop: loop_close */
    size_t index;  /* which address it is, or which failed first */
    int error;     /* errno of that failure, for the sentence; 0 for a deadline or a cancel */
};

/* On a fiber. Returns when every attempt has ended; the losers are closed. TCP_NODELAY is set.
 * ERR_TIMEOUT at the deadline; ERR_INVALID when no address has the family of `local`. */
enum err await_dial(const struct resolved *, const struct dial_options *, struct dialed *);

/* A Unix socket's path as the one address; "@name" is abstract. ERR_INVALID: empty, too long. */
enum err resolved_unix(struct slice path, struct resolved *);
