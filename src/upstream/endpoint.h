/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the whole process knows about a server behind it: requests under way, open connections,
 * recent failures. One record per dial address as the configuration writes it, shared by all
 * workers and kept over generations by a count of references.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/slice.h"
#include "upstream/ewma.h"
#include "upstream/latency.h"

enum {
    ENDPOINT_FAILS_MAX = 1024, /* failures remembered at once; older ones are forgotten first */
    ENDPOINTS_MAX = 65536,
    ENDPOINTS_MEASURED = 256, /* that have a histogram of their own */
};

struct outlier;

struct endpoint {
    struct slice name;
    uint64_t hash;   /* of the name, the same in every process: for rendezvous hashing */
    uint64_t serial; /* never used twice */
    uint32_t index;  /* small, used again after the last unref */
    unsigned refs;   /* under the registry's lock */
    atomic_int requests;
    atomic_int links;   /* open connections of all workers */
    atomic_bool leaving; /* no new requests: idle connections are closed, it may wait for that */
    atomic_int waiting; /* requests that wait for one, within a limit */
    atomic_uint fails; /* may count some that have expired: endpoint_fails looks */
    atomic_int shown; /* how many gateways and the like have it as an upstream, to be told of */
    _Atomic(struct latency *) latency; /* NULL: it is not measured */
    atomic_uint watched;   /* how many of … */
    struct list watches;   /* … upstream/queue.h's there are, behind the lock */
    _Atomic uint64_t back_ns; /* since when it can be used: its first, or after it was left out */
    struct ewma ewma;      /* where a policy wants to know */
    _Atomic(struct outlier *) outliers; /* of it: upstream/outlier.h */
    pthread_mutex_t lock; /* of the ring, and of the watches */
    uint64_t *expiries;   /* monotonic ns, ENDPOINT_FAILS_MAX, made at the first failure */
    unsigned first;
};

/* The record of that name, made when there is none. NULL when there are too many. */
struct endpoint *endpoint_ref(struct slice name);
void endpoint_hold(struct endpoint *); /* one more reference to what is held already */
void endpoint_unref(struct endpoint *);

/* Somebody has it as an upstream, from show to hide, each with a reference of his own. */
void endpoint_show(struct endpoint *);
void endpoint_hide(struct endpoint *);

/* Its latency is measured by that many threads from now on; none: it is not. */
void endpoint_measure(struct endpoint *, unsigned workers);

/* What endpoints beyond ENDPOINTS_MEASURED share; NULL before there was one. */
struct latency *endpoints_other_latency(void);

/* All there are, in no order; under the registry's lock. */
void endpoints_each(void (*each)(const struct endpoint *, void *arg), void *arg);

/* Remembers a failure until then. */
void endpoint_fail(struct endpoint *, uint64_t now_ns, uint64_t until_ns);

/* Another server than before answers there. */
void endpoint_forget_fails(struct endpoint *);

/* Failures that are not forgotten yet. Costs one load when there are none; never waits. */
unsigned endpoint_fails(struct endpoint *, uint64_t now_ns);

/* When the last of `fails` failures that mark it now is forgotten; 0: they do not mark it. */
uint64_t endpoint_marked_until(struct endpoint *, unsigned fails, uint64_t now_ns);

/* It can be used again from then on. */
static inline void endpoint_came_back(struct endpoint *e, uint64_t at_ns)
{
    atomic_store_explicit(&e->back_ns, at_ns, memory_order_relaxed);
}

static inline int endpoint_requests(const struct endpoint *e)
{
    return atomic_load_explicit(&e->requests, memory_order_relaxed);
}

static inline void endpoint_count(struct endpoint *e, int step)
{
    atomic_fetch_add_explicit(&e->requests, step, memory_order_relaxed);
}
