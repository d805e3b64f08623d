/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared records and the policies as values; links on both back ends, against the other ends of
 * socket pairs.
 */
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/test.h"
#include "loop/await.h"
#include "upstream/balance.h"
#include "upstream/iobuf.h"
#include "upstream/link.h"
#include "upstream/quantile.h"

TEST("a name has one record for as long as somebody holds it")
{
    struct endpoint *a = endpoint_ref(SLICE("a:80")), *b = endpoint_ref(SLICE("a:80"));
    struct endpoint *c = endpoint_ref(SLICE("c:80"));
    CHECK(a == b && a != c && a->index != c->index && a->hash != c->hash);
    endpoint_count(a, 3);
    endpoint_unref(b);
    b = endpoint_ref(SLICE("a:80"));
    CHECK_INT(endpoint_requests(b), 3);
    uint64_t serial = a->serial;
    endpoint_unref(a);
    endpoint_unref(b);
    a = endpoint_ref(SLICE("a:80"));
    CHECK(a->serial != serial);
    CHECK_INT(endpoint_requests(a), 0);
    endpoint_unref(a);
    endpoint_unref(c);
}

static bool near(uint64_t got, uint64_t want)
{
    return got >= want && got <= want + want / QUANTILE_STEPS;
}

TEST("a quantile is known to an eighth, and moves with what is noted")
{
    struct quantile q;
    quantile_init(&q, 0.95);
    for (unsigned i = 1; i < QUANTILE_FEWEST; i++)
        quantile_note(&q, 1000000);
    CHECK_INT(quantile_ns(&q), 0);
    quantile_note(&q, 1000000);
    CHECK(near(quantile_ns(&q), 1000000));
    for (unsigned i = 0; i < 100 * QUANTILE_FEWEST; i++) /* 1 … 100 ms, evenly */
        quantile_note(&q, (i % 100 + 1) * 1000000);
    CHECK(near(quantile_ns(&q), 95000000));
    for (unsigned i = 0; i < 2 * QUANTILE_FADES; i++) /* slower ones */
        quantile_note(&q, i % 10 == 0 ? 900000000 : 300000000);
    CHECK(near(quantile_ns(&q), 900000000));
    for (unsigned i = 0; i < 8 * QUANTILE_FADES; i++) /* and quick ones again */
        quantile_note(&q, 2000000);
    CHECK(near(quantile_ns(&q), 2000000));
}

TEST("durations beyond a quantile's buckets are the first and the last of them")
{
    struct quantile q;
    quantile_init(&q, 0.5);
    for (unsigned i = 0; i < QUANTILE_FEWEST; i++)
        quantile_note(&q, i % 2);
    CHECK(quantile_ns(&q) > 0 && quantile_ns(&q) <= (2u << QUANTILE_LOWEST));
    quantile_init(&q, 0.99);
    for (unsigned i = 0; i < QUANTILE_FEWEST; i++)
        quantile_note(&q, i % 2 == 0 ? UINT64_MAX : UINT64_C(1) << QUANTILE_HIGHEST);
    CHECK(quantile_ns(&q) >= UINT64_C(1) << QUANTILE_HIGHEST);
}

TEST("an upstream that is avoided is not chosen, by any policy")
{
    struct upstream u[3] = {{0}};
    struct upstream_set set = {u, 3};
    for (unsigned i = 0; i < 3; i++)
        u[i].endpoint = endpoint_ref(slice_of(&"xyz"[i], 1));
    atomic_uint turn = 0;
    balance_avoided = u[0].endpoint;
    for (unsigned i = 0; i < 50; i++) {
        CHECK(balance_random(set, 1) != &u[0] && balance_least(set, 1) != &u[0]);
        CHECK(balance_round_robin(set, &turn, 1) != &u[0] && balance_first(set, 1) == &u[1]);
        CHECK(balance_hash(set, slice_of((char *)&i, sizeof i), 1) != &u[0]);
    }
    CHECK(balance_random((struct upstream_set){u, 1}, 1) == NULL);
    balance_avoided = NULL;
    CHECK(balance_first(set, 1) == &u[0]);
    for (unsigned i = 0; i < 3; i++)
        endpoint_unref(u[i].endpoint);
}

TEST("failures are forgotten one by one, whatever their order")
{
    struct endpoint *e = endpoint_ref(SLICE("f"));
    endpoint_fail(e, 0, 100);
    endpoint_fail(e, 0, 50);
    endpoint_fail(e, 0, 200);
    CHECK_INT(endpoint_fails(e, 10), 3);
    CHECK_INT(endpoint_fails(e, 60), 2);
    CHECK_INT(endpoint_fails(e, 100), 1);
    CHECK_INT(endpoint_fails(e, 200), 0);
    for (int i = 0; i < ENDPOINT_FAILS_MAX + 10; i++)
        endpoint_fail(e, 0, 1000);
    CHECK_INT(endpoint_fails(e, 999), ENDPOINT_FAILS_MAX);
    CHECK_INT(endpoint_fails(e, 1000), 0);
    endpoint_unref(e);
}

static void count_shown(const struct endpoint *e, void *arg)
{
    *(int *)arg += atomic_load(&e->shown) > 0;
}

TEST("endpoints are told of while somebody shows them, and so many are measured by themselves")
{
    static struct endpoint *list[ENDPOINTS_MEASURED + 3];
    int shown = 0, own = 0;
    struct latency_sum sum = {0};
    for (int i = 0; i < ENDPOINTS_MEASURED + 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        list[i] = endpoint_ref(slice_from(name));
        endpoint_measure(list[i], 2);
        own += list[i]->latency != endpoints_other_latency();
    }
    CHECK_INT(own, ENDPOINTS_MEASURED);
    endpoint_show(list[0]);
    endpoint_show(list[0]);
    endpoint_show(list[1]);
    endpoint_hide(list[0]);
    endpoints_each(count_shown, &shown);
    CHECK_INT(shown, 2);
    latency_note(list[5]->latency, 0, 500000);
    latency_note(list[5]->latency, 1, 500001);
    latency_note(list[5]->latency, 1, UINT64_C(99000000000));
    latency_add_up(list[5]->latency, &sum);
    CHECK_INT(sum.at[0], 1);
    CHECK_INT(sum.at[1], 1);
    CHECK_INT(sum.at[LATENCY_BOUNDS], 1);
    CHECK_INT(sum.count, 3);
    CHECK_INT(sum.total_ns, 99001000001);
    for (int i = 0; i < ENDPOINTS_MEASURED + 3; i++)
        endpoint_unref(list[i]);
    struct endpoint *again = endpoint_ref(SLICE("again"));
    endpoint_measure(again, 2);
    CHECK(again->latency != endpoints_other_latency());
    endpoint_unref(again);
}

struct three {
    struct upstream items[3];
    struct upstream_set set;
};

static void make_three(struct three *t)
{
    static const char *const names[] = {"one", "two", "three"};
    for (int i = 0; i < 3; i++)
        t->items[i] = (struct upstream){.endpoint = endpoint_ref(slice_from(names[i]))};
    t->set = (struct upstream_set){t->items, 3};
}

static void drop_three(struct three *t)
{
    for (int i = 0; i < 3; i++)
        endpoint_unref(t->items[i].endpoint);
}

TEST("first, round robin and least pass over what is full or failed")
{
    struct three t;
    atomic_uint turn = 0;
    make_three(&t);
    CHECK(balance_first(t.set, 1) == &t.items[0]);
    t.items[0].max_requests = 1;
    endpoint_count(t.items[0].endpoint, 1);
    CHECK(balance_first(t.set, 1) == &t.items[1]);
    t.items[1].max_fails = 1;
    endpoint_fail(t.items[1].endpoint, 1, 100);
    CHECK(balance_first(t.set, 1) == &t.items[2]);
    for (int i = 0; i < 5; i++) {
        CHECK(balance_round_robin(t.set, &turn, 1) == &t.items[2]);
        CHECK(balance_least(t.set, 1) == &t.items[2]);
        CHECK(balance_random(t.set, 1) == &t.items[2]);
        CHECK(balance_choose(t.set, 2, 1) == &t.items[2]);
        CHECK(balance_hash(t.set, SLICE("x"), 1) == &t.items[2]);
    }
    t.items[2].max_requests = 1;
    endpoint_count(t.items[2].endpoint, 1);
    CHECK(balance_round_robin(t.set, &turn, 1) == NULL && balance_random(t.set, 1) == NULL);
    CHECK(balance_least(t.set, 1) == NULL && balance_hash(t.set, SLICE("x"), 1) == NULL);
    CHECK(balance_first(t.set, 100) == &t.items[1]);
    drop_three(&t);
}

TEST("an upstream that a check found unhealthy is passed over")
{
    struct three t;
    atomic_bool ill[3] = {true, false, true};
    make_three(&t);
    for (int i = 0; i < 3; i++)
        t.items[i].unhealthy = &ill[i];
    CHECK(balance_first(t.set, 1) == &t.items[1]);
    CHECK(balance_hash(t.set, SLICE("x"), 1) == &t.items[1]);
    atomic_store(&ill[1], true);
    CHECK(balance_random(t.set, 1) == NULL && balance_least(t.set, 1) == NULL);
    atomic_store(&ill[0], false);
    CHECK(balance_first(t.set, 1) == &t.items[0]);
    drop_three(&t);
}

TEST("least takes the one with the fewest requests, random reaches all, weights count")
{
    struct three t;
    atomic_uint turn = 0;
    int hits[3] = {0}, weighted[3] = {0};
    static const uint64_t weights[3] = {5, 5, 6};
    make_three(&t);
    endpoint_count(t.items[0].endpoint, 2);
    endpoint_count(t.items[1].endpoint, 1);
    endpoint_count(t.items[2].endpoint, 2);
    CHECK(balance_least(t.set, 1) == &t.items[1]);
    CHECK(balance_choose(t.set, 3, 1) == &t.items[1]);
    for (int i = 0; i < 300; i++)
        hits[balance_random(t.set, 1) - t.items]++;
    CHECK(hits[0] > 50 && hits[1] > 50 && hits[2] > 50);
    for (int i = 0; i < 60; i++)
        weighted[balance_weighted(t.set, weights, &turn, 1) - t.items]++;
    CHECK_INT(weighted[0], 50);
    CHECK_INT(weighted[1], 0);
    CHECK_INT(weighted[2], 10);
    drop_three(&t);
}

TEST("rendezvous hashing moves only what its upstream leaves behind")
{
    struct three t;
    int moved = 0;
    make_three(&t);
    struct upstream_set two = {t.items, 2};
    for (int i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "key-%d", i);
        const struct upstream *before = balance_hash(t.set, slice_from(key), 1);
        const struct upstream *after = balance_hash(two, slice_from(key), 1);
        CHECK(before == after || before == &t.items[2]);
        moved += before != after;
    }
    CHECK(moved > 30 && moved < 110);
    drop_three(&t);
}

/* --- many --- */

enum { MANY = 10000 };

static struct upstream many[MANY];
static uint64_t many_sums[MANY];
static atomic_bool many_ill[MANY];

static void make_many(void)
{
    for (int i = 0; i < MANY; i++) {
        char name[24];
        snprintf(name, sizeof name, "10.0.%d.%d:80", i / 250, i % 250);
        many[i] = (struct upstream){.endpoint = endpoint_ref(slice_from(name)),
                                    .unhealthy = &many_ill[i], .max_fails = 1};
        many_sums[i] = (i > 0 ? many_sums[i - 1] : 0) + 1 + (uint64_t)i % 3;
        atomic_store(&many_ill[i], i % 4 == 1);
    }
}

static void drop_many(void)
{
    for (int i = 0; i < MANY; i++)
        endpoint_unref(many[i].endpoint);
}

enum policy { RANDOM, CHOOSE, LEAST, ROBIN, WEIGHTED, RING, POLICIES };

static const struct upstream *choose_by(enum policy policy, uint32_t count, struct hash_ring *ring,
                                        int n)
{
    static atomic_uint turn;
    char key[16];
    struct upstream_set s = {many, count};
    snprintf(key, sizeof key, "%d", n);
    switch (policy) {
    case RANDOM:
        return balance_random(s, 1);
    case CHOOSE:
        return balance_choose(s, 2, 1);
    case LEAST:
        return balance_least(s, 1);
    case ROBIN:
        return balance_round_robin(s, &turn, 1);
    case WEIGHTED:
        return balance_weighted(s, many_sums, &turn, 1);
    default:
        return balance_ring(ring, slice_from(key), 1);
    }
}

TEST("what a choice among ten thousand costs is what it costs among a thousand")
{
    make_many();
    for (int policy = 0; policy < POLICIES; policy++) {
        uint64_t looks[2] = {0};
        for (int size = 0; size < 2; size++) {
            uint32_t count = size == 0 ? 1000 : MANY;
            struct hash_ring *ring = hash_ring_create((struct upstream_set){many, count});
            balance_looks = 0;
            for (int i = 0; i < 1000; i++)
                CHECK(!atomic_load(choose_by((enum policy)policy, count, ring, i)->unhealthy));
            looks[size] = balance_looks;
            hash_ring_free(ring);
        }
        CHECK(looks[1] < looks[0] * 5 / 4 && looks[1] < 1000 * 60);
    }
    drop_many();
}

TEST("ten thousand upstreams get their share, and what fails gets none until it is well again")
{
    static int hits[MANY];
    make_many();
    struct hash_ring *ring = hash_ring_create((struct upstream_set){many, MANY});
    for (int policy = 0; policy < POLICIES; policy++) {
        int reached = 0, most = 0;
        memset(hits, 0, sizeof hits);
        for (int i = 0; i < 8 * MANY; i++) {
            const struct upstream *u = choose_by((enum policy)policy, MANY, ring, i);
            hits[u - many]++;
            if (policy == LEAST || policy == CHOOSE) /* requests that stay */
                endpoint_count(u->endpoint, 1);
        }
        for (int i = 0; i < MANY; i++) {
            CHECK(i % 4 != 1 || hits[i] == 0);
            reached += hits[i] > 0;
            most = hits[i] > most ? hits[i] : most;
            endpoint_count(many[i].endpoint, -endpoint_requests(many[i].endpoint));
        }
        CHECK(reached > MANY * 3 / 4 * 95 / 100);
        CHECK(most < (policy == RING ? 80 : 45));
        CHECK(policy != LEAST || most <= 13); /* 10.7 on average */
    }
    hash_ring_free(ring);
    for (int i = 0; i < MANY; i++) { /* nearly all fail, for a while */
        atomic_store(&many_ill[i], false);
        if (i != 7777)
            endpoint_fail(many[i].endpoint, 1, 100);
    }
    struct upstream_set all = {many, MANY};
    CHECK(balance_random(all, 2) == &many[7777] && balance_least(all, 2) == &many[7777]);
    CHECK(balance_choose(all, 2, 2) == &many[7777] && balance_hash(all, SLICE("k"), 2) == &many[7777]);
    CHECK(balance_random(all, 101) != NULL && endpoint_fails(many[0].endpoint, 101) == 0);
    drop_many();
}

TEST("a ring moves only what its upstream leaves behind")
{
    int moved = 0, lost = 0;
    make_many();
    struct hash_ring *ring = hash_ring_create((struct upstream_set){many, 1000});
    for (int i = 0; i < 2000; i++) {
        const struct upstream *before = choose_by(RING, 1000, ring, i);
        atomic_store(&many_ill[400], true);
        const struct upstream *after = choose_by(RING, 1000, ring, i);
        atomic_store(&many_ill[400], false);
        moved += before != after;
        lost += before == &many[400];
    }
    CHECK_INT(moved, lost);
    hash_ring_free(ring);
    drop_many();
}

/* --- links: a scene on each back end --- */

static struct scene {
    struct endpoint *endpoint;
    int peer[4];
    const char *wrong;
} scene;

static const struct link_limits limits = {.idle_per_group = 2, .idle_timeout_ns = NS_PER_S};

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond) && scene.wrong == NULL)                                                        \
            scene.wrong = #cond;                                                                   \
    } while (0)

static struct link *open_link(int i)
{
    int fd[2];
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
    scene.peer[i] = fd[1];
    EXPECT(link_reserve(scene.endpoint, &limits));
    return link_open(SLICE("k"), scene.endpoint, fd[0]);
}

static uint64_t soon(void)
{
    return clock_mono_ns() + 30 * NS_PER_MS;
}

/* What is to come before comes at once, unless the machine is busy with something else. */
static uint64_t late(void)
{
    return clock_mono_ns() + 20 * NS_PER_S;
}

static bool idle_are(unsigned n)
{
    for (uint64_t end = late(); links_idle() != n && clock_mono_ns() < end;)
        EXPECT(await_sleep(soon()) == OK);
    return links_idle() == n;
}

static bool has_news(const struct link *l)
{
    for (uint64_t end = late(); !link_has_news(l) && clock_mono_ns() < end;)
        EXPECT(await_sleep(soon()) == OK);
    return link_has_news(l);
}

static void reuse(void)
{
    static const struct link_limits kept = {.idle_per_group = 2, .idle_timeout_ns = 60 * NS_PER_S};
    struct slice bytes;
    struct link *a = open_link(0), *b = open_link(1);
    EXPECT(link_take(SLICE("k")) == NULL);
    EXPECT(await_link(a, soon(), &bytes) == ERR_TIMEOUT);
    EXPECT(write(scene.peer[0], "hi", 2) == 2);
    EXPECT(await_link(a, late(), &bytes) == OK && slice_is(bytes, "hi"));
    link_give(a, &kept);
    link_give(b, &kept);
    EXPECT(links_idle() == 2);
    EXPECT(link_take(SLICE("k")) == b && link_take(SLICE("other")) == NULL);
    EXPECT(write(scene.peer[1], "x", 1) == 1); /* comes while nobody waits */
    EXPECT(has_news(b));
    EXPECT(await_link(b, late(), &bytes) == OK && slice_is(bytes, "x"));
    close(scene.peer[0]); /* an idle one: gone at once */
    EXPECT(idle_are(0) && link_take(SLICE("k")) == NULL);
    close(scene.peer[1]);
    EXPECT(await_link(b, late(), &bytes) == ERR_CLOSED && b->end == 0);
    EXPECT(await_link(b, late(), &bytes) == ERR_CLOSED);
    link_close(b);
}

static void trim(void)
{
    struct link *l[4];
    for (int i = 0; i < 4; i++)
        l[i] = open_link(i);
    for (int i = 0; i < 4; i++)
        link_give(l[i], &limits);
    EXPECT(links_idle() == 4); /* a burst may be wanted again the next moment */
    EXPECT(await_sleep(clock_mono_ns() + 1200 * NS_PER_MS) == OK);
    EXPECT(idle_are(0)); /* idle_timeout of a second */
    EXPECT(atomic_load(&scene.endpoint->links) == 0);
    for (int i = 0; i < 4; i++)
        close(scene.peer[i]);
}

static void drain(void)
{
    struct link *a = open_link(0), *b = open_link(1);
    link_give(a, &limits);
    links_drain();
    EXPECT(links_idle() == 0);
    link_give(b, &limits);
    EXPECT(links_idle() == 0);
    close(scene.peer[0]);
    close(scene.peer[1]);
}

static void share(void)
{
    static const struct link_limits one = {.idle_per_group = 2, .links = 1};
    struct link *l, *taken;
    EXPECT(link_reserve(scene.endpoint, &one));
    link_unreserve(scene.endpoint);
    l = open_link(0);
    EXPECT(!link_reserve(scene.endpoint, &one));
    link_give(l, &one);
    EXPECT(await_link_room(SLICE("k"), scene.endpoint, &one, &taken) == OK && taken == l);
    atomic_store(&scene.endpoint->waiting, 1); /* of another thread */
    link_give(l, &one);
    EXPECT(links_idle() == 0);
    atomic_store(&scene.endpoint->waiting, 0);
    close(scene.peer[0]);
}

/* Of one name, whatever is spoken; others' count for themselves, or not at all. */
static int ended;

static void on_other_ended(struct idle *i)
{
    (void)i;
    ended++;
}

static void count_each(void)
{
    struct link_limits two = {.idle_per_group = 9, .idle_in_all = 2, .idle_of = 1}, third = two;
    struct idle other = {.end = on_other_ended}, free = {.end = on_other_ended};
    struct link *l[4];
    third.idle_of = 3;
    ended = 0;
    list_init(&other.node);
    list_init(&free.node);
    for (int i = 0; i < 4; i++)
        l[i] = open_link(i);
    idle_begin(&free, 1, 0);
    idle_begin(&other, 1, 2);
    link_give(l[0], &two);
    link_give(l[1], &third);
    EXPECT(links_idle() == 2 && ended == 0 && idle_counts() == 2);
    link_give(l[2], &two);
    EXPECT(links_idle() == 3 && ended == 1); /* the other protocol's has been for longest */
    link_give(l[3], &two);
    EXPECT(links_idle() == 3 && ended == 1); /* l[0] */
    EXPECT(link_take(SLICE("k")) == l[3]);
    link_give(l[3], &third);
    EXPECT(links_idle() == 3);
    link_close(l[2]);
    two.idle_of = 1000;
    for (int i = 0; i < 100; i++, two.idle_of++) { /* as with configurations that come and go */
        EXPECT(link_take(SLICE("k")) == l[3]);
        link_give(l[3], &two);
        EXPECT(links_idle() == 2 && idle_counts() <= 20);
    }
    for (int i = 0; i < 4; i++)
        close(scene.peer[i]);
}

static void run_fiber(void *play)
{
    EXPECT(await_sleep(1) == OK); /* the loop runs from here on */
    ((void (*)(void))(uintptr_t)play)();
    loop_stop(loop_self());
}

static void play_scene(void (*play)(void))
{
    static const enum loop_kind kinds[] = {LOOP_EPOLL, LOOP_URING};
    for (int k = 0; k < 2; k++) {
        struct loop *loop;
        if (kinds[k] == LOOP_URING && !loop_probe_uring())
            continue;
        CHECK_OK(loop_create(kinds[k], &loop));
        scene = (struct scene){.endpoint = endpoint_ref(SLICE("scene"))};
        CHECK_OK(fiber_start(loop, run_fiber, (void *)(uintptr_t)play));
        loop_run(loop);
        links_thread_deinit();
        loop_settle(loop);
        unsigned armed = loop_armed(loop), fibers = fiber_live(loop);
        loop_destroy(loop);
        iobuf_thread_deinit();
        if (scene.wrong != NULL)
            test_fail(__FILE__, __LINE__, "%s (back end %d)", scene.wrong, k);
        CHECK_INT(armed + fibers, 0);
        CHECK_INT(scene.endpoint->refs, 1);
        endpoint_unref(scene.endpoint);
    }
}

TEST("a link is used again, tells what came early, and is dropped when its peer closes it")
{
    play_scene(reuse);
}

TEST("idle links beyond their limit or their time are closed")
{
    play_scene(trim);
}

TEST("of each name so many idle connections are kept, and the one that has been for longest goes")
{
    play_scene(count_each);
}

TEST("a draining thread keeps no link")
{
    play_scene(drain);
}

TEST("a limit of links is kept, and an idle one is left to another thread that waits")
{
    play_scene(share);
}

TEST("buffers are recycled")
{
    char *a = iobuf_take(), *b = iobuf_take();
    CHECK(a != b);
    iobuf_give(a);
    CHECK(iobuf_take() == a);
    iobuf_give(a);
    iobuf_give(b);
    iobuf_thread_deinit();
}
