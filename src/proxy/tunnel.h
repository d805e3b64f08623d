/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tunnels: the list of a worker's, how they end, and the copying (tunnel.c). They outlive their exchange
 * and have no fiber while nothing is said (tunnel_kept.c).
 */
#pragma once

#include "proxy/gateway.h"
#include "tls/stream.h"

#define TUNNEL_FAREWELL_NS (5 * NS_PER_S) /* for the second direction, once the first has ended */

struct tunnel {
    struct list node;
    const struct generation *generation;
    struct timer timer;
    void (*cut)(struct tunnel *); /* both directions, now; the tunnel ends later */
    struct stream *client, *upstream;
    uint64_t close_delay_ns, start_ns;
    size_t piece; /* read at once from either side */
    bool websocket, going;
};

/* Listed, with the round's limits; `cut` is set. */
void tunnel_begin(struct tunnel *, const struct round *);
void tunnel_end(struct tunnel *);

/* It ends then, if it has not before. */
void tunnel_end_within(struct tunnel *, uint64_t ns);
void tunnel_end_now(struct tunnel *);

/* What can be read now goes over, as long as there is more; *n counts it. On a fiber. */
enum err tunnel_move(const struct tunnel *, struct stream *from, struct stream *to, bool *end,
                     uint64_t *n);
enum err tunnel_send(struct stream *to, struct slice);

/* The head and what either side has said already; the tunnel is the exchange's no more. ERR_UNSUPPORTED
 * before anything has been sent, where the carrier cannot do that. */
enum err tunnel_keep(struct round *, struct slice early);
