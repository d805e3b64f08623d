/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PROXY protocol's header, versions 1 and 2: how a load balancer tells whose connection it passes
 * on. Pure: bytes in, addresses out, and the other way. Source: HAProxy's proxy-protocol.txt.
 */
#pragma once

#include <sys/socket.h>

#include "base/slice.h"
#include "net/ip_set.h"

enum proxy_result {
    PROXY_NONE,   /* these bytes do not begin a header */
    PROXY_UNSURE, /* they may, but are too few to tell */
    PROXY_MORE,   /* they do: all of them belong to it, and more must come */
    PROXY_DONE,   /* a whole header of `len` bytes */
    PROXY_BAD,    /* a header that is broken, or longer than PROXY_HEADER_MAX */
};

enum { PROXY_HEADER_MAX = 4096 };

struct proxy_header {
    size_t len;
    bool given; /* `from` and `to` hold addresses; else the connection is the balancer's own, or of a
                 * family that is not told */
    struct sockaddr_storage from, to;
};

enum proxy_result proxy_header_parse(struct slice, struct proxy_header *);

enum { PROXY_PUT_MAX = 108 };

/* A header of version 1 or 2 for a connection of `from`, or of nobody who can be told (NULL); returns
 * its length. Where that client had connected to is not told: the address is zero, as Caddy's is. */
size_t proxy_header_put(unsigned version, const struct ip_address *from, uint16_t port,
                        char out[PROXY_PUT_MAX]);
