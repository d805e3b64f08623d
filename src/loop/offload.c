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

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct offload_job *first, **last;
    unsigned queued, idle, threads;
    pthread_t ids[OFFLOAD_THREADS];
    bool stopping;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void on_mail(struct mail *m)
{
    struct offload_job *job = CONTAINER_OF(m, struct offload_job, mail);
    job->on_done(job);
}

static struct offload_job *take_job(void)
{
    while (pool.first == NULL && !pool.stopping) {
        pool.idle++;
        pthread_cond_wait(&pool.wake, &pool.lock);
        pool.idle--;
    }
    struct offload_job *job = pool.first;
    if (job != NULL) {
        pool.first = job->next;
        pool.queued--;
    }
    return job;
}

static void *run_thread(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    for (struct offload_job *job; (job = take_job()) != NULL;) {
        pthread_mutex_unlock(&pool.lock);
        job->work(job->arg);
        job->mail.run = on_mail;
        mailbox_post(job->loop, &job->mail);
        pthread_mutex_lock(&pool.lock);
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
    job->loop = l;
    job->next = NULL;
    pthread_mutex_lock(&pool.lock);
    if (pool.first == NULL)
        pool.last = &pool.first;
    if (pool.queued >= OFFLOAD_QUEUE)
        e = ERR_LIMIT;
    else if (pool.idle <= pool.queued && pool.threads < OFFLOAD_THREADS && !start_thread() &&
             pool.threads == 0)
        e = ERR_LIMIT;
    if (e == OK) {
        *pool.last = job;
        pool.last = &job->next;
        pool.queued++;
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
