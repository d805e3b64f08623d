/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking /proc is waiting for the kernel to make up its entries, which it does on as many cores as
 * ask. The threads are made for the one walk and joined before it is used, so nothing is shared but
 * what `work` shares. A thread that cannot be had is done without: the caller takes its share.
 */
#include "ports/shares.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

struct member {
    void (*work)(void *arg, size_t member, size_t from, size_t to);
    void *arg;
    size_t index, from, to;
    pthread_t thread;
    bool started;
};

size_t share_count(size_t count, size_t enough)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t size = cores < 1 ? 1 : cores < SHARES_MAX ? (size_t)cores : SHARES_MAX;
    return size <= count / enough ? size : count < enough ? 1 : count / enough;
}

static void *run_member(void *arg)
{
    struct member *m = arg;
    m->work(m->arg, m->index, m->from, m->to);
    return NULL;
}

void share_run(size_t size, size_t count,
              void (*work)(void *arg, size_t member, size_t from, size_t to), void *arg)
{
    struct member members[SHARES_MAX];
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (size_t i = 0; i < size; i++) {
        struct member *m = &members[i];
        *m = (struct member){work, arg, i, count * i / size, count * (i + 1) / size, 0, false};
        m->started = i > 0 && pthread_create(&m->thread, NULL, run_member, m) == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (size_t i = 0; i < size; i++) {
        if (!members[i].started)
            run_member(&members[i]);
    }
    for (size_t i = 1; i < size; i++) {
        if (members[i].started)
            pthread_join(members[i].thread, NULL);
    }
}
