/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue under one lock, threads that wait on it, and completions that go back as mail. The pool
 * is the process's, since blocking work is rare and its threads are not tied to a core; it is the
 * one mutable object at file scope of this room.
 */
#include "loop/offload.h"

#include <pthread.h>
#include <signal.h>

#include "base/list.h"

struct queue {
    struct offload_job *first, **last;
    unsigned count;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct queue quick, slow;
    unsigned slow_running, idle, threads;
    pthread_t ids[OFFLOAD_THREADS];
    bool stopping;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void push(struct queue *q, struct offload_job *job)
{
    if (q->first == NULL)
        q->last = &q->first;
    *q->last = job;
    q->last = &job->next;
    q->count++;
}

static struct offload_job *pop(struct queue *q)
{
    struct offload_job *job = q->first;
    q->first = job->next;
    q->count--;
    return job;
}

static void on_mail(struct mail *m)
{
    struct offload_job *job = CONTAINER_OF(m, struct offload_job, mail);
    job->on_done(job);
}

/* How many jobs could be begun now: one thread stays free of slow ones. */
static unsigned ready(void)
{
    unsigned room = OFFLOAD_THREADS - 1 - pool.slow_running;
    return pool.quick.count + (pool.slow.count < room ? pool.slow.count : room);
}

static struct offload_job *take_job(void)
{
    while (ready() == 0) {
        if (pool.stopping && pool.slow.count == 0)
            return NULL;
        pool.idle++;
        pthread_cond_wait(&pool.wake, &pool.lock);
        pool.idle--;
    }
    if (pool.quick.first != NULL)
        return pop(&pool.quick);
    pool.slow_running++;
    return pop(&pool.slow);
}

static void *run_thread(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    for (struct offload_job *job; (job = take_job()) != NULL;) {
        pthread_mutex_unlock(&pool.lock);
        bool slow = job->slow;
        job->work(job->arg);
        job->mail.run = on_mail;
        mailbox_post(job->loop, &job->mail);
        pthread_mutex_lock(&pool.lock);
        pool.slow_running -= slow;
        if (slow) /* another one may begin, or the pool may end */
            pthread_cond_broadcast(&pool.wake);
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

/* Signals are for the main thread. */
static bool start_thread(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&pool.ids[pool.threads], NULL, run_thread, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pool.threads += started;
    return started;
}

enum err offload_submit(struct loop *l, struct offload_job *job)
{
    enum err e = OK;
    struct queue *q = job->slow ? &pool.slow : &pool.quick;
    job->loop = l;
    job->next = NULL;
    pthread_mutex_lock(&pool.lock);
    if (q->count >= (job->slow ? OFFLOAD_SLOW_QUEUE : OFFLOAD_QUEUE))
        e = ERR_LIMIT;
    else if (pool.idle <= ready() && pool.threads < OFFLOAD_THREADS && !start_thread() &&
             pool.threads == 0)
        e = ERR_LIMIT;
    if (e == OK) {
        push(q, job);
        pthread_cond_signal(&pool.wake);
    }
    pthread_mutex_unlock(&pool.lock);
    return e;
}

void offload_stop(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.stopping = true;
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    for (unsigned i = 0; i < pool.threads; i++)
        pthread_join(pool.ids[i], NULL);
    pool.threads = 0;
    pool.stopping = false;
}
