/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where requests wait while all upstreams that they could go to are at their limit of requests: first in,
 * first out over all threads, within a length. The end of a request at one of those upstreams wakes who
 * has waited longest; while nobody waits anywhere, that end costs one load more.
 */
#pragma once

#include <stdatomic.h>

#include "upstream/endpoint.h"

enum { QUEUE_LENGTH_MAX = 1 << 20, NO_HINT = -1 };

struct request_queue;
struct queued;

/* `passing`: its upstreams are known only while somebody waits. */
struct request_queue *request_queue_create(unsigned max, bool passing);
void request_queue_free(struct request_queue *); /* nobody waits */

/* From now on the end of a request at that endpoint wakes somebody, with that hint; a passing queue
 * forgets it when the last one has left. */
void request_queue_watch(struct request_queue *, struct endpoint *, int hint);

unsigned request_queue_length(struct request_queue *);

/* A place at the end; ERR_LIMIT when it is full. Whoever has got one looks once more whether there is
 * room before it waits. */
enum err request_queue_join(struct request_queue *, struct queued **);

/* Until there may be room, *hint tells of which upstream. Afterwards the place is the first again. */
enum err await_turn(struct request_queue *, struct queued *, uint64_t deadline_ns, int *hint);

/* With or without having found room. `more`: there may be room for the next as well, by that hint. */
void request_queue_leave(struct request_queue *, struct queued *, bool more, int hint);

/* How many wait in all queues of the process. */
extern atomic_int requests_queued;
void queues_tell(struct endpoint *);

/* A request at the endpoint has ended. */
static inline void endpoint_done(struct endpoint *e)
{
    atomic_fetch_sub(&e->requests, 1);
    if (atomic_load(&requests_queued) > 0)
        queues_tell(e);
}
