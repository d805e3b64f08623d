/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bound sockets of the namespace that the thread is in.
 */
#pragma once

#include "base/err.h"
#include "ports/bound.h"

struct dump {
    struct socket_list *list; /* they are added here */
    uint64_t netns;           /* written to each */
    bool from_procfs;         /* do not ask the diagnostics */
    bool inactive;            /* TCP sockets that are bound and do nothing else, and no others */
    pid_t pid;                /* read this process's tables, not the thread's; 0 */
    int diag;                 /* of dump_open, of whichever namespace that was; -1: opened here */
    bool guessed;             /* out: tables were read; dual or IPv6 only is a guess */
    bool torn;                /* out: sockets changed all the time; some may be missing */
    bool full;                /* out: there are more than SOCKET_LIST_MAX */
};

/* A socket for the diagnostics of the namespace that the thread is in, which it keeps alive; -1 with
 * errno. */
int dump_open(void);

/* ERR_* only when nothing could be read at all. */
enum err dump_sockets(struct dump *);
