/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second attempt at another upstream while the first is still waited for (ours, not Caddy's):
 *
 *     {"hedge": {"after": "50ms" or "p95", "max": 0.1, "idempotent": false}}
 *
 * A request that may be hedged runs as a race: each attempt is a copy of the round on a fiber of its
 * own, from the link to the first head of an answer, and the exchange's fiber waits for both. Whoever has
 * a head first wins; its copy becomes the round, whose answer goes down as always. The other is
 * cancelled wherever it waits, and closes its link (a half-sent request cannot be taken back); its fiber
 * reads the round, so that the exchange does not end before it.
 *
 *   begin → first ─────── head? ──────────────→ adopt
 *             └ `after` → second (budget, another upstream) ─ head? → adopt; the first is cancelled
 *
 * An interim answer is a head, too: from then on the client has heard something. A 5xx of the second counts
 * only when the first has failed: the quickest answer of a cluster in trouble is an error. What one that
 * was cancelled would have taken is not known; it has taken as long as it was waited for at least, and
 * that is what latencies are told.
 *
 * The budget is a share of the requests that could be hedged: each earns as much, and a hedge costs one.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "loop/await.h"
#include "proxy/gateway.h"
#include "upstream/quantile.h"

#define AFTER_MIN_NS NS_PER_MS    /* a loop's timers are no finer */
#define AGAIN_NS (10 * NS_PER_MS) /* until a hedge that could not be sent is looked at anew, at least */

enum {
    HEDGE_COST = 1000000, /* in parts of a request */
    SAVED_MAX = 100,      /* hedges that quiet times may save up for a bad moment */
};

struct hedge {
    uint64_t after_ns;          /* 0: by quantile */
    struct quantile *latencies; /* of first attempts; NULL: not asked for */
    int earned;                 /* per request */
    bool idempotent;            /* not only safe methods */
    atomic_int credit;
};

struct contender {
    struct round round;
    struct race *race;
    struct fiber *fiber;
    enum err result;
    bool begun, ended, gone;
};

struct race {
    struct contender first, second;
    struct waiter waiter; /* of the exchange's fiber */
    bool put_off;         /* the second was due, and there was no budget, or nobody */
    bool decided;         /* who ends from now on has lost */
    bool abandoned;       /* … since the client has left */
};

static struct {
    atomic_uint_fast64_t sent, won, no_budget, no_upstream;
} counts;

static void count(atomic_uint_fast64_t *n)
{
    atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
}

/* --- configuration --- */

static enum err read_after(struct hedge *h, const json_t *json, struct provision *p)
{
    int64_t ns = 0;
    const json_t *after = json_object_get(json, "after");
    const char *text = json_is_string(after) ? json_string_value(after) : "";
    if (text[0] == 'p') {
        char *end;
        double share = strtod(text + 1, &end) / 100;
        if (text[1] < '0' || text[1] > '9' || *end != '\0' || !(share >= 0.5 && share < 1))
            return provision_fail(p, "hedge: \"after\": %s is no quantile: from p50 to p99.9", text);
        h->latencies = ARENA_NEW(p->arena, struct quantile);
        quantile_init(h->latencies, share);
        return OK;
    }
    TRY(provision_duration(p, json, "after", 0, &ns));
    if (ns <= 0)
        return provision_fail(p, "hedge: \"after\" must be a duration above 0, or a quantile such as p95");
    h->after_ns = (uint64_t)ns > AFTER_MIN_NS ? (uint64_t)ns : AFTER_MIN_NS;
    return OK;
}

enum err hedge_provision(struct gateway *g, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"after", "max", "idempotent", NULL};
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, members));
    struct hedge *h = ARENA_NEW(p->arena, struct hedge);
    const json_t *max = json_object_get(json, "max");
    double share = max != NULL ? json_number_value(max) : 0.1;
    if (max != NULL && (!json_is_number(max) || !(share > 0 && share <= 1)))
        return provision_fail(p, "hedge: \"max\" must be a number above 0, and 1 at most");
    h->earned = (int)(share * HEDGE_COST);
    TRY(read_after(h, json, p));
    TRY(provision_bool(p, json, "idempotent", false, &h->idempotent));
    g->hedge = h;
    return OK;
}

/* --- the budget --- */

static void earn(struct hedge *h)
{
    if (atomic_load_explicit(&h->credit, memory_order_relaxed) < SAVED_MAX * HEDGE_COST)
        atomic_fetch_add_explicit(&h->credit, h->earned, memory_order_relaxed);
}

static bool spend(struct hedge *h)
{
    if (atomic_fetch_sub_explicit(&h->credit, HEDGE_COST, memory_order_relaxed) >= HEDGE_COST)
        return true;
    atomic_fetch_add_explicit(&h->credit, HEDGE_COST, memory_order_relaxed);
    return false;
}

static void give_back(struct hedge *h)
{
    atomic_fetch_add_explicit(&h->credit, HEDGE_COST, memory_order_relaxed);
}

/* --- contenders --- */

static bool is_safe(const struct round *r)
{
    return slice_is(r->method, "GET") || slice_is(r->method, "HEAD") || slice_is(r->method, "OPTIONS");
}

bool hedge_fits(const struct round *r)
{
    const struct hedge *h = r->g->hedge;
    return r->set.count > 1 && !r->hedged && !r->upgrade && (!r->has_body || r->body_whole) &&
           (is_safe(r) || (h->idempotent && gateway_idempotent(r)));
}

/* Its place among its upstream's requests is given up with it. */
static void put_away(struct contender *c)
{
    struct round *r = &c->round;
    c->gone = true;
    if (c->result == OK)
        gateway_learn(r, OK);
    else if (r->failure != FAILURE_CLIENT)
        gateway_learn_failure(r);
    else if (!c->race->abandoned) /* it took that long, at least */
        gateway_learn_beaten(r);
    gateway_drop_link(r);
    endpoint_done(r->upstream->endpoint);
}

static void contend(void *arg)
{
    struct contender *c = arg;
    struct race *race = c->race;
    c->fiber = fiber_self();
    c->result = gateway_round_trip(&c->round);
    c->round.latency_ns = loop_now_ns(loop_self()) - c->round.attempt_ns;
    if (c->result != OK) /* the other may take long */
        gateway_drop_link(&c->round);
    if (race->decided || (c == &race->second && c->result != OK)) /* two errors: the first is told */
        put_away(c);
    c->ended = true;
    waiter_wake(&race->waiter, OK);
}

static void start_fiber(void *arg)
{
    struct contender *c = arg;
    c->begun = fiber_start(loop_self(), contend, c) == OK;
}

static void copy_round(struct contender *c, struct race *race, const struct round *r)
{
    c->race = race;
    c->round = *r;
    c->round.watching = true; /* the exchange's fiber looks after the client */
    c->round.contends = true;
}

/* Chosen as the policy chooses, but for the first. What a policy says to the client is about that one. */
static bool choose_second(struct contender *c)
{
    struct exchange *x = c->round.x;
    struct exchange_error error = x->error;
    struct gateway_view *view = x->gateway;
    uint32_t fields = x->res.fields.count; /* a cookie */
    x->gateway = &c->round.view;
    bool chosen = gateway_choose_other(&c->round);
    x->gateway = view;
    x->error = error;
    x->res.fields.count = fields;
    return chosen;
}

static void put_off(struct race *race, atomic_uint_fast64_t *why)
{
    if (!race->put_off)
        count(why);
    race->put_off = true;
}

static void send_second(struct race *race, const struct round *r)
{
    struct hedge *h = r->g->hedge;
    struct contender *c = &race->second;
    if (!spend(h)) {
        put_off(race, &counts.no_budget);
        return;
    }
    copy_round(c, race, r);
    bool chosen = choose_second(c);
    if (chosen) {
        c->round.attempt_ns = loop_now_ns(loop_self());
        await_on_loop(start_fiber, c);
    }
    if (c->begun) {
        count(&counts.sent);
        return;
    }
    if (chosen)
        endpoint_done(c->round.upstream->endpoint);
    give_back(h);
    put_off(race, &counts.no_upstream);
}

/* --- the race --- */

static struct contender *winner(struct race *race)
{
    struct contender *a = &race->first, *b = &race->second;
    if (a->ended && a->result == OK)
        return a;
    if (b->ended && b->result == OK && (b->round.interim || b->round.status < 500 || a->ended))
        return b;
    return a->ended && (!b->begun || b->ended) ? a : NULL; /* all have failed */
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* ERR_TIMEOUT at `due`; other errors are the client's leaving. */
static enum err await_winner(struct race *race, struct round *r, uint64_t due)
{
    while (winner(race) == NULL) {
        uint64_t now = loop_now_ns(loop_self()), look = r->watching ? 0 : now + PATIENCE_NS;
        if (due > 0 && now >= due)
            return ERR_TIMEOUT;
        enum err e = await_wake(&race->waiter, sooner(due, look));
        if (e == ERR_TIMEOUT && (due == 0 || loop_now_ns(loop_self()) < due))
            gateway_watch(r);
        else if (e != OK && e != ERR_TIMEOUT)
            return e;
    }
    return OK;
}

static void give_up(struct contender *c)
{
    if (!c->begun || c->gone)
        return;
    if (c->ended)
        put_away(c);
    else
        fiber_cancel(c->fiber, ERR_CANCELLED);
}

static enum err adopt(struct race *race, struct contender *c, struct round *r)
{
    bool watching = r->watching, second = c == &race->second, sent = race->second.begun;
    race->decided = true;
    give_up(second ? &race->first : &race->second);
    *r = c->round;
    r->watching = watching;
    r->contends = false;
    r->race = race;
    r->hedged = sent;
    r->hedge_won = second;
    if (second)
        count(&counts.won);
    return c->result;
}

static enum err client_left(struct race *race, struct round *r, enum err why)
{
    race->decided = race->abandoned = true;
    endpoint_count(r->upstream->endpoint, 1); /* the attempt's end takes one, as the first's does */
    give_up(&race->first);
    give_up(&race->second);
    r->race = race;
    r->hedged = race->second.begun;
    r->error = why;
    return gateway_round_error(r, FAILURE_CLIENT, 499, "context canceled");
}

static void note(struct hedge *h, const struct contender *first)
{
    if (h->latencies == NULL)
        return;
    if (!first->ended)
        quantile_note(h->latencies, loop_now_ns(loop_self()) - first->round.attempt_ns);
    else if (first->result == OK)
        quantile_note(h->latencies, first->round.latency_ns);
}

static enum err run_race(struct race *race, struct round *r, uint64_t after)
{
    enum err e;
    uint64_t due = r->attempt_ns + after, again = after > AGAIN_NS ? after : AGAIN_NS;
    while ((e = await_winner(race, r, race->second.begun ? 0 : due)) == ERR_TIMEOUT) {
        send_second(race, r);
        due = loop_now_ns(loop_self()) + again;
    }
    if (e != OK)
        return client_left(race, r, e);
    note(r->g->hedge, &race->first);
    e = adopt(race, winner(race), r);
    if (e == OK && r->interim) {
        e = gateway_go_on(r);
        r->latency_ns = loop_now_ns(loop_self()) - r->attempt_ns;
    }
    return e;
}

/* As long as too little is known for a quantile. */
static enum err run_alone(struct round *r)
{
    struct hedge *h = r->g->hedge;
    enum err e = gateway_round_trip(r);
    if (e == OK && h->latencies != NULL)
        quantile_note(h->latencies, loop_now_ns(loop_self()) - r->attempt_ns);
    return e;
}

enum err hedge_round_trip(struct round *r)
{
    struct hedge *h = r->g->hedge;
    uint64_t after = h->latencies != NULL ? quantile_ns(h->latencies) : h->after_ns;
    if (r->tries == 0)
        earn(h);
    if (after == 0)
        return run_alone(r);
    struct race *race = ARENA_NEW(r->x->arena, struct race);
    waiter_init(&race->waiter);
    copy_round(&race->first, race, r);
    await_on_loop(start_fiber, &race->first);
    if (!race->first.begun)
        return run_alone(r);
    return run_race(race, r, after > AFTER_MIN_NS ? after : AFTER_MIN_NS);
}

static bool runs(const struct contender *c)
{
    return c->begun && !c->ended;
}

void hedge_join(struct round *r)
{
    struct race *race = r->race;
    r->race = NULL;
    while (runs(&race->first) || runs(&race->second)) {
        waiter_init(&race->waiter);
        race->waiter.fiber = fiber_self();
        fiber_suspend(); /* the other fiber uses the round: nothing may end the wait before */
    }
}

/* --- metrics --- */

void hedges_metrics_put(struct buffer *b)
{
    static const char sent[] = "portico_reverse_proxy_hedged_total";
    static const char won[] = "portico_reverse_proxy_hedges_won_total";
    static const char off[] = "portico_reverse_proxy_hedges_put_off_total";
    (void)!buffer_append_f(b, "# HELP %s Requests that were sent to a second upstream.\n"
                              "# TYPE %s counter\n%s %llu\n", sent, sent, sent,
                           (unsigned long long)atomic_load(&counts.sent));
    (void)!buffer_append_f(b, "# HELP %s Those that the second upstream answered first.\n"
                              "# TYPE %s counter\n%s %llu\n", won, won, won,
                           (unsigned long long)atomic_load(&counts.won));
    (void)!buffer_append_f(b, "# HELP %s Hedges that could not be sent when they were due.\n"
                              "# TYPE %s counter\n%s{reason=\"budget\"} %llu\n"
                              "%s{reason=\"upstream\"} %llu\n", off, off, off,
                           (unsigned long long)atomic_load(&counts.no_budget),
                           off, (unsigned long long)atomic_load(&counts.no_upstream));
}
