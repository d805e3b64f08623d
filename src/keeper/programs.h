/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs that the server asked for (services/supervisor_wire.h): a table in order of start, a
 * warden process for each. What the server says is believed as far as this:
 *
 *  - It may run any program as itself, with its own rights and no more.
 *  - When root started portico and the server became another user, a launch may name only users that
 *    were allowed (SUPERVISE_ALLOW) before the server had its first listening socket, that is before
 *    anybody could talk to it; never uid or gid 0. Users of a later configuration need a restart.
 *  - A server that is root's may name any user. One that root did not start may name its own.
 *  - There are at most PROGRAMS_MAX of them, and as many sockets for them.
 */
#pragma once

#include <sys/resource.h>

#include "keeper/rounds.h"
#include "services/cgroup.h"
#include "services/supervisor_wire.h"

struct keeper;

enum { PROGRAMS_MAX = 2048, ALLOWED_MAX = 256 };

struct programs {
    struct list all;        /* of struct program, by start */
    unsigned count;
    struct list sockets;    /* of struct held_socket (launch.socket), at most PROGRAMS_MAX */
    unsigned sockets_count;
    struct watch wire;      /* the keeper's end of the pair with the server */
    struct child guardhouse;
    struct watch guard_wire;
    unsigned server;        /* counts servers: which one asked for a program, or has taken it over */
    bool listing;           /* END is to be told */
    struct moment retry;    /* what the server had no room for */
    struct moment drain;    /* outputs that no server reads */
    struct moment strays;   /* once more, after what was there too soon */
    uint64_t patience_ns;   /* an ending keeper does not wait for strays beyond; 0: not yet known */
    bool stopping;          /* the keeper ends: nothing is started any more */
    bool sealed;            /* no further users are allowed */
    char *allowed[ALLOWED_MAX];
    unsigned allowed_count;
    struct cgroups groups;
    struct rlimit files;    /* as this process was started with */
};

/* What a predecessor that was killed has left in control groups is ended. */
void programs_init(struct keeper *);
void programs_deinit(struct keeper *); /* when none is left */

/* The end of the pair that a new server shall have; -1 with errno. It is the caller's. */
int programs_connect(struct keeper *);

/* The server asks for a listening socket: from now on nothing is allowed any more. */
void programs_seal(struct keeper *);

/* The server process has ended: outputs are emptied until the next one takes them over. */
void programs_server_gone(struct keeper *);

/* A new server is ready: what it did not ask for by LIST is stopped. */
void programs_stop_unclaimed(struct keeper *);

/* The keeper ends: programs are stopped in the reverse order of their starts, each within its own
 * timeout, a service's replicas together; `now`: all are killed. When none is left the rounds are
 * over. */
void programs_stop(struct keeper *, bool now);
