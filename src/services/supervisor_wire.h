/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the server asks of the keeper about programs, over a SOCK_SEQPACKET pair of its own: fixed
 * messages, a program's description in a memory file, descriptors by SCM_RIGHTS. The keeper is
 * mechanism (start, signal, reap, tell); policy (when to restart, health, replicas) is the server's
 * (services/manage.c). A program outlives a server that crashes: the next one asks for the list.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

enum supervisor_kind {
    /* server → keeper */
    SUPERVISE_START = 1, /* instance, a memory file with the launch (launch.h) → STARTED or FAILED */
    SUPERVISE_STOP,      /* instance, signal, timeout_ms: then SIGKILL to all that is left of it */
    SUPERVISE_SIGNAL,    /* instance, signal */
    SUPERVISE_LIST,      /* → one LISTED for each, then END */
    SUPERVISE_EXEC,      /* as START, for `portico service exec`: with stdin, stdout, stderr */
    /* keeper → server */
    SUPERVISE_STARTED = 64, /* instance, pid; descriptors: output (a pipe's reading end), pidfd */
    SUPERVISE_FAILED,       /* instance, error, text */
    SUPERVISE_EXITED,       /* instance, pid, status as of waitpid; text: why, where it is known */
    SUPERVISE_LISTED,       /* instance, pid, name, port, digest, started_ns; descriptors as STARTED */
    SUPERVISE_END,
};

enum { SUPERVISE_TEXT = 512, SUPERVISE_FDS = 8 };

struct supervisor_message {
    uint32_t kind, error;
    uint64_t instance; /* chosen by the server, never used twice: random upper half */
    int32_t pid, status, signal;
    uint32_t timeout_ms, replica;
    uint16_t port;
    uint64_t digest;
    int64_t started_ns; /* wall clock, since 1970 */
    char name[72];      /* service */
    char text[SUPERVISE_TEXT];
};

enum err supervisor_send(int fd, const struct supervisor_message *, const int *fds, unsigned count);
enum err supervisor_receive(int fd, struct supervisor_message *, int *fds, unsigned *count,
                            int flags);
