/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's rounds: one thread that waits for descriptors, for moments and for the ends of its
 * children, and calls whoever asked. A part of the keeper embeds what it waits for and needs no line
 * in a common loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"

/* A descriptor: called while it is readable or its other end is gone. */
struct watch {
    int fd; /* -1: not watched */
    void (*on_ready)(struct watch *);
};

/* A moment of clock_mono_ns(). */
struct moment {
    struct list node;
    uint64_t due_ns;
    void (*on_due)(struct moment *);
};

/* A child process; called once, behind its reaping. */
struct child {
    struct list node;
    pid_t pid; /* 0: none */
    void (*on_end)(struct child *, int wait_status);
};

struct rounds {
    int epoll;
    struct list moments, children;
    void (*on_orphan)(struct rounds *); /* somebody else's child, now ours, has ended; may be NULL */
    bool over;
};

bool rounds_init(struct rounds *); /* false with errno */
void rounds_deinit(struct rounds *);

/* Until `over` is set. */
void rounds_run(struct rounds *);

/* Of all children that have ended. Call it on SIGCHLD. */
void rounds_reap(struct rounds *);

/* The descriptor stays the caller's. False with errno. */
bool watch_start(struct rounds *, struct watch *, int fd);
void watch_stop(struct rounds *, struct watch *);

void moment_init(struct moment *, void (*on_due)(struct moment *));
void moment_set(struct rounds *, struct moment *, uint64_t due_ns);
void moment_clear(struct moment *);
bool moment_is_set(const struct moment *);

void child_add(struct rounds *, struct child *, pid_t);
bool child_is_known(const struct rounds *, pid_t);
