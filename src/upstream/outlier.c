/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request costs a few relaxed additions to counters of its upstream. Failures in a row are judged by
 * the worker that sees the last of them. Rates and latencies are judged once an interval, by the worker
 * whose request is the first behind its end, in one walk over all upstreams: the median comes from a
 * histogram whose buckets are an eighth of a power of two, so that nothing is sorted.
 *
 * Who is ejected stands in a list behind a lock that only ejections take; those whose time is over leave
 * it there. It is full at half of the upstreams. An upstream's time doubles with each ejection until it
 * has been well for `max_ns`.
 */
#include "upstream/outlier.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"

#define LOGGER "http.handlers.reverse_proxy.eject"

enum { BUCKETS = 64 * 8 };

struct outliers {
    struct slice key;
    unsigned refs;
    struct eject_rules rules;
    uint32_t count;
    struct endpoint **endpoints;
    struct outlier *items;
    _Atomic uint64_t next_ns; /* the interval's end; 0: none has begun */
    pthread_mutex_t lock;     /* of the rest */
    uint32_t *list, listed;
    uint64_t soonest_ns;      /* the first time that one of the list may come back */
};

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct map all; /* by key */
static atomic_ullong total;

static struct outliers *make(struct slice key, struct upstream_set set, const struct eject_rules *rules)
{
    struct outliers *o = NEW(struct outliers);
    o->key = slice_of(slice_dup(key), key.len);
    o->rules = *rules;
    o->count = set.count;
    o->endpoints = mem_resize(NULL, set.count, sizeof *o->endpoints);
    o->items = mem_zalloc(set.count * sizeof *o->items);
    o->list = mem_resize(NULL, set.count, sizeof *o->list);
    for (uint32_t i = 0; i < set.count; i++) {
        o->endpoints[i] = set.items[i].endpoint;
        endpoint_hold(o->endpoints[i]);
    }
    pthread_mutex_init(&o->lock, NULL);
    map_put(&all, o->key, o);
    return o;
}

struct outliers *outliers_ref(struct slice key, struct upstream_set set, const struct eject_rules *rules)
{
    pthread_mutex_lock(&all_lock);
    struct outliers *o = all.count > 0 ? map_get(&all, key) : NULL;
    if (o == NULL)
        o = make(key, set, rules);
    ASSERT(o->count == set.count);
    o->refs++;
    pthread_mutex_unlock(&all_lock);
    return o;
}

void outliers_unref(struct outliers *o)
{
    pthread_mutex_lock(&all_lock);
    bool last = --o->refs == 0;
    if (last) {
        map_remove(&all, o->key);
        if (all.count == 0)
            map_deinit(&all);
    }
    pthread_mutex_unlock(&all_lock);
    if (!last)
        return;
    for (uint32_t i = 0; i < o->count; i++)
        endpoint_unref(o->endpoints[i]);
    pthread_mutex_destroy(&o->lock);
    mem_free((void *)(uintptr_t)o->key.ptr);
    mem_free(o->endpoints);
    mem_free(o->items);
    mem_free(o->list);
    mem_free(o);
}

struct outlier *outlier_at(struct outliers *o, uint32_t index)
{
    return &o->items[index];
}

/* --- ejecting --- */

static uint64_t until(const struct outlier *u)
{
    return atomic_load_explicit(&u->until_ns, memory_order_relaxed);
}

/* Behind the lock: those whose time is over leave the list. */
static void sweep(struct outliers *o, uint64_t now_ns)
{
    uint32_t kept = 0;
    if (now_ns < o->soonest_ns)
        return;
    o->soonest_ns = UINT64_MAX;
    for (uint32_t i = 0; i < o->listed; i++) {
        struct outlier *u = &o->items[o->list[i]];
        if (until(u) <= now_ns) {
            u->listed = false;
            continue;
        }
        if (until(u) < o->soonest_ns)
            o->soonest_ns = until(u);
        o->list[kept++] = o->list[i];
    }
    o->listed = kept;
}

static uint64_t duration(const struct outliers *o, const struct outlier *u)
{
    uint64_t ns = o->rules.base_ns;
    for (unsigned i = 0; i < u->times && ns < o->rules.max_ns; i++)
        ns *= 2;
    return ns < o->rules.max_ns ? ns : o->rules.max_ns;
}

static bool put_out(struct outliers *o, uint32_t index, uint64_t now_ns, uint64_t *ns)
{
    struct outlier *u = &o->items[index];
    sweep(o, now_ns);
    if (u->listed || (o->listed + 1) * 2 > o->count)
        return false;
    if (now_ns > until(u) + o->rules.max_ns)
        u->times = 0;
    *ns = duration(o, u);
    u->times++;
    u->listed = true;
    o->list[o->listed++] = index;
    if (now_ns + *ns < o->soonest_ns)
        o->soonest_ns = now_ns + *ns;
    atomic_store_explicit(&u->until_ns, now_ns + *ns, memory_order_relaxed);
    atomic_store_explicit(&u->failed_in_a_row, 0, memory_order_relaxed);
    return true;
}

static void eject(struct outliers *o, uint32_t index, uint64_t now_ns, const char *why)
{
    uint64_t ns = 0;
    pthread_mutex_lock(&o->lock);
    bool out = put_out(o, index, now_ns, &ns);
    pthread_mutex_unlock(&o->lock);
    if (!out)
        return;
    atomic_fetch_add_explicit(&total, 1, memory_order_relaxed);
    endpoint_came_back(o->endpoints[index], now_ns + ns);
    LOG(LOG_WARN, LOGGER, "upstream is left out for a while",
        LOG_STR("upstream", o->endpoints[index]->name), LOG_CSTR("reason", why),
        LOG_DUR("duration", ns));
}

/* --- judging an interval --- */

static uint64_t mean_ns(const struct outliers *o, const struct outlier *u)
{
    unsigned requests = atomic_load_explicit(&u->requests, memory_order_relaxed);
    unsigned failures = atomic_load_explicit(&u->failures, memory_order_relaxed);
    if (requests <= failures || requests - failures < o->rules.min_requests)
        return 0;
    return atomic_load_explicit(&u->answered_ns, memory_order_relaxed) / (requests - failures);
}

static unsigned bucket_of(uint64_t ns)
{
    unsigned power = 63 - (unsigned)__builtin_clzll(ns | 8);
    return power * 8 + (unsigned)(ns >> (power - 3) & 7);
}

/* The upper edge of the median's bucket; 0: nothing to compare. */
static uint64_t median_ns(const struct outliers *o)
{
    uint32_t buckets[BUCKETS] = {0}, known = 0, seen = 0;
    for (uint32_t i = 0; i < o->count; i++) {
        uint64_t ns = mean_ns(o, &o->items[i]);
        buckets[ns > 0 ? bucket_of(ns) : 0] += ns > 0;
        known += ns > 0;
    }
    if (known < 2)
        return 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        seen += buckets[b];
        if (seen * 2 >= known)
            return (uint64_t)(9 + b % 8) << (b / 8 - 3);
    }
    return 0;
}

static void judge(struct outliers *o, uint32_t i, uint64_t median, uint64_t now_ns)
{
    const struct eject_rules *r = &o->rules;
    struct outlier *u = &o->items[i];
    uint64_t mean = mean_ns(o, u);
    uint64_t requests = atomic_exchange_explicit(&u->requests, 0, memory_order_relaxed);
    uint64_t failures = atomic_exchange_explicit(&u->failures, 0, memory_order_relaxed);
    atomic_store_explicit(&u->answered_ns, 0, memory_order_relaxed);
    if (r->rate_percent > 0 && requests > 0 && requests >= r->min_requests &&
        failures * 100 >= requests * r->rate_percent)
        eject(o, i, now_ns, "failure rate");
    else if (median > 0 && mean * 100 > median * r->slow_percent)
        eject(o, i, now_ns, "latency");
}

static void judge_all(struct outliers *o, uint64_t now_ns)
{
    uint64_t median = o->rules.slow_percent > 0 ? median_ns(o) : 0;
    for (uint32_t i = 0; i < o->count; i++)
        judge(o, i, median, now_ns);
}

static bool interval_ended(struct outliers *o, uint64_t now_ns)
{
    uint64_t next = atomic_load_explicit(&o->next_ns, memory_order_relaxed);
    if (now_ns < next || (o->rules.rate_percent == 0 && o->rules.slow_percent == 0))
        return false;
    return atomic_compare_exchange_strong(&o->next_ns, &next, now_ns + o->rules.interval_ns) &&
           next > 0;
}

void outliers_note(struct outliers *o, uint32_t index, uint64_t latency_ns, bool failed,
                   uint64_t now_ns)
{
    struct outlier *u = &o->items[index];
    atomic_fetch_add_explicit(&u->requests, 1, memory_order_relaxed);
    if (!failed) {
        atomic_fetch_add_explicit(&u->answered_ns, latency_ns, memory_order_relaxed);
        if (atomic_load_explicit(&u->failed_in_a_row, memory_order_relaxed) > 0)
            atomic_store_explicit(&u->failed_in_a_row, 0, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(&u->failures, 1, memory_order_relaxed);
        unsigned row = atomic_fetch_add_explicit(&u->failed_in_a_row, 1, memory_order_relaxed) + 1;
        if (o->rules.in_a_row > 0 && row % o->rules.in_a_row == 0 && until(u) <= now_ns)
            eject(o, index, now_ns, "failures in a row");
    }
    if (interval_ended(o, now_ns))
        judge_all(o, now_ns);
}

unsigned outliers_ejected(struct outliers *o, uint64_t now_ns)
{
    pthread_mutex_lock(&o->lock);
    sweep(o, now_ns);
    unsigned n = o->listed;
    pthread_mutex_unlock(&o->lock);
    return n;
}

unsigned outliers_ejected_now(uint64_t now_ns)
{
    unsigned n = 0;
    size_t at = 0;
    pthread_mutex_lock(&all_lock);
    for (struct map_entry *e; all.count > 0 && (e = map_next(&all, &at)) != NULL;)
        n += outliers_ejected(e->value, now_ns);
    pthread_mutex_unlock(&all_lock);
    return n;
}

unsigned long long outliers_total(void)
{
    return atomic_load_explicit(&total, memory_order_relaxed);
}
