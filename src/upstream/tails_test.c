/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choices over time, as seeded simulations of ten thousand upstreams: who is slow, fails, or has just come
 * back gets less, at a cost that does not depend on how many there are.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/test.h"
#include "upstream/balance.h"
#include "upstream/retry_budget.h"

TEST("an average follows what comes, fades without news, and a failure weighs")
{
    struct ewma e = {0};
    uint64_t now = 5000 * NS_PER_S, decay = 10 * NS_PER_S;
    CHECK(ewma_read(&e, decay, now) == 0);
    ewma_note(&e, 10 * NS_PER_MS, false, decay, now);
    CHECK(ewma_read(&e, decay, now) == 10 * NS_PER_MS);
    for (int i = 0; i < 3000; i++)
        ewma_note(&e, 30 * NS_PER_MS, false, decay, now += 10 * NS_PER_MS);
    CHECK(ewma_read(&e, decay, now) > 28 * NS_PER_MS && ewma_read(&e, decay, now) <= 30 * NS_PER_MS);
    ewma_note(&e, 1000, true, decay, now);
    CHECK(ewma_read(&e, decay, now) > 110 * NS_PER_MS);
    float before = ewma_read(&e, decay, now);
    now += 10 * NS_PER_S;
    CHECK(ewma_read(&e, decay, now) < before * 0.38F && ewma_read(&e, decay, now) > before * 0.35F);
    CHECK(ewma_read(&e, decay, now + 300 * NS_PER_S) == 0);
    for (int i = 0; i < 20000; i++) /* all within one moment */
        ewma_note(&e, 2 * NS_PER_MS, false, decay, now);
    CHECK(ewma_read(&e, decay, now) < before * 0.36F);
}

/* --- a simulation: requests come one by one, and end when their time has come --- */

enum { MANY = 10000, WHEEL = 4096 };

static struct sim {
    struct upstream items[MANY];
    uint32_t count;
    uint64_t latency_ns[MANY], now_ns, total_ns;
    unsigned asked[MANY];
    bool fails[MANY];
    struct request {
        struct request *next;
        uint32_t index;
    } *wheel[WHEEL]; /* by the millisecond of their end */
    uint64_t wheel_ms;
} sim;

static void sim_begin(uint32_t count, const char *name)
{
    memset(&sim, 0, sizeof sim);
    balance_seed(42);
    sim.count = count;
    sim.now_ns = 1000 * NS_PER_S;
    sim.wheel_ms = sim.now_ns / NS_PER_MS;
    for (uint32_t i = 0; i < count; i++) {
        char text[32];
        snprintf(text, sizeof text, "%s-%u", name, i);
        sim.items[i].endpoint = endpoint_ref(slice_from(text));
        sim.latency_ns[i] = 10 * NS_PER_MS;
    }
}

static void end_requests(struct request **list, uint64_t decay_ns)
{
    for (struct request *r; (r = *list) != NULL; mem_free(r)) {
        *list = r->next;
        ewma_note(&sim.items[r->index].endpoint->ewma, sim.latency_ns[r->index],
                  sim.fails[r->index], decay_ns, sim.now_ns);
        endpoint_count(sim.items[r->index].endpoint, -1);
    }
}

static void sim_pass(uint64_t ns, uint64_t decay_ns)
{
    sim.now_ns += ns;
    while (sim.wheel_ms < sim.now_ns / NS_PER_MS)
        end_requests(&sim.wheel[sim.wheel_ms++ % WHEEL], decay_ns);
}

static void sim_ask(const struct upstream *u)
{
    struct request *r = NEW(struct request);
    r->index = (uint32_t)(u - sim.items);
    uint64_t at = (sim.now_ns + sim.latency_ns[r->index]) / NS_PER_MS;
    struct request **list = &sim.wheel[at % WHEEL];
    r->next = *list;
    *list = r;
    sim.asked[r->index]++;
    sim.total_ns += sim.latency_ns[r->index];
    endpoint_count(u->endpoint, 1);
}

static void sim_end(void)
{
    for (int i = 0; i < WHEEL; i++)
        end_requests(&sim.wheel[i], NS_PER_S);
    for (uint32_t i = 0; i < sim.count; i++) {
        CHECK_INT(endpoint_requests(sim.items[i].endpoint), 0);
        endpoint_unref(sim.items[i].endpoint);
    }
}

static struct upstream_set sim_set(void)
{
    return (struct upstream_set){sim.items, sim.count};
}

static unsigned asked_of(uint32_t from, uint32_t step)
{
    unsigned n = 0;
    for (uint32_t i = from; i < sim.count; i += step)
        n += sim.asked[i];
    return n;
}

TEST("of ten thousand upstreams the slow and the failing ones get few requests by p2c_ewma")
{
    static const uint64_t decay = 10 * NS_PER_S;
    enum { REQUESTS = 600000 };
    uint64_t looks[2];
    for (int size = 0; size < 2; size++) {
        sim_begin(size == 0 ? 1000 : MANY, "p2c");
        for (uint32_t i = 0; i < sim.count; i += 10) {
            sim.latency_ns[i] = 200 * NS_PER_MS; /* slow */
            sim.latency_ns[i + 1] = NS_PER_MS;   /* fails, and quickly */
            sim.fails[i + 1] = true;
        }
        balance_looks = 0;
        for (int i = 0; i < REQUESTS; i++) {
            sim_pass(NS_PER_S / (30 * sim.count), decay); /* 30 a second for each */
            sim_ask(balance_p2c(sim_set(), decay, sim.now_ns));
        }
        looks[size] = balance_looks;
        CHECK(asked_of(0, 10) < REQUESTS / 25); /* a tenth of the upstreams each */
        CHECK(asked_of(1, 10) < REQUESTS / 25);
        CHECK(sim.total_ns / REQUESTS < 16 * NS_PER_MS); /* at random it is 28.1 */
        sim_end();
    }
    CHECK_INT(looks[0], looks[1]);
}

TEST("retries are a share of the requests and a few each second, whatever fails")
{
    struct retry_budget b;
    uint64_t now = 77 * NS_PER_S;
    int taken = 0;
    retry_budget_init(&b, 0.2, 0);
    for (int i = 0; i < 10000; i++) { /* each fails, and would be tried three times more */
        retry_budget_add(&b);
        for (int n = 0; n < 3; n++)
            taken += retry_budget_take(&b, now);
        CHECK(taken * 5 <= i + 1);
    }
    CHECK_INT(taken, 2000);
    for (int i = 0; i < 100000; i++) /* a good day */
        retry_budget_add(&b);
    for (taken = 0; retry_budget_take(&b, now);)
        taken++;
    CHECK_INT(taken, BUDGET_SAVED_MAX);
    retry_budget_init(&b, 0.1, 3);
    for (taken = 0; retry_budget_take(&b, now);)
        taken++;
    CHECK_INT(taken, 3);
    CHECK(!retry_budget_take(&b, now + NS_PER_S / 2) && retry_budget_take(&b, now + NS_PER_S));
}

/* --- slow start --- */

enum slow_policy { SLOW_RANDOM, SLOW_CHOOSE, SLOW_LEAST, SLOW_TURNS, SLOW_WEIGHTS, SLOW_P2C, SLOW_POLICIES };

static uint64_t slow_sums[MANY];

static const struct upstream *choose_slowly(enum slow_policy policy, uint64_t decay_ns)
{
    static atomic_uint turn;
    switch (policy) {
    case SLOW_RANDOM:
        return balance_random(sim_set(), sim.now_ns);
    case SLOW_CHOOSE:
        return balance_choose(sim_set(), 2, sim.now_ns);
    case SLOW_LEAST:
        return balance_least(sim_set(), sim.now_ns);
    case SLOW_TURNS:
        return balance_round_robin(sim_set(), &turn, sim.now_ns);
    case SLOW_WEIGHTS:
        return balance_weighted(sim_set(), slow_sums, &turn, sim.now_ns);
    default:
        return balance_p2c(sim_set(), decay_ns, sim.now_ns);
    }
}

/* Each thirty-seventh came back just now. Their part of what is fair, second by second, of ten. */
static void play_return(enum slow_policy policy, uint32_t count, uint64_t gap_ns, float parts[10])
{
    enum { STEP = 37 };
    static const uint64_t decay = 2 * NS_PER_S;
    sim_begin(count, "slow");
    for (uint32_t i = 0; i < count; i++) {
        slow_sums[i] = i + 1;
        sim.items[i].slow_ns = 10 * NS_PER_S;
        endpoint_came_back(sim.items[i].endpoint,
                           i % STEP == 5 ? sim.now_ns : sim.now_ns - 20 * NS_PER_S);
        ewma_note(&sim.items[i].endpoint->ewma, sim.latency_ns[i], false, decay, sim.now_ns);
    }
    for (int second = 0; second < 10; second++) {
        unsigned before = asked_of(5, STEP), all = 0;
        for (uint64_t end = sim.now_ns + NS_PER_S; sim.now_ns < end; all++) {
            sim_pass(gap_ns, decay);
            sim_ask(choose_slowly(policy, decay));
        }
        uint32_t back = (count - 6) / STEP + 1;
        parts[second] = (float)(asked_of(5, STEP) - before) / ((float)all * (float)back / (float)count);
    }
    sim_end();
}

static void check_rise(enum slow_policy policy, const float parts[10])
{
    float sum = 0;
    for (int i = 0; i < 10; i++) {
        sum += parts[i];
        if (parts[i] < (float)i / 10 - 0.3F || parts[i] > (float)(i + 1) / 10 + 0.3F)
            test_fail(__FILE__, __LINE__, "policy %d, second %d: %.2f of what is fair", policy, i,
                      (double)parts[i]);
    }
    if (parts[0] > 0.25F || parts[9] < 0.75F || sum < 3.5F || sum > 6.5F)
        test_fail(__FILE__, __LINE__, "policy %d: from %.2f to %.2f, %.2f in all", policy,
                  (double)parts[0], (double)parts[9], (double)sum);
}

TEST("the share of upstreams that came back rises from little to full, by each policy, busy or not")
{
    float parts[10];
    for (int policy = 0; policy < SLOW_POLICIES; policy++) {
        play_return((enum slow_policy)policy, 200, NS_PER_S / 8000, parts); /* half a request each */
        check_rise((enum slow_policy)policy, parts);
        if (policy != SLOW_LEAST && policy != SLOW_CHOOSE) /* these know no half request: see below */
            continue;
        play_return((enum slow_policy)policy, 40, NS_PER_S / 24000, parts); /* six each */
        check_rise((enum slow_policy)policy, parts);
    }
}

TEST("a start of all at once, and of one alone, is served as any other, at the same cost for many")
{
    uint64_t looks[2];
    for (int size = 0; size < 2; size++) {
        sim_begin(size == 0 ? 1000 : MANY, "all");
        for (uint32_t i = 0; i < sim.count; i++) {
            slow_sums[i] = i + 1;
            sim.items[i].slow_ns = 10 * NS_PER_S;
            endpoint_came_back(sim.items[i].endpoint, sim.now_ns);
        }
        balance_looks = 0;
        for (int i = 0; i < 6000; i++)
            CHECK(choose_slowly((enum slow_policy)(i % SLOW_POLICIES), NS_PER_S) != NULL);
        looks[size] = balance_looks;
        sim.count = 1;
        for (int i = 0; i < SLOW_POLICIES; i++)
            CHECK(choose_slowly((enum slow_policy)i, NS_PER_S) == &sim.items[0]);
        sim.count = size == 0 ? 1000 : MANY;
        sim_end();
    }
    CHECK(looks[1] < looks[0] * 5 / 4);
}

TEST("failures mark an upstream until as many of them are forgotten as make it usable")
{
    struct endpoint *e = endpoint_ref(SLICE("marked"));
    CHECK_INT(endpoint_marked_until(e, 1, 5), 0);
    endpoint_fail(e, 1, 100);
    endpoint_fail(e, 1, 200);
    CHECK_INT(endpoint_marked_until(e, 3, 5), 0);
    CHECK_INT(endpoint_marked_until(e, 2, 5), 100);
    CHECK_INT(endpoint_marked_until(e, 1, 5), 200);
    endpoint_unref(e);
}

static struct retry_budget shared_budget;
static atomic_int given;

static void *spend(void *arg)
{
    for (int i = 0; i < 10000; i++) {
        retry_budget_add(&shared_budget);
        for (int n = 0; n < 3; n++)
            atomic_fetch_add(&given, retry_budget_take(&shared_budget, NS_PER_S));
    }
    return arg;
}

TEST("a budget is kept over threads")
{
    pthread_t threads[4];
    retry_budget_init(&shared_budget, 0.2, 5);
    for (int i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, spend, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(atomic_load(&given) <= 8005 && atomic_load(&given) >= 7500);
}
