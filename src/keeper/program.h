/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of the keeper's table, among the files that lead it: the table and what the server is
 * told (program_table.c), starting (program_start.c), the guards' side (program_guards.c), the
 * server's side (programs.c).
 */
#pragma once

#include <unistd.h>

#include "keeper/keeper_parts.h"

enum program_state { PROGRAM_STARTING, PROGRAM_RUNNING, PROGRAM_ENDED, PROGRAM_FAILED };
enum { TELL_ANSWER = 1, TELL_LISTED = 2, TELL_EXITED = 4 };
enum { STOP_MAX_MS = 24 * 3600 * 1000 };

struct program {
    struct list node;
    struct keeper *keeper;
    bool guarded;    /* its warden was not waited for */
    struct watch wire; /* to its warden */
    struct moment overdue; /* its warden does not end it */
    enum program_state state;
    unsigned server; /* which one knows of it */
    unsigned tell;   /* TELL_… */
    bool exec, stopping;
    bool pressed;    /* its warden is to be killed, since it does not end it */
    bool inherited;  /* asked for by a server that is gone, and listed before it ran */
    bool unclaimed;  /* the server that runs now does not want it */
    bool strays;     /* the guardhouse was killed: told as ended when no stray is left */
    uint64_t lost;   /* bytes of output */
    int pidfd, output, errors;
    int32_t stop_signal;
    uint32_t stop_ms;
    struct supervisor_message facts; /* as LISTED says them */
    struct supervisor_message end;   /* EXITED or FAILED */
};

struct held_socket {
    struct list node;
    char name[72], host[256];
    uint32_t replica;
    uint16_t port;
    int fd;
};

static inline struct program *program_at(struct list *node)
{
    return CONTAINER_OF(node, struct program, node);
}

static inline void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* --- program_table.c --- */

struct program *program_find(struct keeper *, uint64_t instance); /* of the server that runs */
struct program *program_add(struct keeper *, const struct supervisor_message *);
void program_fail(struct program *, enum err, const char *text);
void program_hang_up(struct program *);

/* Tells the server what it has room for, and forgets what has ended and was told. */
void programs_flush(struct keeper *);
void programs_on_retry(struct moment *);
enum err programs_offer(struct keeper *, const struct supervisor_message *, const int *fds,
                        unsigned count);

/* --- program_start.c --- */

void programs_allow(struct keeper *, const char *who);
void programs_start(struct keeper *, const struct supervisor_message *, const int *fds,
                    unsigned count);
struct held_socket *program_socket_find(struct keeper *, const char *name, uint32_t replica);
void program_socket_release(struct keeper *, struct held_socket *); /* NULL: nothing */

/* --- program_guards.c --- */

void program_stop(struct program *, int number, uint32_t timeout_ms);
void program_on_wire(struct watch *);
void program_on_overdue(struct moment *);
void programs_on_guardhouse(struct watch *);
void programs_on_guardhouse_end(struct child *, int status);
void programs_on_strays(struct moment *);
void programs_on_orphan(struct rounds *);

/* --- programs.c --- */

void programs_stop_next(struct keeper *);
