/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A moved clock means that everything is looked at once more.
 */
#include "certs/test_clock.h"

#include "base/clock.h"

#ifdef LOOP_FAULTS

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "certs/manager_parts.h"

static struct timer timer;
static const char *path;
static uint64_t hurry = 1;

static int64_t read_shift(void)
{
    char text[32];
    int64_t s = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (fd >= 0)
        close(fd);
    if (n <= 0 || !slice_to_i64(slice_trim(slice_of(text, (size_t)n)), &s))
        return atomic_load(&clock_shift_ns);
    return s * (int64_t)NS_PER_S;
}

static void on_look(struct timer *t)
{
    int64_t shift = read_shift();
    if (shift != atomic_load(&clock_shift_ns)) {
        atomic_store(&clock_shift_ns, shift);
        upkeep_now();
    }
    timer_start(manager.loop, t, clock_mono_ns() + 100 * NS_PER_MS);
}

void test_clock_hurry(unsigned times)
{
    hurry = times > 0 ? times : 1;
}

void test_clock_start(void)
{
    uint64_t times;
    path = getenv("PORTICO_TEST_CLOCK");
    if (slice_to_u64(slice_from(getenv("PORTICO_TEST_HURRY")), 1000000, &times))
        test_clock_hurry((unsigned)times);
    timer_init(&timer, on_look);
    if (path != NULL)
        on_look(&timer);
}

void test_clock_stop(void)
{
    timer_stop(&timer);
}

uint64_t test_clock_wait(uint64_t ns)
{
    return ns / hurry;
}

#else

void test_clock_start(void)
{
}

void test_clock_stop(void)
{
}

uint64_t test_clock_wait(uint64_t ns)
{
    return ns;
}

void test_clock_hurry(unsigned times)
{
    (void)times;
}

#endif
