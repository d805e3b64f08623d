/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tenths of a second a machine disturbed. A thread on each core wakes every WITNESS_STEP_NS before everything
 * else that runs there (SCHED_FIFO, above the servers and the load): it is late only where the core itself stood
 * still, as a shared machine's do some times a second for a few milliseconds. A server that keeps its core busy
 * does not make it late. It takes about one hundredth of the core, from all servers alike.
 */
#ifndef BENCH_WITNESS_H
#define BENCH_WITNESS_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "client.h"

enum { WITNESSES_MAX = 8 };
#define WITNESS_STEP_NS 200000u
#define WITNESS_LATE_NS 250000u

struct witness {
    int cpu;
    uint64_t began_ns, window_ns;
    atomic_bool *disturbed; /* by window */
    size_t windows;
    atomic_bool *unable;
};

static inline void *witness_run(void *arg)
{
    struct witness *w = arg;
    struct sched_param first = {.sched_priority = 2};
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET((size_t)w->cpu, &cpus);
    if (pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus) != 0 ||
        pthread_setschedparam(pthread_self(), SCHED_FIFO, &first) != 0) {
        atomic_store(w->unable, true);
        return NULL;
    }
    uint64_t due = now_ns(), end = w->began_ns + w->windows * w->window_ns;
    while (due < end) {
        due += WITNESS_STEP_NS;
        struct timespec t = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        uint64_t now = now_ns();
        if (now - due <= WITNESS_LATE_NS)
            continue;
        for (uint64_t at = due < w->began_ns ? w->began_ns : due; at <= now; at += WITNESS_STEP_NS) {
            uint64_t window = (at - w->began_ns) / w->window_ns;
            if (window < w->windows)
                atomic_store(&w->disturbed[window], true);
        }
        due = now;
    }
    return NULL;
}

#endif
