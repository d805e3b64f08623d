/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Binding of listening sockets: TCP over IPv4, IPv6 or both, Unix sockets with their mode, and
 * descriptors that were inherited (socket activation). Blocking; only the keeper calls it.
 */
#pragma once

#include <sys/types.h>

#include "net/address.h"
#include "net/socket_file.h"

enum { LISTEN_BACKLOG = 4096, LISTENERS_MAX = 256 };

struct listen_request {
    struct slice network, host; /* of a network_address */
    uint16_t port;
    unsigned count;             /* sockets that share the address (SO_REUSEPORT); 1 for unix, fd */
    const ino_t *own;           /* inodes of sockets of ours: they may share the port, as ":80" and */
    size_t own_count;           /* "127.0.0.1:80" of one configuration do */
    bool no_descriptor;         /* the number of an fd/N is not one that was inherited */
    uid_t uid;                  /* whose the file of a Unix socket becomes; 0: whose it is */
    gid_t gid;
    struct socket_file *file;   /* out: which one it is; may be NULL */
};

/* Opens `count` sockets into fds: bound, listening, non-blocking, close-on-exec. Port 0 lets the
 * kernel choose; *port tells which. On failure none is open and `error` names the address, the
 * reason, who holds it, and what to do. */
enum err listen_open(const struct listen_request *, int *fds, uint16_t *port, char *error,
                     size_t error_cap);
