/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What workers see of services: views that stay what they are until they are given back, and waits
 * that end when there is a replica, when there will be none, or when the client is gone.
 */
#include "base/clock.h"
#include "base/test.h"
#include "loop/await.h"
#include "services/registry.h"
#include "upstream/endpoint.h"

static struct loop *loop;
static struct service_handle *handle;
static enum err results[8];
static unsigned ended, wanted, expected, patience_ms;
static struct fiber *fibers[8];

static void publish(const char *const *names, uint32_t count, bool closed, unsigned queue)
{
    struct endpoint *list[4];
    for (uint32_t i = 0; i < count; i++)
        list[i] = endpoint_ref(slice_from(names[i]));
    registry_publish(handle, &(struct registry_state){.endpoints = list, .count = count,
                                                      .queue_max = queue, .exists = true,
                                                      .closed = closed, .patience_ns = NS_PER_S});
}

static const char *const two[] = {"127.0.0.1:3000", "127.0.0.1:3001"};

static void begin(const char *name)
{
    CHECK_OK(loop_create(LOOP_EPOLL, &loop));
    handle = service_handle(slice_from(name));
    ended = wanted = 0;
    patience_ms = 30000;
}

static void on_over(struct timer *t)
{
    (void)t;
    loop_stop(loop);
}

static void end(void)
{
    static struct timer over;
    services_thread_deinit();
    timer_init(&over, on_over); /* mail that is on the way arrives */
    timer_start(loop, &over, clock_mono_ns() + NS_PER_MS);
    loop_run(loop);
    registry_on_demand(NULL, NULL);
    loop_settle(loop);
    loop_destroy(loop);
}

TEST("a name has one handle, and nobody behind it at first")
{
    begin("one");
    CHECK(handle == service_handle(SLICE("one")));
    CHECK(handle != service_handle(SLICE("other")));
    const struct service_view *v = service_view_take(handle);
    CHECK(!v->exists && v->count == 0);
    service_view_give(v);
    end();
}

TEST("a view stays what it is while others see the next one")
{
    begin("views");
    publish(two, 2, false, 1);
    const struct service_view *old = service_view_take(handle);
    publish(two + 1, 1, false, 1);
    const struct service_view *fresh = service_view_take(handle);
    CHECK_INT(old->count, 2);
    CHECK_TEXT(old->endpoints[0]->name, "127.0.0.1:3000");
    CHECK_INT(fresh->count, 1);
    CHECK_TEXT(fresh->endpoints[0]->name, "127.0.0.1:3001");
    CHECK(service_view_take(handle) == fresh);
    service_view_give(fresh);
    service_view_give(old);
    service_view_give(fresh);
    end();
}

static void wait_for_it(void *arg)
{
    size_t i = (size_t)(uintptr_t)arg;
    fibers[i] = fiber_self();
    results[i] = await_service(handle, clock_mono_ns() + patience_ms * NS_PER_MS);
    fibers[i] = NULL;
    if (++ended == expected)
        loop_stop(loop);
}

static void start(size_t count)
{
    expected = (unsigned)count;
    for (size_t i = 0; i < count; i++)
        CHECK_OK(fiber_start(loop, wait_for_it, (void *)(uintptr_t)i));
}

static void on_wanted(struct service_handle *h)
{
    wanted++;
    CHECK(h == handle);
    publish(two, 1, false, 10);
}

TEST("who waits asks the control thread once, and goes on with the replica")
{
    begin("demand");
    publish(NULL, 0, false, 10);
    registry_on_demand(loop, on_wanted);
    start(3);
    loop_run(loop);
    CHECK_INT(wanted, 1);
    for (int i = 0; i < 3; i++)
        CHECK_OK(results[i]);
    end();
}

TEST("the queue is bounded, and patience ends")
{
    begin("queue");
    patience_ms = 20;
    publish(NULL, 0, false, 2);
    start(3);
    CHECK_INT(ended, 1);
    CHECK_INT(results[2], ERR_LIMIT);
    CHECK_INT(registry_waiting(handle), 2);
    loop_run(loop);
    CHECK_INT(results[0], ERR_TIMEOUT);
    CHECK_INT(results[1], ERR_TIMEOUT);
    CHECK_INT(registry_waiting(handle), 0);
    end();
}

TEST("nobody waits for a service that is closed, or goes on waiting")
{
    begin("closed");
    publish(NULL, 0, false, 2);
    start(1);
    publish(NULL, 0, true, 2);
    loop_run(loop);
    CHECK_INT(results[0], ERR_CLOSED);
    ended = 0;
    CHECK_OK(fiber_start(loop, wait_for_it, NULL));
    CHECK_INT(ended, 1);
    CHECK_INT(results[0], ERR_CLOSED);
    end();
}

TEST("a fiber that is cancelled leaves the queue, also when its mail is on the way")
{
    begin("cancelled");
    publish(NULL, 0, false, 2);
    start(2);
    fiber_cancel(fibers[0], ERR_CLOSED);
    publish(two, 2, false, 2);
    if (fibers[1] != NULL)
        fiber_cancel(fibers[1], ERR_CLOSED);
    loop_run(loop);
    CHECK_INT(results[0], ERR_CLOSED);
    CHECK_INT(results[1], ERR_CLOSED);
    CHECK_INT(registry_waiting(handle), 0);
    end();
}
