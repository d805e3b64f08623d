/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request costs a few relaxed additions to counters of its upstream. Failures in a row are judged by
 * the worker that sees the last of them. Rates and latencies are judged once an interval, by the worker
 * whose request is the first behind its end, in one walk over all upstreams: the median comes from a
 * histogram whose buckets are an eighth of a power of two, so that nothing is sorted.
 *
 * What is known of an upstream hangs on its endpoint, in a list that only grows while that lives, so that
 * who holds the endpoint finds it without a lock. Everything else stands behind one lock of the process,
 * which is taken when one is ejected, judged, or new. Who is ejected stands in a list of its group; those
 * whose time is over, or who are not present, leave it there. It is full at half of those that are present;
 * when these become fewer, those that would be back soonest are back at once. An upstream's time doubles
 * with each ejection until it has been well for `max_ns`.
 *
 * Of a group that finds its upstreams those are present that a request could have gone to within PRESENT_NS
 * before the group's last one, over all workers, whose answers of DNS may differ. Its members hold their
 * endpoints until they were not seen for `max_ns`, or there are too many. Where requests say of which
 * service they want one, each service has a median of its own; who is of two belongs to the one that it was
 * found for last.
 */
#include "upstream/outlier.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"

#define LOGGER "http.handlers.reverse_proxy.eject"
#define PRESENT_NS (5 * NS_PER_S)
#define SEEN_NS (NS_PER_S / 2)        /* no finer is it noted that one was seen */
#define COUNT_NS (100 * NS_PER_MS)    /* … or counted who is present */

enum { BUCKETS = 64 * 8 };

struct outliers {
    struct slice key;
    struct eject_rules rules;
    bool finds;
    _Atomic uint64_t next_ns; /* the interval's end; 0: none has begun */
    _Atomic uint64_t last_ns; /* a request came */
    /* behind the lock: */
    unsigned refs;
    struct outlier **items, **list; /* its members, and who of them is ejected */
    uint32_t count, room, listed, present;
    uint64_t soonest_ns;      /* the first time that one of the list may come back */
    uint64_t recount_ns;      /* the list, and `present`, are right until then */
    uint64_t tidy_ns;         /* those that are gone are looked for again */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map all; /* by key */
static atomic_ullong total;

static uint64_t until(const struct outlier *u)
{
    return atomic_load_explicit(&u->until_ns, memory_order_relaxed);
}

static uint64_t last_ns(const struct outliers *o)
{
    return atomic_load_explicit(&o->last_ns, memory_order_relaxed);
}

static bool seen_within(const struct outliers *o, const struct outlier *u, uint64_t ns)
{
    return !o->finds ||
           atomic_load_explicit(&u->seen_ns, memory_order_relaxed) + ns >= last_ns(o);
}

struct outlier *outlier_of(const struct outliers *o, const struct endpoint *e)
{
    struct outlier *u = atomic_load_explicit(&e->outliers, memory_order_acquire);
    while (u != NULL && atomic_load_explicit(&u->group, memory_order_acquire) != o)
        u = u->next;
    return u;
}

/* --- members --- */

static void forget_past(struct outlier *u)
{
    atomic_store_explicit(&u->until_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&u->failed_in_a_row, 0, memory_order_relaxed);
    atomic_store_explicit(&u->requests, 0, memory_order_relaxed);
    atomic_store_explicit(&u->failures, 0, memory_order_relaxed);
    atomic_store_explicit(&u->answered_ns, 0, memory_order_relaxed);
}

/* Its record on the endpoint: one that no group has any more, or a new one. */
static struct outlier *record_of(struct endpoint *e)
{
    struct outlier *first = atomic_load_explicit(&e->outliers, memory_order_relaxed), *u = first;
    while (u != NULL && atomic_load_explicit(&u->group, memory_order_relaxed) != NULL)
        u = u->next;
    if (u != NULL)
        return u;
    u = NEW(struct outlier);
    u->endpoint = e;
    u->next = first;
    atomic_store_explicit(&e->outliers, u, memory_order_release);
    return u;
}

static struct outlier *put_in(struct outliers *o, struct endpoint *e, uint64_t now_ns)
{
    struct outlier *u = record_of(e);
    if (o->count == o->room) {
        o->room = o->room > 0 ? o->room * 2 : 8;
        o->items = mem_resize(o->items, o->room, sizeof *o->items);
        o->list = mem_resize(o->list, o->room, sizeof *o->list);
    }
    endpoint_hold(e);
    forget_past(u);
    u->times = 0;
    u->listed = false;
    atomic_store_explicit(&u->seen_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&u->service, 0, memory_order_relaxed);
    atomic_store_explicit(&u->group, o, memory_order_release);
    o->items[o->count++] = u;
    o->recount_ns = 0;
    return u;
}

/* The last reference may be this one. */
static void let_go(struct outlier *u)
{
    atomic_store_explicit(&u->group, NULL, memory_order_release);
    endpoint_unref(u->endpoint);
}

/* Those that were not seen for so long. */
static void drop_gone(struct outliers *o, uint64_t ns)
{
    uint32_t kept = 0;
    o->listed = 0; /* is counted anew */
    o->recount_ns = 0;
    for (uint32_t i = 0; i < o->count; i++) {
        struct outlier *u = o->items[i];
        u->listed = false;
        if (seen_within(o, u, ns))
            o->items[kept++] = u;
        else
            let_go(u);
    }
    o->count = kept;
}

static void tidy(struct outliers *o, uint64_t now_ns)
{
    if (now_ns < o->tidy_ns)
        return;
    o->tidy_ns = now_ns + NS_PER_S;
    drop_gone(o, o->rules.max_ns > PRESENT_NS ? o->rules.max_ns : PRESENT_NS);
    if (o->count >= OUTLIERS_MAX)
        drop_gone(o, PRESENT_NS);
}

static struct outlier *enter(struct outliers *o, struct endpoint *e, uint64_t now_ns)
{
    pthread_mutex_lock(&lock);
    struct outlier *u = outlier_of(o, e); /* another thread may have been quicker */
    if (u == NULL)
        tidy(o, now_ns);
    if (u == NULL && o->count < OUTLIERS_MAX)
        u = put_in(o, e, now_ns);
    pthread_mutex_unlock(&lock);
    return u;
}

struct outlier *outlier_seen(struct outliers *o, struct endpoint *e, uint64_t now_ns)
{
    struct outlier *u = outlier_of(o, e);
    if (last_ns(o) + SEEN_NS <= now_ns)
        atomic_store_explicit(&o->last_ns, now_ns, memory_order_relaxed);
    if (u == NULL)
        return enter(o, e, now_ns);
    if (atomic_load_explicit(&u->seen_ns, memory_order_relaxed) + SEEN_NS <= now_ns)
        atomic_store_explicit(&u->seen_ns, now_ns, memory_order_relaxed);
    return u;
}

void outliers_apply(struct outliers *o, struct upstream *items, uint32_t count, uint64_t service,
                    uint64_t now_ns)
{
    uint32_t out = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct outlier *u = outlier_seen(o, items[i].endpoint, now_ns);
        if (u != NULL && atomic_load_explicit(&u->service, memory_order_relaxed) != service)
            atomic_store_explicit(&u->service, service, memory_order_relaxed);
        items[i].outlier = outlier_ejected(u, now_ns) && (out + 1) * 2 <= count ? u : NULL;
        out += items[i].outlier != NULL;
    }
}

void outliers_free_of(struct endpoint *e)
{
    struct outlier *u = atomic_load_explicit(&e->outliers, memory_order_relaxed);
    while (u != NULL) {
        struct outlier *next = u->next;
        mem_free(u);
        u = next;
    }
}

uint32_t outliers_count(const struct outliers *o)
{
    return o->count;
}

/* --- groups --- */

static struct outliers *make(struct slice key, struct upstream_set set, const struct eject_rules *rules)
{
    struct outliers *o = NEW(struct outliers);
    o->key = slice_of(slice_dup(key), key.len);
    o->rules = *rules;
    o->finds = set.count == 0;
    for (uint32_t i = 0; i < set.count; i++) /* one that is named twice counts once */
        if (outlier_of(o, set.items[i].endpoint) == NULL)
            put_in(o, set.items[i].endpoint, 0);
    map_put(&all, o->key, o);
    return o;
}

struct outliers *outliers_ref(struct slice key, struct upstream_set set, const struct eject_rules *rules)
{
    pthread_mutex_lock(&lock);
    struct outliers *o = all.count > 0 ? map_get(&all, key) : NULL;
    if (o == NULL)
        o = make(key, set, rules);
    o->refs++;
    pthread_mutex_unlock(&lock);
    return o;
}

void outliers_unref(struct outliers *o)
{
    pthread_mutex_lock(&lock);
    bool last = --o->refs == 0;
    if (last) {
        map_remove(&all, o->key);
        if (all.count == 0)
            map_deinit(&all);
        for (uint32_t i = 0; i < o->count; i++)
            let_go(o->items[i]);
    }
    pthread_mutex_unlock(&lock);
    if (!last)
        return;
    mem_free((void *)(uintptr_t)o->key.ptr);
    mem_free(o->items);
    mem_free(o->list);
    mem_free(o);
}

/* --- ejecting; all behind the lock --- */

static void list(struct outliers *o, struct outlier *u)
{
    u->listed = true;
    o->list[o->listed++] = u;
    if (until(u) < o->soonest_ns)
        o->soonest_ns = until(u);
}

/* Anew, from what is known of each. */
static void count_all(struct outliers *o, uint64_t now_ns)
{
    o->present = o->listed = 0;
    o->soonest_ns = UINT64_MAX;
    for (uint32_t i = 0; i < o->count; i++) {
        struct outlier *u = o->items[i];
        bool present = seen_within(o, u, PRESENT_NS);
        o->present += present;
        u->listed = false;
        if (present && until(u) > now_ns)
            list(o, u);
    }
    o->recount_ns = o->finds ? now_ns + COUNT_NS : UINT64_MAX;
}

/* Those whose time is over leave the list. */
static void drop_over(struct outliers *o, uint64_t now_ns)
{
    uint32_t kept = 0;
    o->soonest_ns = UINT64_MAX;
    for (uint32_t i = 0; i < o->listed; i++) {
        struct outlier *u = o->list[i];
        u->listed = until(u) > now_ns;
        if (!u->listed)
            continue;
        if (until(u) < o->soonest_ns)
            o->soonest_ns = until(u);
        o->list[kept++] = u;
    }
    o->listed = kept;
}

static void end_soonest(struct outliers *o, uint64_t now_ns)
{
    uint32_t at = 0;
    for (uint32_t i = 1; i < o->listed; i++)
        if (until(o->list[i]) < until(o->list[at]))
            at = i;
    struct outlier *u = o->list[at];
    o->list[at] = o->list[--o->listed];
    u->listed = false;
    atomic_store_explicit(&u->until_ns, now_ns, memory_order_relaxed);
    endpoint_came_back(u->endpoint, now_ns);
    LOG(LOG_INFO, LOGGER, "upstream is back: there are fewer others",
        LOG_STR("upstream", u->endpoint->name));
}

static void sweep(struct outliers *o, uint64_t now_ns)
{
    if (now_ns >= o->recount_ns)
        count_all(o, now_ns);
    else if (now_ns >= o->soonest_ns)
        drop_over(o, now_ns);
    while (o->listed * 2 > o->present)
        end_soonest(o, now_ns);
}

static uint64_t duration(const struct outliers *o, const struct outlier *u)
{
    uint64_t ns = o->rules.base_ns;
    for (unsigned i = 0; i < u->times && ns < o->rules.max_ns; i++)
        ns *= 2;
    return ns < o->rules.max_ns ? ns : o->rules.max_ns;
}

static bool put_out(struct outliers *o, struct outlier *u, uint64_t now_ns, uint64_t *ns)
{
    sweep(o, now_ns);
    if (u->listed || (o->listed + 1) * 2 > o->present)
        return false;
    if (now_ns > until(u) + o->rules.max_ns)
        u->times = 0;
    *ns = duration(o, u);
    u->times++;
    atomic_store_explicit(&u->until_ns, now_ns + *ns, memory_order_relaxed);
    atomic_store_explicit(&u->failed_in_a_row, 0, memory_order_relaxed);
    list(o, u);
    return true;
}

static void eject(struct outliers *o, struct outlier *u, uint64_t now_ns, const char *why)
{
    uint64_t ns = 0;
    if (!put_out(o, u, now_ns, &ns))
        return;
    atomic_fetch_add_explicit(&total, 1, memory_order_relaxed);
    endpoint_came_back(u->endpoint, now_ns + ns);
    LOG(LOG_WARN, LOGGER, "upstream is left out for a while",
        LOG_STR("upstream", u->endpoint->name), LOG_CSTR("reason", why), LOG_DUR("duration", ns));
}

/* It may have left the group meanwhile. */
static void eject_failing(struct outliers *o, struct outlier *u, uint64_t now_ns)
{
    pthread_mutex_lock(&lock);
    if (atomic_load_explicit(&u->group, memory_order_relaxed) == o)
        eject(o, u, now_ns, "failures in a row");
    pthread_mutex_unlock(&lock);
}

void outliers_forgive(struct endpoint *e)
{
    if (atomic_load_explicit(&e->outliers, memory_order_acquire) == NULL)
        return;
    pthread_mutex_lock(&lock);
    struct outlier *u = atomic_load_explicit(&e->outliers, memory_order_acquire);
    for (; u != NULL; u = u->next) {
        struct outliers *o = atomic_load_explicit(&u->group, memory_order_relaxed);
        forget_past(u);
        if (o != NULL)
            o->recount_ns = 0;
    }
    pthread_mutex_unlock(&lock);
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

/* The upper edge of the median's bucket, of o->items[from … to); 0: nothing to compare. */
static uint64_t median_ns(const struct outliers *o, uint32_t from, uint32_t to)
{
    uint32_t buckets[BUCKETS] = {0}, known = 0, seen = 0;
    for (uint32_t i = from; i < to; i++) {
        uint64_t ns = mean_ns(o, o->items[i]);
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

static void judge(struct outliers *o, struct outlier *u, uint64_t median, uint64_t now_ns)
{
    const struct eject_rules *r = &o->rules;
    uint64_t mean = mean_ns(o, u);
    uint64_t requests = atomic_exchange_explicit(&u->requests, 0, memory_order_relaxed);
    uint64_t failures = atomic_exchange_explicit(&u->failures, 0, memory_order_relaxed);
    atomic_store_explicit(&u->answered_ns, 0, memory_order_relaxed);
    if (!seen_within(o, u, PRESENT_NS))
        return;
    if (r->rate_percent > 0 && requests > 0 && requests >= r->min_requests &&
        failures * 100 >= requests * r->rate_percent)
        eject(o, u, now_ns, "failure rate");
    else if (median > 0 && mean * 100 > median * r->slow_percent)
        eject(o, u, now_ns, "latency");
}

static int by_service(const void *a, const void *b)
{
    uint64_t x = (*(struct outlier *const *)a)->judged_as, y = (*(struct outlier *const *)b)->judged_as;
    return (x > y) - (x < y);
}

/* Those of one service stand together then. */
static void sort_services(struct outliers *o)
{
    bool sorted = true;
    for (uint32_t i = 0; i < o->count; i++) {
        struct outlier *u = o->items[i];
        u->judged_as = atomic_load_explicit(&u->service, memory_order_relaxed);
        sorted &= i == 0 || u->judged_as >= o->items[i - 1]->judged_as;
    }
    if (!sorted)
        qsort(o->items, o->count, sizeof o->items[0], by_service);
}

static void judge_service(struct outliers *o, uint32_t from, uint32_t to, uint64_t now_ns)
{
    uint64_t median = o->rules.slow_percent > 0 ? median_ns(o, from, to) : 0;
    for (uint32_t i = from; i < to; i++)
        judge(o, o->items[i], median, now_ns);
}

static void judge_all(struct outliers *o, uint64_t now_ns)
{
    pthread_mutex_lock(&lock);
    sort_services(o);
    for (uint32_t from = 0, to = 0; to < o->count; from = to) {
        while (to < o->count && o->items[to]->judged_as == o->items[from]->judged_as)
            to++;
        judge_service(o, from, to, now_ns);
    }
    if (o->finds)
        tidy(o, now_ns);
    pthread_mutex_unlock(&lock);
}

static bool interval_ended(struct outliers *o, uint64_t now_ns)
{
    uint64_t next = atomic_load_explicit(&o->next_ns, memory_order_relaxed);
    if (now_ns < next || (o->rules.rate_percent == 0 && o->rules.slow_percent == 0))
        return false;
    return atomic_compare_exchange_strong(&o->next_ns, &next, now_ns + o->rules.interval_ns) &&
           next > 0;
}

void outliers_note(struct outliers *o, const struct endpoint *e, uint64_t latency_ns, bool failed,
                   uint64_t now_ns)
{
    struct outlier *u = outlier_of(o, e);
    if (u == NULL)
        return;
    atomic_fetch_add_explicit(&u->requests, 1, memory_order_relaxed);
    if (!failed) {
        atomic_fetch_add_explicit(&u->answered_ns, latency_ns, memory_order_relaxed);
        if (atomic_load_explicit(&u->failed_in_a_row, memory_order_relaxed) > 0)
            atomic_store_explicit(&u->failed_in_a_row, 0, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(&u->failures, 1, memory_order_relaxed);
        unsigned row = atomic_fetch_add_explicit(&u->failed_in_a_row, 1, memory_order_relaxed) + 1;
        if (o->rules.in_a_row > 0 && row % o->rules.in_a_row == 0 && until(u) <= now_ns)
            eject_failing(o, u, now_ns);
    }
    if (interval_ended(o, now_ns))
        judge_all(o, now_ns);
}

/* Behind the lock. */
static unsigned ejected(struct outliers *o, uint64_t now_ns)
{
    sweep(o, now_ns);
    return o->listed;
}

unsigned outliers_ejected(struct outliers *o, uint64_t now_ns)
{
    pthread_mutex_lock(&lock);
    unsigned n = ejected(o, now_ns);
    pthread_mutex_unlock(&lock);
    return n;
}

unsigned outliers_ejected_now(uint64_t now_ns)
{
    unsigned n = 0;
    size_t at = 0;
    pthread_mutex_lock(&lock);
    for (struct map_entry *e; all.count > 0 && (e = map_next(&all, &at)) != NULL;)
        n += ejected(e->value, now_ns);
    pthread_mutex_unlock(&lock);
    return n;
}

unsigned long long outliers_total(void)
{
    return atomic_load_explicit(&total, memory_order_relaxed);
}
