/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry is a map under a lock that only provisioning takes. Counters are atomics. Failures
 * expire one by one: their instants stand in a ring, and whoever asks drops those that have passed.
 * A reader that finds the ring's lock taken goes on with the count as it is, so that no worker waits
 * for another; a writer may wait, for a failure is rare.
 */
#include "upstream/endpoint.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/map.h"
#include "base/mem.h"
#include "upstream/outlier.h"

static struct {
    pthread_mutex_t lock;
    struct map names;
    struct endpoint **slots;
    uint32_t slots_count, lowest; /* below `lowest` none is free */
    uint64_t serial;
    unsigned measured;
    _Atomic(struct latency *) other; /* once made it stays */
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Under the lock. */
static bool take_slot(uint32_t *index)
{
    uint32_t i = registry.lowest;
    while (i < registry.slots_count && registry.slots[i] != NULL)
        i++;
    if (i == ENDPOINTS_MAX)
        return false;
    if (i == registry.slots_count) {
        uint32_t count = registry.slots_count > 0 ? registry.slots_count * 2 : 16;
        registry.slots = mem_resize(registry.slots, count, sizeof *registry.slots);
        for (uint32_t n = registry.slots_count; n < count; n++)
            registry.slots[n] = NULL;
        registry.slots_count = count;
    }
    registry.lowest = i + 1;
    *index = i;
    return true;
}

static struct endpoint *make(struct slice name)
{
    static const uint64_t fixed_key[2] = {0x706f727469636f2d, 0x656e64706f696e74};
    uint32_t index;
    if (!take_slot(&index))
        return NULL;
    struct endpoint *e = NEW(struct endpoint);
    e->name = slice_of(slice_dup(name), name.len);
    e->hash = hash_keyed(name, fixed_key);
    e->serial = ++registry.serial;
    e->index = index;
    atomic_init(&e->back_ns, clock_mono_ns());
    list_init(&e->watches);
    pthread_mutex_init(&e->lock, NULL);
    registry.slots[index] = e;
    map_put(&registry.names, e->name, e);
    return e;
}

struct endpoint *endpoint_ref(struct slice name)
{
    pthread_mutex_lock(&registry.lock);
    struct endpoint *e = registry.names.count > 0 ? map_get(&registry.names, name) : NULL;
    if (e == NULL)
        e = make(name);
    if (e != NULL)
        e->refs++;
    pthread_mutex_unlock(&registry.lock);
    return e;
}

void endpoint_hold(struct endpoint *e)
{
    pthread_mutex_lock(&registry.lock);
    e->refs++;
    pthread_mutex_unlock(&registry.lock);
}

void endpoint_unref(struct endpoint *e)
{
    pthread_mutex_lock(&registry.lock);
    bool last = --e->refs == 0;
    if (last) {
        map_remove(&registry.names, e->name);
        registry.slots[e->index] = NULL;
        if (e->index < registry.lowest)
            registry.lowest = e->index;
        registry.measured -= e->latency != NULL && e->latency != registry.other;
        if (registry.names.count == 0) {
            map_deinit(&registry.names);
            mem_free(registry.slots);
            registry.slots = NULL;
            registry.slots_count = registry.lowest = 0;
        }
    }
    pthread_mutex_unlock(&registry.lock);
    if (!last)
        return;
    pthread_mutex_destroy(&e->lock);
    if (e->latency != registry.other)
        latency_free(e->latency);
    outliers_free_of(e);
    mem_free(e->expiries);
    mem_free((void *)(uintptr_t)e->name.ptr);
    mem_free(e);
}

void endpoint_show(struct endpoint *e)
{
    atomic_fetch_add_explicit(&e->shown, 1, memory_order_relaxed);
}

void endpoint_hide(struct endpoint *e)
{
    atomic_fetch_sub_explicit(&e->shown, 1, memory_order_relaxed);
}

void endpoint_measure(struct endpoint *e, unsigned workers)
{
    if (workers == 0 || atomic_load_explicit(&e->latency, memory_order_relaxed) != NULL)
        return;
    pthread_mutex_lock(&registry.lock);
    bool own = registry.measured < ENDPOINTS_MEASURED;
    if (!own && registry.other == NULL)
        registry.other = latency_create(workers);
    if (e->latency == NULL) {
        struct latency *l = own ? latency_create(workers) : registry.other;
        registry.measured += own;
        atomic_store_explicit(&e->latency, l, memory_order_release);
    }
    pthread_mutex_unlock(&registry.lock);
}

struct latency *endpoints_other_latency(void)
{
    return registry.other;
}

void endpoints_each(void (*each)(const struct endpoint *, void *arg), void *arg)
{
    pthread_mutex_lock(&registry.lock);
    for (uint32_t i = 0; i < registry.slots_count; i++)
        if (registry.slots[i] != NULL)
            each(registry.slots[i], arg);
    pthread_mutex_unlock(&registry.lock);
}

/* Under the ring's lock. Expiries of different durations may stand in any order: what is stuck
 * behind a later one is forgotten with it, or by the sweep of the whole ring here. */
static unsigned drop_expired(struct endpoint *e, uint64_t now_ns)
{
    unsigned count = atomic_load_explicit(&e->fails, memory_order_relaxed), kept = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t until = e->expiries[(e->first + i) % ENDPOINT_FAILS_MAX];
        if (until > now_ns)
            e->expiries[(e->first + kept++) % ENDPOINT_FAILS_MAX] = until;
    }
    atomic_store_explicit(&e->fails, kept, memory_order_relaxed);
    return kept;
}

void endpoint_fail(struct endpoint *e, uint64_t now_ns, uint64_t until_ns)
{
    pthread_mutex_lock(&e->lock);
    if (e->expiries == NULL)
        e->expiries = mem_resize(NULL, ENDPOINT_FAILS_MAX, sizeof *e->expiries);
    unsigned count = drop_expired(e, now_ns);
    if (count == ENDPOINT_FAILS_MAX) {
        e->first = (e->first + 1) % ENDPOINT_FAILS_MAX;
        count--;
    }
    e->expiries[(e->first + count) % ENDPOINT_FAILS_MAX] = until_ns;
    atomic_store_explicit(&e->fails, count + 1, memory_order_relaxed);
    pthread_mutex_unlock(&e->lock);
}

void endpoint_forget_fails(struct endpoint *e)
{
    pthread_mutex_lock(&e->lock);
    atomic_store_explicit(&e->fails, 0, memory_order_relaxed);
    pthread_mutex_unlock(&e->lock);
}

uint64_t endpoint_marked_until(struct endpoint *e, unsigned fails, uint64_t now_ns)
{
    uint64_t until = 0;
    pthread_mutex_lock(&e->lock);
    unsigned count = e->expiries != NULL ? drop_expired(e, now_ns) : 0;
    if (fails > 0 && count >= fails)
        until = e->expiries[(e->first + count - fails) % ENDPOINT_FAILS_MAX];
    pthread_mutex_unlock(&e->lock);
    return until;
}

unsigned endpoint_fails(struct endpoint *e, uint64_t now_ns)
{
    unsigned count = atomic_load_explicit(&e->fails, memory_order_relaxed);
    if (count == 0 || pthread_mutex_trylock(&e->lock) != 0)
        return count;
    count = drop_expired(e, now_ns);
    pthread_mutex_unlock(&e->lock);
    return count;
}
