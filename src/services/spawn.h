/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting the program of a launch in a new process: session, stdio, sockets, limits, user,
 * confinement, folder, execve. The caller is a process that may wait (a warden).
 */
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include "services/identity.h"
#include "services/launch.h"

struct spawn {
    const struct launch *launch;
    int stdio[3];
    int socket; /* becomes descriptor 3, LISTEN_FDS; -1: none */
    int cgroup; /* folder of the program's own control group; -1: none */
    const struct identity *server; /* whose it is when the launch names no user */
    bool any_user;                 /* the server is root: so may the program be */
    struct rlimit files;           /* of descriptors, when the launch says nothing */
};

/* The new process, a child whose end is a SIGKILL to the program's; 0 with a sentence. */
pid_t spawn_program(const struct spawn *, char *error, size_t cap);
