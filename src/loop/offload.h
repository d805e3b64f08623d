/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of threads for calls that block: password hashing, slow disks. One pool per process,
 * started at its first job, at most OFFLOAD_THREADS threads and OFFLOAD_QUEUE waiting jobs. Slow jobs
 * (a second of computing) never take its last thread, and fewer of them may wait.
 */
#pragma once

#include "loop/loop.h"

enum { OFFLOAD_THREADS = 4, OFFLOAD_QUEUE = 4096, OFFLOAD_SLOW_QUEUE = 256 };

struct offload_job {
    void (*work)(void *arg); /* on a pool thread */
    void *arg;
    bool slow;
    void (*on_done)(struct offload_job *); /* on the submitting loop's thread */
    struct loop *loop;
    struct offload_job *next;
    struct mail mail;
};

/* The job must stay until on_done. ERR_LIMIT when the queue is full or no thread can start. */
enum err offload_submit(struct loop *, struct offload_job *) MUST_USE;

/* Waits for running jobs and ends the threads; none may be submitted any more. */
void offload_stop(void);
