/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that is needed to start one program, as bytes in a memory file: written by the server, read
 * by the keeper, which trusts no length in it.
 */
#pragma once

#include "base/arena.h"
#include "base/err.h"

enum {
    LAUNCH_BYTES_MAX = 1 << 20, /* of all of it */
    LAUNCH_WORDS_MAX = 4096,    /* of argv, and of env */
};

struct launch {
    struct slice service; /* its name: 1 to 64 letters, digits, "-", "_", "." */
    uint32_t replica;
    uint64_t digest;
    struct slice *argv, *env; /* env: "NAME=value", complete but for LISTEN_PID */
    size_t argv_count, env_count;
    struct slice dir;         /* absolute, or empty: the keeper's */
    struct slice user, group; /* empty: the server's; the user's own and all it belongs to */
    uint64_t memory, tasks, files; /* bytes, processes and threads, descriptors; 0: no limit */
    double cpu;                    /* cores; 0: no limit */
    uint16_t port;    /* may be bound by it, when confined; 0: none */
    bool confine;     /* Landlock: no other TCP port (port 0 allowed); no new privileges */
    bool socket;      /* LISTEN_FDS: the keeper binds host:port, keeps it open and hands it over */
    struct slice host;
};

/* A sealed memory file, close-on-exec; -1 with errno (E2BIG: more than LAUNCH_BYTES_MAX). */
int launch_write(const struct launch *);

/* ERR_INVALID with a sentence. Slices are in the arena, hold no NUL and are followed by one. */
enum err launch_read(int fd, struct launch *, struct arena *, char *error, size_t cap);

/* The same from bytes, which the arena need not hold: pure. */
enum err launch_parse(struct slice bytes, struct launch *, struct arena *, char *error, size_t cap);
