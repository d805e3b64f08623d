/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that is needed to start one program, as bytes in a memory file: written by the server, read
 * by the keeper, which trusts no length in it.
 */
#pragma once

#include "base/arena.h"
#include "base/err.h"

struct launch {
    struct slice service; /* its name */
    uint32_t replica;
    uint64_t digest;
    struct slice *argv, *env; /* env: "NAME=value", complete but for LISTEN_PID */
    size_t argv_count, env_count;
    struct slice dir;         /* empty: the keeper's */
    struct slice user, group; /* empty: the server's */
    uint64_t memory, tasks, files;
    double cpu;
    uint16_t port;    /* may be bound by it, when confined; 0: none */
    bool confine;     /* Landlock: no other TCP port (port 0 allowed) */
    bool socket;      /* LISTEN_FDS: the keeper binds host:port, keeps it open and hands it over */
    struct slice host;
};

/* A sealed memory file; -1 with errno. */
int launch_write(const struct launch *);

/* ERR_INVALID with a sentence. Slices are in the arena. */
enum err launch_read(int fd, struct launch *, struct arena *, char *error, size_t cap);
