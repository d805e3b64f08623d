/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An order is one message to each worker. Those that are carried out at once are waited for, with
 * their messages on the stack; a drain and what may cut it short are not, so their messages live as
 * long as the process.
 */
#include "app/crew.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/log_stream.h"
#include "base/mem.h"

static struct {
    struct worker *workers;
    unsigned count, drained;
    struct worker_order *drain_orders, *abort_orders;
    struct mail *drained_mails;
    void (*on_drained)(void);
} crew;

/* --- the start --- */

static enum err count_workers(unsigned *count, char *error, size_t cap)
{
    const char *env = getenv("PORTICO_WORKERS");
    cpu_set_t set;
    uint64_t n = 1;
    if (env != NULL && env[0] != '\0') {
        if (!slice_to_u64(slice_from(env), WORKERS_MAX, &n) || n == 0) {
            snprintf(error, cap, "PORTICO_WORKERS=%.60s: write a number from 1 to %d, or nothing for "
                     "one worker per core", env, WORKERS_MAX);
            return ERR_INVALID;
        }
    } else if (sched_getaffinity(0, sizeof set, &set) == 0) {
        n = (uint64_t)CPU_COUNT(&set);
    }
    *count = n < WORKERS_MAX ? (unsigned)n : WORKERS_MAX;
    return OK;
}

static bool may_choose(void)
{
    const char *env = getenv("PORTICO_IO");
    return env == NULL || env[0] == '\0';
}

/* What processes of this user had locked is free a moment behind their end. False: waited enough. */
static bool await_memory(uint64_t since)
{
    struct timespec moment = {.tv_nsec = 20 * NS_PER_MS};
    if (clock_mono_ns() - since > (may_choose() ? NS_PER_S / 5 : 10 * NS_PER_S))
        return false;
    nanosleep(&moment, NULL);
    return true;
}

static enum err say_no_memory(char *error, size_t cap)
{
    snprintf(error, cap, "PORTICO_IO=uring: this user may lock no more memory (RLIMIT_MEMLOCK), of which "
             "the io_uring of each worker takes some");
    return ERR_LIMIT;
}

static enum err choose_loop(enum loop_kind *kind, char *error, size_t cap)
{
    const char *env = getenv("PORTICO_IO");
    bool any = may_choose(), uring = !any && strcmp(env, "uring") == 0;
    enum err e;
    *kind = LOOP_EPOLL;
    if (!any && !uring && strcmp(env, "epoll") != 0) {
        snprintf(error, cap, "PORTICO_IO=%.60s: write uring or epoll, or nothing for the better one "
                 "that works", env);
        return ERR_INVALID;
    }
    if (!any && !uring)
        return OK;
    uint64_t since = clock_mono_ns();
    while ((e = loop_try_uring()) == ERR_LIMIT && await_memory(since)) {
    }
    if (e == OK) {
        *kind = LOOP_URING;
    } else if (uring && e == ERR_LIMIT) {
        return say_no_memory(error, cap);
    } else if (uring) {
        snprintf(error, cap, "PORTICO_IO=uring: io_uring is not to be had here: the kernel is too old, "
                 "or kernel.io_uring_disabled or a seccomp filter forbids it");
        return ERR_UNSUPPORTED;
    } else if (e == ERR_LIMIT) {
        LOG(LOG_INFO, "", "this user may lock no more memory (RLIMIT_MEMLOCK): using epoll");
    } else {
        LOG(LOG_INFO, "", "io_uring is not allowed here: using epoll");
    }
    return OK;
}

/* A limit that is reached behind some of the workers is no reason not to serve: the others have epoll. */
static enum err start_worker(unsigned w, enum loop_kind *kind, struct loop *control, char *error,
                             size_t cap)
{
    uint64_t since = clock_mono_ns();
    enum err e;
    while ((e = worker_start(&crew.workers[w], w, *kind, control)) == ERR_LIMIT &&
           *kind == LOOP_URING && await_memory(since)) {
    }
    if (e != ERR_LIMIT || *kind != LOOP_URING)
        return e;
    if (!may_choose())
        return say_no_memory(error, cap);
    LOG(LOG_WARN, "", "this user may lock no more memory (RLIMIT_MEMLOCK): the other workers use epoll",
        LOG_NUM("with_io_uring", w));
    *kind = LOOP_EPOLL;
    return worker_start(&crew.workers[w], w, *kind, control);
}

static void tell_started(unsigned count, unsigned with_ring)
{
    char io[120];
    snprintf(io, sizeof io, "%s", with_ring > 0 ? "io_uring" : "epoll");
    if (with_ring > 0 && with_ring < count)
        snprintf(io, sizeof io, "io_uring on %u of %u workers, epoll on the others: RLIMIT_MEMLOCK",
                 with_ring, count);
    LOG(LOG_INFO, "", "workers started", LOG_NUM("count", count), LOG_CSTR("io", io));
}

enum err crew_start(struct loop *control, char *error, size_t cap)
{
    unsigned count, with_ring = 0;
    enum loop_kind kind;
    TRY(count_workers(&count, error, cap));
    TRY(choose_loop(&kind, error, cap));
    crew.workers = mem_zalloc(count * sizeof *crew.workers);
    crew.drain_orders = mem_zalloc(count * sizeof *crew.drain_orders);
    crew.abort_orders = mem_zalloc(count * sizeof *crew.abort_orders);
    crew.drained_mails = mem_zalloc(count * sizeof *crew.drained_mails);
    for (unsigned w = 0; w < count; w++) {
        TRY(start_worker(w, &kind, control, error, cap));
        crew.count++;
        with_ring += kind == LOOP_URING;
    }
    tell_started(count, with_ring);
    return OK;
}

unsigned crew_size(void)
{
    return crew.count;
}

/* --- orders --- */

static void wait_all(sem_t *done, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        while (sem_wait(done) != 0) {
        }
    }
}

void crew_adopt(struct generation *g, struct new_socket *const per_worker[], size_t count)
{
    sem_t done;
    struct worker_order orders[WORKERS_MAX];
    sem_init(&done, 0, 0);
    for (unsigned w = 0; w < crew.count; w++) {
        orders[w] = (struct worker_order){.kind = ORDER_ADOPT, .generation = g,
                                          .sockets = per_worker[w], .sockets_count = count,
                                          .done = &done};
        worker_tell(&crew.workers[w], &orders[w]);
    }
    wait_all(&done, crew.count);
    sem_destroy(&done);
}

struct worker_live crew_count(void)
{
    sem_t done;
    struct worker_live all = {0};
    struct worker_order *orders = mem_zalloc(crew.count * sizeof *orders);
    sem_init(&done, 0, 0);
    for (unsigned w = 0; w < crew.count; w++) {
        orders[w] = (struct worker_order){.kind = ORDER_COUNT, .done = &done};
        worker_tell(&crew.workers[w], &orders[w]);
    }
    wait_all(&done, crew.count);
    for (unsigned w = 0; w < crew.count; w++) {
        all.operations += orders[w].live.operations;
        all.fibers += orders[w].live.fibers;
        all.connections += orders[w].live.connections;
        all.exchanges += orders[w].live.exchanges;
    }
    sem_destroy(&done);
    mem_free(orders);
    return all;
}

uint64_t crew_requests(void)
{
    uint64_t requests = 0;
    for (unsigned w = 0; w < crew.count; w++)
        requests += __atomic_load_n(&crew.workers[w].h1.requests, __ATOMIC_RELAXED);
    return requests;
}

/* --- the end --- */

static void tell_all(struct worker_order *orders, int kind)
{
    for (unsigned w = 0; w < crew.count; w++) {
        orders[w] = (struct worker_order){.kind = kind};
        worker_tell(&crew.workers[w], &orders[w]);
    }
}

static void on_worker_drained(struct mail *m)
{
    (void)m;
    if (++crew.drained == crew.count)
        crew.on_drained();
}

void crew_drain(void (*drained)(void))
{
    crew.on_drained = drained;
    for (unsigned w = 0; w < crew.count; w++) {
        crew.drained_mails[w].run = on_worker_drained;
        crew.drain_orders[w] = (struct worker_order){.kind = ORDER_DRAIN,
                                                     .drained = &crew.drained_mails[w]};
        worker_tell(&crew.workers[w], &crew.drain_orders[w]);
    }
}

void crew_abort(void)
{
    tell_all(crew.abort_orders, ORDER_ABORT);
}

void crew_end(void)
{
    struct worker_order *orders = mem_zalloc(WORKERS_MAX * sizeof *orders);
    tell_all(orders, ORDER_END);
    for (unsigned w = 0; w < crew.count; w++)
        worker_join(&crew.workers[w]);
    mem_free(orders);
}
