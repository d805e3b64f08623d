/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When something is tried: at once, then after the waits of certmagic's table, for thirty days. A job
 * that waits holds no fiber, but keeps the name's lock in the storage, so that another instance does
 * not try meanwhile. Not more than JOBS_AT_ONCE are tried at a time, the longest waiting first; a lock
 * that somebody else holds is come back to, so that names of others do not stand in the way of ours.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "certs/manager_parts.h"
#include "certs/test_clock.h"

enum { JOBS_AT_ONCE = 128 };

#define MINUTE_NS (60 * NS_PER_S)
#define HOUR_NS (60 * MINUTE_NS)
#define JOB_MAX_NS (30 * 24 * HOUR_NS)
#define LATER_NS NS_PER_S

static const unsigned char waits_min[] = {1, 2, 2, 5, 10, 10, 10, 20, 20, 20, 20, 30, 30, 30, 30, 30,
                                          30, 60, 60, 60, 120, 120, 180, 180};
enum { LAST_WAIT_MIN = 360 };

static struct {
    struct list ready, all;
    bool begun;
    unsigned trying;
    struct task task;
} jobs;

static void try(void *arg);

static void on_start(struct task *t)
{
    struct list *node;
    (void)t;
    while (jobs.trying < JOBS_AT_ONCE && (node = list_pop(&jobs.ready)) != NULL) {
        struct job *job = CONTAINER_OF(node, struct job, ready);
        jobs.trying++;
        job->trying = true;
        manager_run(try, job);
    }
}

static void start_soon(void)
{
    if (!list_empty(&jobs.ready)) {
        list_remove(&jobs.task.node);
        loop_defer(manager.loop, &jobs.task);
    }
}

static void get_ready(struct job *job)
{
    list_append(&jobs.ready, &job->ready);
    start_soon();
}

static void on_timer(struct timer *t)
{
    get_ready(CONTAINER_OF(t, struct job, timer));
}

static void begin_once(void)
{
    if (jobs.begun)
        return;
    jobs.begun = true;
    list_init(&jobs.ready);
    list_init(&jobs.all);
    list_init(&jobs.task.node);
    jobs.task.run = on_start;
}

/* --- the end of a job --- */

/* From the loop's stack: unlocking may block, and a cancelled fiber cannot wait for it. */
static void free_job(struct job *job)
{
    struct storage_why why = {""};
    if (job->locked) {
        struct storage *s = job->lock_storage;
        LOG(LOG_INFO, job->kind == JOB_OBTAIN ? "tls.obtain" : "tls.renew", "releasing lock",
            LOG_STR("identifier", job->name));
        if (s->type->unlock(s, job->lock_name, &why) != OK)
            LOG(LOG_ERROR, job->kind == JOB_OBTAIN ? "tls.obtain" : "tls.renew",
                "unable to unlock", LOG_STR("identifier", job->name),
                LOG_STR("lock_key", job->lock_name), LOG_CSTR("error", why.text));
    }
    list_remove(&job->node);
    timer_stop(&job->timer);
    obtain_forget(job);
    mem_free((void *)(uintptr_t)job->lock_name.ptr);
    mem_free((void *)(uintptr_t)job->name.ptr);
    mem_free(job);
}

static void on_free(struct task *t)
{
    free_job(CONTAINER_OF(t, struct job, task));
}

static void end(struct job *job, enum err result)
{
    struct list *node;
    if (job->holding != NULL)
        job->holding->job = NULL;
    job->holding = NULL;
    list_remove(&job->ready);
    timer_stop(&job->timer);
    while ((node = list_pop(&job->waiters)) != NULL) {
        struct job_waiter *w = CONTAINER_OF(node, struct job_waiter, node);
        snprintf(w->why, w->cap, "%s", job->why);
        waiter_wake(&w->waiter, result);
    }
    job->task.run = on_free;
    loop_defer(manager.loop, &job->task);
}

/* --- tries --- */

static uint64_t next_wait(const struct job *job)
{
    size_t i = job->attempts > 0 ? job->attempts - 1 : 0;
    uint64_t wait = (i < sizeof waits_min ? waits_min[i] : LAST_WAIT_MIN) * MINUTE_NS;
    return wait > job->retry_after_ns ? wait : job->retry_after_ns;
}

static void wait_for_next(struct job *job)
{
    const char *logger = job->kind == JOB_OBTAIN ? "tls.obtain" : "tls.renew";
    uint64_t now = clock_mono_ns(), elapsed = now - job->began_ns;
    job->attempts++;
    uint64_t wait = next_wait(job);
    if (elapsed >= JOB_MAX_NS) {
        LOG(LOG_ERROR, logger, "final attempt; giving up", LOG_CSTR("error", job->why),
            LOG_NUM("attempt", job->attempts), LOG_DUR("elapsed", elapsed),
            LOG_DUR("max_duration", JOB_MAX_NS));
        end(job, ERR_FAILED);
        return;
    }
    LOG(LOG_ERROR, logger, "will retry", LOG_CSTR("error", job->why),
        LOG_NUM("attempt", job->attempts), LOG_DUR("retrying_in", wait),
        LOG_DUR("elapsed", elapsed), LOG_DUR("max_duration", JOB_MAX_NS));
    timer_start(manager.loop, &job->timer, now + test_clock_wait(wait));
}

static void conclude(struct job *job, enum job_result result)
{
    if (job->cancelled || job->holding == NULL || manager.stopping) {
        end(job, ERR_CANCELLED);
    } else if (result == JOB_DONE || result == JOB_OVER) {
        end(job, result == JOB_DONE ? OK : ERR_FAILED);
    } else if (result == JOB_LATER) {
        timer_start(manager.loop, &job->timer, clock_mono_ns() + LATER_NS);
    } else if (job->for_handshake) {
        LOG(LOG_ERROR, "tls.on_demand", "certificate could not be had", LOG_STR("identifier", job->name),
            LOG_CSTR("error", job->why));
        end(job, ERR_FAILED);
    } else {
        wait_for_next(job);
    }
}

static void try(void *arg)
{
    struct job *job = arg;
    enum job_result result = JOB_OVER;
    struct pin *pin = pin_hold();
    job->fiber = fiber_self();
    job->why[0] = '\0';
    job->retry_after_ns = 0;
    const struct automation_policy *policy =
        pin != NULL && job->holding != NULL && !job->cancelled
            ? automation_find(pin->automation, job->name) : NULL;
    if (policy != NULL) {
        job->print = policy->print;
        result = obtain_try(job, pin->automation, policy);
        job->tried_ns = clock_mono_ns();
    }
    pin_release(pin);
    job->fiber = NULL;
    job->trying = false;
    jobs.trying--;
    conclude(job, result);
    start_soon();
}

/* --- from outside --- */

struct job *job_begin(struct holding *h, enum job_kind kind, bool for_handshake)
{
    if (h->job != NULL)
        return h->job;
    begin_once();
    struct job *job = NEW(struct job);
    job->holding = h;
    job->kind = kind;
    job->for_handshake = for_handshake;
    job->name = slice_of(slice_dup(h->name), h->name.len);
    job->began_ns = clock_mono_ns();
    timer_init(&job->timer, on_timer);
    list_init(&job->ready);
    list_init(&job->task.node);
    list_init(&job->waiters);
    list_append(&jobs.all, &job->node);
    h->job = job;
    get_ready(job);
    return job;
}

enum err job_await(struct job *job, uint64_t deadline_ns, char *why, size_t cap)
{
    struct job_waiter w = {.why = why, .cap = cap};
    waiter_init(&w.waiter);
    list_append(&job->waiters, &w.node);
    enum err e = await_wake(&w.waiter, deadline_ns);
    list_remove(&w.node);
    if (e == ERR_TIMEOUT)
        snprintf(why, cap, "timed out waiting for the certificate");
    return e;
}

void job_cancel(struct job *job)
{
    job->cancelled = true;
    if (job->fiber != NULL)
        fiber_cancel(job->fiber, ERR_CANCELLED);
    else if (!job->trying)
        end(job, ERR_CANCELLED);
}

void job_review(struct job *job)
{
    struct holding *h = job->holding;
    const struct automation_policy *policy = automation_find(manager.pin->automation, job->name);
    bool tried = job->tried_ns > 0 || job->trying;
    if (policy == NULL || (tried && policy->print != job->print)) {
        h->job = NULL;
        job->holding = NULL;
        job_cancel(job);
        return;
    }
    if (timer_running(&job->timer) && clock_mono_ns() - job->tried_ns > MINUTE_NS) {
        timer_stop(&job->timer); /* whoever loads a configuration may have mended something */
        get_ready(job);
    }
}

void jobs_stop(void)
{
    if (!jobs.begun)
        return;
    LIST_FOR_SAFE(it, &jobs.all)
    {
        struct job *job = CONTAINER_OF(it, struct job, node);
        if (job->holding != NULL)
            job->holding->job = NULL;
        list_remove(&job->ready);
        list_remove(&job->task.node);
        free_job(job);
    }
}
