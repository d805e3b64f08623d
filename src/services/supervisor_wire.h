/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the server asks of the keeper about programs, over a SOCK_SEQPACKET pair of its own: fixed
 * messages, a program's description in a memory file, descriptors by SCM_RIGHTS. The keeper is
 * mechanism (start, signal, reap, tell); policy (when to restart, health, replicas) is the server's
 * (services/manage.c). A program outlives a server that crashes: the next one asks for the list.
 *
 * Each START and EXEC is answered by STARTED or FAILED. FAILED is final; each STARTED is followed by
 * one EXITED, when nothing of the program is left: its descendants are killed behind it.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* The environment variable that tells the server its end of the pair. */
#define SUPERVISOR_ENV "PORTICO_SUPERVISOR"

enum supervisor_kind {
    /* server → keeper */
    SUPERVISE_START = 1, /* instance; signal and timeout_ms: of its stop, when the keeper ends and
                            nobody asks; fd: a memory file with the launch (launch.h) */
    SUPERVISE_STOP,      /* instance, signal, timeout_ms: then SIGKILL to all that is left of it.
                            Of one that is not known: EXITED with status 0 */
    SUPERVISE_SIGNAL,    /* instance, signal: to its first process only */
    SUPERVISE_LIST,      /* → one LISTED for each but those of EXEC, then END, then EXITED for those
                            that ended while no server was there to be told */
    SUPERVISE_EXEC,      /* as START; fds: the memory file, stdin, stdout, stderr. It is killed when
                            the server that asked for it ends */
    SUPERVISE_ALLOW,     /* text: "user" or "user:group", as launches will name it. Before the first
                            listening socket is asked for, see keeper/programs.h */
    SUPERVISE_RELEASE,   /* name, replica: its held socket (launch.socket) is let go */
    /* keeper → server */
    SUPERVISE_STARTED = 64, /* instance, pid; descriptors: stdout and stderr (a pipe's reading
                               end each; not of EXEC), pidfd. text: what was asked for and is not
                               to be had here (confinement); empty: nothing */
    SUPERVISE_FAILED,       /* instance, error, text: a sentence */
    SUPERVISE_EXITED,       /* instance, pid, status as of waitpid; text: why, where it is known */
    SUPERVISE_LISTED,       /* instance, pid, name, replica, port, digest, started_ns; descriptors
                               as STARTED; text: likewise */
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

/* Whole messages; waits while the other end does not read. ERR_CLOSED when it left, ERR_IO when a
 * descriptor cannot be passed. */
enum err supervisor_send(int fd, const struct supervisor_message *, const int *fds, unsigned count);

/* As supervisor_send, without waiting: ERR_TIMEOUT. */
enum err supervisor_offer(int fd, const struct supervisor_message *, const int *fds, unsigned count);

/* As fd_message_receive (base/fd_message.h); texts end in NUL. */
enum err supervisor_receive(int fd, struct supervisor_message *, int *fds, unsigned *count,
                            int flags);
