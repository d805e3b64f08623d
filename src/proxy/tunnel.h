/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tunnels: the list of a worker's, how they end, and the copying (tunnel.c). They outlive their exchange
 * and have no fiber while nothing is said (tunnel_kept.c). There may be many that say nothing: what one
 * needs seldom, it does not hold.
 */
#pragma once

#include "proxy/gateway.h"
#include "tls/stream.h"

#define TUNNEL_FAREWELL_NS (5 * NS_PER_S) /* for the second direction, once the first has ended */

struct tunnel_limit;

struct direction {
    struct op op;
    uint64_t bytes;
    union {
        struct { /* clear */
            char *held; /* bytes that leave, or wait until they are taken; NULL: none */
            int from, to;
        };
        struct { /* the others */
            struct fiber *fiber;           /* NULL: there is none */
            struct stream_watcher watcher; /* of what it reads, if that is no socket */
        };
    };
    uint16_t held_at, held_len;
    bool up;            /* from the client to the upstream */
    bool starved, over; /* starved: it wants a fiber */
};

struct tunnel {
    struct list node;
    struct list waiting; /* for the next turn, or for a fiber; else in no list */
    struct takeover taken;
    const struct gateway *g;    /* of the generation that `taken` has */
    struct stream *upstream;    /* the next, or the call's */
    union {
        struct stream link; /* it was one's */
        struct h2_call *call;
    };
    struct endpoint *endpoint;
    struct tunnel_limit *limit; /* NULL: none */
    uint64_t start_ns;
    struct direction up, down;
    uint16_t holds; /* it is not freed meanwhile */
    bool websocket, going;
    bool clear;     /* both sides are sockets in clear text, and the loop's buffers will do */
    bool cutting;
    bool last_words; /* it ends as soon as what is held has left, or a moment later */
    bool soon;      /* it waits for the next turn */
    bool broken;    /* the client's stream is, that is no socket */
};

/* Of `both`, what the client says or the upstream. */
static inline struct tunnel *tunnel_of(struct direction *d)
{
    return d->up ? CONTAINER_OF(d, struct tunnel, up) : CONTAINER_OF(d, struct tunnel, down);
}

/* Listed, with the round's limits. */
void tunnel_begin(struct tunnel *, const struct round *);
void tunnel_end(struct tunnel *);

/* It ends then, if it has not before. */
void tunnel_end_within(struct tunnel *, uint64_t ns);
void tunnel_end_now(struct tunnel *);

/* Both directions, now; the tunnel ends later. */
void tunnel_cut(struct tunnel *);

/* What can be read now goes over, as long as there is more; *n counts it. On a fiber. */
enum err tunnel_move(const struct tunnel *, struct stream *from, struct stream *to, bool *end,
                     uint64_t *n);
enum err tunnel_send(struct stream *to, struct slice);

/* The head and what either side has said already; the tunnel is the exchange's no more. ERR_UNSUPPORTED
 * before anything has been sent, where the carrier cannot do that. */
enum err tunnel_keep(struct round *, struct slice early);
