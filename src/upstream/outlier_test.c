/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ejection: its reasons, its times, its half; upstreams that come and go; and a seeded simulation of ten
 * thousand upstreams.
 */
#include "upstream/outlier.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/test.h"

enum { MANY = 10000 };

static struct upstream items[MANY];
static struct outliers *outliers;
static uint64_t now;

static const struct eject_rules usual = {
    .in_a_row = 5, .rate_percent = 50, .slow_percent = 300, .min_requests = 20,
    .interval_ns = 10 * NS_PER_S, .base_ns = 30 * NS_PER_S, .max_ns = 300 * NS_PER_S};

static void begin(uint32_t count, const struct eject_rules *rules)
{
    now = 5000 * NS_PER_S;
    balance_seed(7);
    log_set_threshold(LOG_ERROR);
    for (uint32_t i = 0; i < count; i++) {
        char text[32];
        snprintf(text, sizeof text, "o-%u", i);
        items[i] = (struct upstream){.endpoint = endpoint_ref(slice_from(text))};
    }
    outliers = outliers_ref(SLICE("k"), (struct upstream_set){items, count}, rules);
    for (uint32_t i = 0; i < count; i++)
        items[i].outlier = outlier_of(outliers, items[i].endpoint);
}

static void end(uint32_t count)
{
    outliers_unref(outliers);
    for (uint32_t i = 0; i < count; i++) {
        CHECK_INT(items[i].endpoint->refs, 1);
        endpoint_unref(items[i].endpoint);
    }
}

static void note(uint32_t index, unsigned times, bool failed, unsigned ms)
{
    while (times-- > 0)
        outliers_note(outliers, items[index].endpoint, ms * NS_PER_MS, failed, now);
}

TEST("failures in a row eject, a success between them does not; the time doubles up to its limit")
{
    begin(4, &usual);
    note(0, 4, true, 1);
    note(0, 1, false, 1);
    note(0, 4, true, 1);
    CHECK(upstream_well(&items[0], now));
    note(0, 1, true, 1);
    CHECK(!upstream_well(&items[0], now) && !upstream_available(&items[0], now));
    for (unsigned want = 30, i = 0; i < 6; i++) {
        CHECK(!upstream_well(&items[0], now + want * NS_PER_S - 1));
        CHECK_INT(atomic_load(&items[0].endpoint->back_ns), now + want * NS_PER_S);
        now += want * NS_PER_S;
        CHECK(upstream_well(&items[0], now));
        CHECK_INT(outliers_ejected(outliers, now), 0);
        note(0, 5, true, 1);
        want = want * 2 < 300 ? want * 2 : 300;
    }
    now += 601 * NS_PER_S; /* it was well for long enough */
    note(0, 5, true, 1);
    CHECK(upstream_well(&items[0], now + 30 * NS_PER_S));
    end(4);
}

TEST("never more than half are ejected: of one none, of two one, of five two")
{
    static const uint32_t sizes[] = {1, 2, 3, 5, 100};
    for (int s = 0; s < 5; s++) {
        begin(sizes[s], &usual);
        for (uint32_t i = 0; i < sizes[s]; i++)
            note(i, 50, true, 1);
        CHECK_INT(outliers_ejected(outliers, now), sizes[s] / 2);
        for (int round = 0; round < 20; round++) {
            now += 15 * NS_PER_S;
            for (uint32_t i = 0; i < sizes[s]; i++)
                note(i, 50, true, 1);
            CHECK(outliers_ejected(outliers, now) <= sizes[s] / 2);
        }
        end(sizes[s]);
    }
}

TEST("a rate of failures, or a latency far above the median, ejects at the end of an interval")
{
    begin(5, &usual);
    note(0, 1, false, 1); /* an interval begins */
    for (int i = 0; i < 30; i++) {
        for (uint32_t u = 0; u < 5; u++)
            note(u, 1, u == 1 && i % 2 == 0, u == 2 ? 100 : u == 3 ? 28 : 10);
        note(4, 1, false, 10);
    }
    CHECK_INT(outliers_ejected(outliers, now), 0);
    now += 10 * NS_PER_S;
    note(0, 1, false, 10);
    CHECK(!upstream_well(&items[1], now) && !upstream_well(&items[2], now));
    CHECK(upstream_well(&items[0], now) && upstream_well(&items[3], now));
    now += 40 * NS_PER_S; /* too few to judge, then nothing bad */
    note(1, 10, true, 1);
    note(1, 1, false, 1);
    end(5);
}

TEST("equal sets under equal rules are one")
{
    begin(2, &usual);
    struct outliers *again = outliers_ref(SLICE("k"), (struct upstream_set){items, 2}, &usual);
    CHECK(again == outliers);
    note(0, 5, true, 1);
    CHECK_INT(outliers_ejected_now(now), 1);
    struct outliers *other = outliers_ref(SLICE("other"), (struct upstream_set){items, 2}, &usual);
    CHECK(other != outliers);
    outliers_unref(other);
    outliers_unref(again);
    end(2);
}

/* --- upstreams that are found --- */

static void begin_found(uint32_t count, const struct eject_rules *rules)
{
    begin(0, rules);
    for (uint32_t i = 0; i < count; i++) {
        char text[32];
        snprintf(text, sizeof text, "f-%u", i);
        items[i] = (struct upstream){.endpoint = endpoint_ref(slice_from(text))};
    }
}

/* A request finds those; how many of them it may not go to. */
static unsigned find(uint32_t first, uint32_t count)
{
    unsigned out = 0;
    outliers_apply(outliers, &items[first], count, 0, now);
    for (uint32_t i = 0; i < count; i++)
        out += !upstream_well(&items[first + i], now);
    return out;
}

TEST("an upstream that is found again is what it was, within the time that it could be ejected")
{
    begin_found(4, &usual);
    CHECK_INT(find(0, 4), 0);
    note(0, 5, true, 1);
    CHECK_INT(find(0, 4), 1);
    for (int i = 0; i < 20; i++) { /* the answer is another one for a while */
        now += NS_PER_S;
        CHECK_INT(find(1, 3), 0);
    }
    CHECK_INT(outliers_ejected(outliers, now), 0); /* it is not there */
    CHECK_INT(find(0, 4), 1);
    now += NS_PER_S / 5;
    CHECK_INT(outliers_ejected(outliers, now), 1);
    now += 10 * NS_PER_S;
    CHECK_INT(find(0, 4), 0);
    note(0, 5, true, 1);
    now += 30 * NS_PER_S;
    CHECK_INT(find(0, 4), 1); /* for 60 seconds this time */
    for (int i = 0; i < 7; i++) {
        now += 60 * NS_PER_S;
        CHECK_INT(find(1, 3), 0);
        note(1, 1, false, 1);
    }
    CHECK_INT(outliers_count(outliers), 3);
    CHECK_INT(find(0, 4), 0);
    note(0, 5, true, 1);
    CHECK_INT(find(0, 4), 1);
    now += 30 * NS_PER_S; /* as if it had never been there before */
    CHECK_INT(find(0, 4), 0);
    end(4);
}

TEST("never more than half of those that are present, whoever goes")
{
    begin_found(8, &usual);
    find(0, 8);
    for (uint32_t i = 0; i < 8; i++)
        note(i, 50, true, 1);
    CHECK_INT(outliers_ejected(outliers, now), 4);
    CHECK_INT(find(0, 8), 4);
    CHECK_INT(find(0, 4), 2); /* another worker has found less */
    CHECK_INT(find(0, 1), 0);
    CHECK_INT(find(0, 3), 1);
    for (int i = 0; i < 6; i++) {
        now += NS_PER_S;
        CHECK_INT(find(0, 4), 2);
    }
    CHECK_INT(outliers_ejected(outliers, now), 2);
    CHECK_INT(find(0, 4), 2);
    for (int i = 0; i < 6; i++) {
        now += NS_PER_S;
        CHECK_INT(find(2, 1), 0);
    }
    CHECK_INT(outliers_ejected(outliers, now), 0);
    end(8);
}

TEST("without requests nothing changes")
{
    begin_found(2, &usual);
    find(0, 2);
    note(0, 5, true, 1);
    now += 20 * NS_PER_S;
    CHECK_INT(outliers_ejected(outliers, now), 1);
    CHECK_INT(find(0, 2), 1);
    now += 20 * NS_PER_S;
    CHECK_INT(outliers_ejected(outliers, now), 0);
    end(2);
}

TEST("what a source finds does not grow without limit")
{
    begin_found(MANY, &usual);
    for (uint32_t i = 0; i + 100 <= MANY; i += 100) {
        now += NS_PER_S / 10; /* all within the time that they are remembered for */
        find(i, 100);
        CHECK(outliers_count(outliers) <= OUTLIERS_MAX);
    }
    CHECK_INT(find(MANY - 100, 100), 0);
    now += 400 * NS_PER_S;
    find(0, 1);
    now += 2 * NS_PER_S;
    find(1, 1);
    CHECK_INT(outliers_count(outliers), 2);
    end(MANY);
}

TEST("latencies are compared within a service, whichever order its upstreams were found in")
{
    begin_found(8, &usual);
    for (int i = 0; i < 3; i++) { /* the first interval: only the slow service's slow one stands out */
        for (uint32_t u = 0; u < 8; u++)
            outliers_apply(outliers, &items[u], 1, 1 + u % 2, now);
        for (uint32_t u = 0; u < 8; u++)
            note(u, 20, false, u == 5 ? 1000 : u % 2 == 1 ? 100 : 10);
        CHECK_INT(outliers_ejected(outliers, now), i > 0);
        now += 10 * NS_PER_S;
        note(0, 1, false, 10);
        CHECK(!upstream_well(&(struct upstream){.endpoint = items[5].endpoint,
                                                .outlier = outlier_of(outliers, items[5].endpoint)},
                             now));
    }
    now += 20 * NS_PER_S;
    CHECK_INT(outliers_ejected(outliers, now), 0);
    outliers_apply(outliers, items, 8, 3, now); /* all of one now: slow are those of one before */
    for (uint32_t u = 0; u < 8; u++)
        note(u, 20, false, u > 5 ? 100 : 10);
    now += 10 * NS_PER_S;
    note(0, 1, false, 10);
    CHECK(outlier_ejected(outlier_of(outliers, items[6].endpoint), now) &&
          outlier_ejected(outlier_of(outliers, items[7].endpoint), now) &&
          !outlier_ejected(outlier_of(outliers, items[1].endpoint), now));
    end(8);
}

TEST("who is another server now is not held to what was")
{
    begin_found(4, &usual);
    find(0, 4);
    note(0, 5, true, 1);
    note(1, 4, true, 1);
    CHECK_INT(find(0, 4), 1);
    outliers_forgive(items[0].endpoint);
    outliers_forgive(items[1].endpoint);
    note(1, 4, true, 1);
    CHECK_INT(find(0, 4), 0);
    CHECK_INT(outliers_ejected(outliers, now), 0);
    end(4);
}

TEST("what hangs on an endpoint does not grow with configurations")
{
    unsigned records = 0;
    begin_found(2, &usual);
    for (int i = 0; i < 50; i++) {
        char key[16];
        snprintf(key, sizeof key, "again %d", i);
        struct outliers *next = outliers_ref(slice_from(key), (struct upstream_set){0}, &usual);
        outliers_apply(next, items, 2, 0, now);
        outliers_unref(outliers);
        outliers = next;
    }
    for (struct outlier *u = atomic_load(&items[0].endpoint->outliers); u != NULL; u = u->next)
        records++;
    CHECK(records <= 2);
    end(2);
}

/* Every tenth fails six of ten requests, every tenth is ten times as slow. */
TEST("of ten thousand upstreams those that do worse are ejected and the others are not")
{
    static unsigned bad, good, ejected_bad, ejected_good;
    begin(MANY, &usual);
    struct upstream_set set = {items, MANY};
    uint64_t random = 99;
    balance_looks = 0;
    for (int i = 0; i < 100 * MANY; i++) {
        now += 25 * NS_PER_S / (100 * MANY);
        const struct upstream *u = balance_random(set, now);
        uint32_t index = (uint32_t)(u - items);
        random = random * 6364136223846793005 + 1442695040888963407;
        outliers_note(outliers, u->endpoint,
                      (index % 10 == 4 ? 100 : 8 + (random >> 60) / 3) * NS_PER_MS,
                      index % 10 == 3 ? (random >> 33 & 63) > 25 : (random >> 33 & 127) == 0,
                      now);
    }
    CHECK(balance_looks < 130 * MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        bool is_bad = i % 10 == 3 || i % 10 == 4, out = !upstream_well(&items[i], now);
        bad += is_bad;
        good += !is_bad;
        ejected_bad += is_bad && out;
        ejected_good += !is_bad && out;
    }
    CHECK(ejected_bad > bad * 70 / 100);
    CHECK(ejected_good < good / 1000);
    for (int round = 0; round < 3; round++) { /* and when all fail, half stay */
        for (uint32_t i = 0; i < MANY; i++)
            note(i, 5, true, 1);
        CHECK_INT(outliers_ejected(outliers, now), MANY / 2);
        CHECK(balance_random(set, now) != NULL);
    }
    end(MANY);
}

/* --- several threads --- */

static atomic_int too_many;

static void *fail_all(void *arg)
{
    uint64_t at = now;
    for (int i = 0; i < 20000; i++) {
        at += NS_PER_MS; /* twenty seconds: several intervals */
        outliers_note(outliers, items[(i * 7 + (int)(intptr_t)arg) % 20].endpoint, NS_PER_MS, i % 9 != 0,
                      at);
        if (i % 100 == 0 && outliers_ejected(outliers, at) > 10)
            atomic_fetch_add(&too_many, 1);
    }
    return NULL;
}

TEST("never more than half, whichever threads see the failures")
{
    pthread_t threads[4];
    struct eject_rules quick = usual;
    quick.interval_ns = NS_PER_S;
    quick.base_ns = NS_PER_S / 2;
    begin(20, &quick);
    for (intptr_t i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, fail_all, (void *)i), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(atomic_load(&too_many), 0);
    end(20);
}

static void *come_and_go(void *arg)
{
    struct upstream own[8];
    uint64_t at = now;
    uint32_t shift = (uint32_t)(intptr_t)arg * 3;
    for (int i = 0; i < 5000; i++) {
        uint32_t first = shift + (uint32_t)i / 50;
        at += 20 * NS_PER_MS;
        for (uint32_t k = 0; k < 8; k++)
            own[k] = (struct upstream){.endpoint = items[(first + k) % 40].endpoint};
        outliers_apply(outliers, own, 8, 0, at);
        if (balance_random((struct upstream_set){own, 8}, at) == NULL)
            atomic_fetch_add(&too_many, 1);
        outliers_note(outliers, own[i % 8].endpoint, NS_PER_MS, i % 9 != 0, at);
        if (i % 500 == 499)
            outliers_forgive(own[0].endpoint);
    }
    return NULL;
}

TEST("threads that find others than each other")
{
    pthread_t threads[4];
    struct eject_rules quick = usual;
    quick.interval_ns = NS_PER_S;
    quick.base_ns = quick.max_ns = 2 * NS_PER_S;
    atomic_store(&too_many, 0);
    begin_found(40, &quick);
    for (intptr_t i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, come_and_go, (void *)i), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(atomic_load(&too_many), 0);
    end(40);
}
