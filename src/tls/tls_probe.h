/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look at what answers on a connection, blocking: for a command that says what is wrong. With TLS
 * or without, one request is sent, and the beginning of the answer is read.
 */
#pragma once

#include "base/arena.h"

struct tls_probe {
    bool shaken;              /* the handshake succeeded (nothing was checked by it) */
    struct slice certificate; /* the leaf's PEM; empty: none was shown */
    bool named;               /* the leaf is for the name */
    bool trusted;             /* by this machine's trust store, for the name */
    struct slice why;         /* why not, or why there was no handshake: a clause */
    const char *version;      /* "TLSv1.3" */
    struct slice head;        /* what came back for the request, up to 4 KiB */
};

/* `fd` is connected, does not block, and stays the caller's; at `deadline_ns` (clock_mono_ns) all of it
 * is over. `name` is sent and checked (an address is checked only). OK also where nothing of it worked:
 * the probe says what did. */
enum err tls_probe(int fd, struct slice name, struct slice request, uint64_t deadline_ns,
                   struct arena *, struct tls_probe *);
