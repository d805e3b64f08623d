/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that wait for room: their order, their limits, who leaves early; then several threads with
 * many fibers each at three upstreams, where the limits must hold and nobody may be forgotten.
 */
#include "upstream/queue.h"

#include <pthread.h>

#include "base/clock.h"
#include "base/test.h"
#include "loop/await.h"
#include "upstream/balance.h"

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond) && wrong == NULL)                                                              \
            wrong = #cond;                                                                         \
    } while (0)

static const char *wrong;
static struct endpoint *endpoint;
static struct request_queue *queue;
static int order[8];
static atomic_int served;

static uint64_t in_ms(unsigned ms)
{
    return clock_mono_ns() + ms * NS_PER_MS;
}

static void wait_served(int n)
{
    while (atomic_load(&served) < n && wrong == NULL)
        EXPECT(await_sleep(in_ms(1)) == OK);
}

static void have_turn(void *arg)
{
    int hint = NO_HINT;
    struct queued *place;
    if (request_queue_join(queue, &place) != OK)
        return;
    EXPECT(await_turn(queue, place, in_ms(20000), &hint) == OK);
    EXPECT(hint == 5);
    order[atomic_fetch_add(&served, 1)] = (int)(intptr_t)arg;
    request_queue_leave(queue, place, false, NO_HINT);
}

static void start_turns(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        EXPECT(fiber_start(loop_self(), have_turn, (void *)(intptr_t)(i + 1)) == OK);
}

static void in_order(void)
{
    struct queued *place;
    atomic_store(&served, 0);
    endpoint_count(endpoint, 3);
    await_on_loop(start_turns, NULL);
    EXPECT(request_queue_length(queue) == 3 && atomic_load(&requests_queued) == 3);
    EXPECT(request_queue_join(queue, &place) == ERR_LIMIT);
    endpoint_done(endpoint);
    wait_served(1);
    EXPECT(request_queue_length(queue) == 2);
    endpoint_done(endpoint);
    endpoint_done(endpoint);
    wait_served(3);
    EXPECT(order[0] == 1 && order[1] == 2 && order[2] == 3);
    EXPECT(request_queue_length(queue) == 0 && atomic_load(&requests_queued) == 0);
}

static void leave_early(void)
{
    int hint;
    struct queued *a;
    atomic_store(&served, 0);
    endpoint_count(endpoint, 2);
    EXPECT(request_queue_join(queue, &a) == OK);
    EXPECT(await_turn(queue, a, in_ms(10), &hint) == ERR_TIMEOUT);
    EXPECT(request_queue_length(queue) == 1);
    request_queue_leave(queue, a, false, NO_HINT);
    EXPECT(request_queue_join(queue, &a) == OK);
    await_on_loop(start_turns, NULL); /* the third finds no place */
    EXPECT(request_queue_length(queue) == 3);
    endpoint_done(endpoint); /* a is told … */
    request_queue_leave(queue, a, false, NO_HINT); /* … leaves for another reason … */
    wait_served(1); /* … and the next has its room */
    EXPECT(order[0] == 1);
    endpoint_done(endpoint);
    wait_served(2);
}

/* Two ends while one waits: its turn is no longer about the first of them alone. */
static void two_ends(void)
{
    int hint = 0;
    struct queued *a;
    endpoint_count(endpoint, 2);
    EXPECT(request_queue_join(queue, &a) == OK);
    endpoint_done(endpoint);
    endpoint_done(endpoint);
    EXPECT(await_turn(queue, a, in_ms(20000), &hint) == OK && hint == NO_HINT);
    EXPECT(await_turn(queue, a, in_ms(5), &hint) == ERR_TIMEOUT);
    endpoint_count(endpoint, 1);
    endpoint_done(endpoint);
    EXPECT(await_turn(queue, a, in_ms(20000), &hint) == OK && hint == 5);
    request_queue_leave(queue, a, false, NO_HINT);
}

static void run_fiber(void *play)
{
    EXPECT(await_sleep(1) == OK); /* the loop runs from here on */
    ((void (*)(void))(uintptr_t)play)();
    loop_stop(loop_self());
}

static void play_scene(void (*play)(void), bool passing)
{
    static const enum loop_kind kinds[] = {LOOP_EPOLL, LOOP_URING};
    for (int k = 0; k < 2; k++) {
        struct loop *loop;
        if (kinds[k] == LOOP_URING && !loop_probe_uring())
            continue;
        CHECK_OK(loop_create(kinds[k], &loop));
        wrong = NULL;
        endpoint = endpoint_ref(SLICE("scene"));
        queue = request_queue_create(3, passing);
        request_queue_watch(queue, endpoint, 5);
        request_queue_watch(queue, endpoint, 5);
        CHECK_OK(fiber_start(loop, run_fiber, (void *)(uintptr_t)play));
        loop_run(loop);
        CHECK_INT(fiber_live(loop), 0);
        CHECK(passing == (atomic_load(&endpoint->watched) == 0));
        request_queue_free(queue);
        loop_settle(loop);
        loop_destroy(loop);
        if (wrong != NULL)
            test_fail(__FILE__, __LINE__, "%s (back end %d)", wrong, k);
        CHECK_INT(endpoint->refs, 1);
        endpoint_unref(endpoint);
    }
}

TEST("who waits longest is woken first, and beyond the length nobody waits")
{
    play_scene(in_order, false);
}

TEST("the watches of a passing queue go with the last that waits")
{
    play_scene(in_order, true);
}

TEST("who was told and leaves for another reason passes it on; who waits in vain leaves room")
{
    queue = NULL;
    play_scene(leave_early, false);
}

TEST("who was told of one of several ends looks at all upstreams")
{
    play_scene(two_ends, false);
}

/* --- many threads --- */

enum { THREADS = 4, FIBERS = 40, ROUNDS = 50, LIMIT = 3, UPSTREAMS = 3 };

static struct upstream upstreams[UPSTREAMS];
static atomic_int running[UPSTREAMS], over_limit, given_up, done;

static const struct upstream *take_any(void)
{
    struct upstream_set set = {upstreams, UPSTREAMS};
    for (;;) {
        const struct upstream *u = balance_random(set, 1);
        if (u == NULL || upstream_reserve(u))
            return u;
    }
}

static const struct upstream *take_or_wait(void)
{
    int hint = NO_HINT;
    struct queued *place;
    enum err e = OK;
    const struct upstream *u = request_queue_length(queue) == 0 ? take_any() : NULL;
    if (u != NULL)
        return u;
    if (request_queue_join(queue, &place) != OK)
        return NULL;
    while ((u = take_any()) == NULL && e == OK)
        e = await_turn(queue, place, in_ms(30000), &hint);
    request_queue_leave(queue, place, u != NULL && (hint < 0 || u != &upstreams[hint]), hint);
    return u;
}

static void work(void *arg)
{
    uint64_t state = (uintptr_t)arg * 7919 + 1;
    for (int i = 0; i < ROUNDS; i++) {
        const struct upstream *u = take_or_wait();
        if (u == NULL) {
            atomic_fetch_add(&given_up, 1);
            break;
        }
        if (atomic_fetch_add(&running[u - upstreams], 1) >= LIMIT)
            atomic_fetch_add(&over_limit, 1);
        state = state * 6364136223846793005 + 1442695040888963407;
        enum err e = state >> 62 == 0 ? await_sleep(in_ms(1)) : await_yield();
        if (e != OK)
            atomic_fetch_add(&given_up, 1);
        atomic_fetch_sub(&running[u - upstreams], 1);
        endpoint_done(u->endpoint);
        atomic_fetch_add(&served, 1);
    }
    if (atomic_fetch_add(&done, 1) + 1 == THREADS * FIBERS)
        atomic_store(&done, INT32_MAX / 2);
}

static void run_thread(void *arg)
{
    while (atomic_load(&done) < INT32_MAX / 2 && await_sleep(in_ms(2)) == OK)
        continue;
    (void)arg;
    loop_stop(loop_self());
}

static void *thread_main(void *arg)
{
    static char no_loop[] = "no loop", no_fiber[] = "no fiber";
    struct loop *loop;
    uintptr_t n = (uintptr_t)arg;
    if (loop_create(n % 2 == 0 ? LOOP_AUTO : LOOP_EPOLL, &loop) != OK)
        return no_loop;
    for (uintptr_t i = 0; i < FIBERS; i++)
        if (fiber_start(loop, work, (void *)(n * FIBERS + i)) != OK)
            return no_fiber;
    if (fiber_start(loop, run_thread, NULL) != OK)
        return no_fiber;
    loop_run(loop);
    loop_settle(loop);
    loop_destroy(loop);
    return NULL;
}

TEST("the limits hold over threads, and everyone who waits gets a turn")
{
    pthread_t threads[THREADS];
    atomic_store(&served, 0);
    queue = request_queue_create(THREADS * FIBERS, false);
    for (int i = 0; i < UPSTREAMS; i++) {
        char name[8];
        snprintf(name, sizeof name, "u%d", i);
        upstreams[i] = (struct upstream){.endpoint = endpoint_ref(slice_from(name)),
                                         .max_requests = LIMIT};
        request_queue_watch(queue, upstreams[i].endpoint, i);
    }
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, thread_main, (void *)i), 0);
    for (int i = 0; i < THREADS; i++) {
        void *why;
        pthread_join(threads[i], &why);
        CHECK(why == NULL);
    }
    CHECK_INT(atomic_load(&served), THREADS * FIBERS * ROUNDS);
    CHECK_INT(atomic_load(&over_limit), 0);
    CHECK_INT(atomic_load(&given_up), 0);
    CHECK_INT(atomic_load(&requests_queued), 0);
    request_queue_free(queue);
    for (int i = 0; i < UPSTREAMS; i++) {
        CHECK_INT(endpoint_requests(upstreams[i].endpoint), 0);
        CHECK_INT(upstreams[i].endpoint->refs, 1);
        endpoint_unref(upstreams[i].endpoint);
    }
}
