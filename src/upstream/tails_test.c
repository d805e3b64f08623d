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
