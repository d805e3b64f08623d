/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gateway with a queue (upstream/queue.h). Its limits are exact: a request is counted as it is chosen,
 * and chooses again when another thread was faster. Who comes while others wait takes a place behind them
 * and then looks once: it may be quicker than who is just being woken, who then stays the first, and it
 * finds an upstream that recovered, which wakes nobody. Who is woken looks at the upstream that has room, by
 * the policy's own words, which is given a set of that one; of few upstreams it is given all, since one may
 * have recovered meanwhile.
 *
 * What is refused here is no failure of an upstream, and not tried again.
 */
#include "base/clock.h"
#include "loop/await.h"
#include "proxy/gateway.h"

enum { RACES_MAX = 16 };

static bool take_any(struct round *r, struct upstream_set set)
{
    uint64_t now = loop_now_ns(loop_self());
    for (unsigned i = 0; i < RACES_MAX && set.count > 0; i++) {
        r->upstream = r->g->policy->select(r->g->policy_cfg, r->x, set, now);
        if (r->upstream == NULL)
            return false;
        if (upstream_reserve(r->upstream)) {
            r->reserved = true;
            return true;
        }
    }
    r->upstream = NULL;
    return false;
}

static bool take_room(struct round *r, struct upstream_set set, int hint)
{
    bool one = hint >= 0 && set.items == r->g->upstreams && set.count > BALANCE_MANY &&
               !r->g->policy->whole;
    return take_any(r, one ? (struct upstream_set){&set.items[hint], 1} : set);
}

/* Whether there is anything to wait for. */
static bool any_full(struct upstream_set set)
{
    uint64_t now = loop_now_ns(loop_self());
    for (uint32_t i = 0; i < set.count; i++)
        if (set.items[i].max_requests > 0 && upstream_well(&set.items[i], now))
            return true;
    return false;
}

static enum err refuse(struct round *r, enum overload_event why, const char *text)
{
    uint64_t seconds = (r->g->overload.queue_ns + NS_PER_S - 1) / NS_PER_S;
    overload_count(why);
    r->upstream = NULL;
    fields_set(&r->x->res.fields, SLICE("Retry-After"),
               arena_printf(r->x->arena, "%llu", (unsigned long long)seconds));
    r->error = exchange_fail(r->x, 503, text);
    return gateway_round_error(r, FAILURE_HANDLED, 503, text);
}

static void watch(struct round *r, struct upstream_set set)
{
    bool fixed = set.items == r->g->upstreams;
    if (r->g->source == NULL)
        return; /* since the configuration was loaded */
    for (uint32_t i = 0; i < set.count; i++)
        request_queue_watch(r->g->overload.queue, set.items[i].endpoint, fixed ? (int)i : NO_HINT);
}

/* Until the round has an upstream, or there is none that could have room. */
static enum err wait_for_room(struct round *r, struct upstream_set *set, struct queued *place,
                              int *hint)
{
    uint64_t by = clock_mono_ns() + r->g->overload.queue_ns;
    for (;;) {
        watch(r, *set);
        if (take_room(r, *set, *hint) || !any_full(*set))
            return OK;
        gateway_watch(r);
        TRY(await_turn(r->g->overload.queue, place, by, hint));
        if (r->g->source != NULL)
            TRY(gateway_gather(r, set));
    }
}

static enum err queue_up(struct round *r, struct upstream_set *set)
{
    struct queued *place;
    struct request_queue *q = r->g->overload.queue;
    int hint = NO_HINT;
    uint64_t since = clock_mono_ns();
    if (request_queue_join(q, &place) != OK)
        return refuse(r, QUEUE_FULL, "too many requests wait for an upstream");
    overload_count(QUEUE_WAITED);
    r->failure = FAILURE_NONE;
    enum err e = wait_for_room(r, set, place, &hint);
    bool used = hint >= 0 && r->upstream == &r->g->upstreams[hint];
    /* With a source, a turn may end before the look at its upstreams. */
    request_queue_leave(q, place, e == OK ? !used : r->g->source != NULL, hint);
    r->queued_ns += clock_mono_ns() - since;
    if (fiber_self()->cancelled != OK) {
        r->error = fiber_self()->cancelled;
        return gateway_round_error(r, FAILURE_CLIENT, 499, "the client left");
    }
    if (e == ERR_TIMEOUT)
        return refuse(r, QUEUE_TIME_OVER, "no upstream had room in time");
    return e;
}

enum err admission_choose(struct round *r, struct upstream_set *set)
{
    if (request_queue_length(r->g->overload.queue) == 0 &&
        (take_any(r, *set) || !any_full(*set)))
        return OK;
    return queue_up(r, set);
}
