/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's parts, which meet in one struct: the sockets that it holds (held.c), what systemd is
 * told (systemd.c), the firewall (firewall.c), the server process (server_process.c), the programs
 * that it asks for (programs.h), and what all wait for (rounds.h). Signals are keeper.c's.
 */
#pragma once

#include "keeper/keeper_wire.h"
#include "keeper/programs.h"
#include "keeper/rounds.h"
#include "net/listener.h"
#include "ports/nft_events.h"

enum { CRASHES_MAX = 10 }; /* within a minute: then the keeper gives up */

struct held {
    char network[16], host[256];
    uint16_t asked_port, port;
    unsigned count;
    int fds[KEEPER_FDS];
    bool used;
    bool wanted;             /* by the server that runs now */
    struct socket_file file; /* of a Unix socket */
};

struct server_process {
    struct child child;
    struct watch wire;           /* the keeper's end of the pair */
    struct moment restart;       /* set: none runs, and the next one is started then */
    struct moment kill;          /* a server that was told to end at once, and does not */
    bool ready, stopping, final; /* final: it said that it must not be started again */
    bool was_ready;              /* some server of this keeper has served */
    uint64_t crashes[CRASHES_MAX]; /* when */
    unsigned crashed;
};

struct watchdog {
    uint64_t interval_ns; /* systemd's, halved; 0: none */
    struct moment next;
    bool answered; /* the server has answered the last ping */
};

/* The helper process that writes the firewall's rules; one at a time. */
struct firewall {
    struct child child;
    int next;            /* the document that came meanwhile; -1: none */
    int kept;            /* the last one; -1: none */
    bool in_force;       /* its rules, as the helper said */
    bool restoring;      /* the helper that runs writes them once more */
    struct watch events; /* what the kernel tells of all tables */
    struct nft_events seen;
    struct moment again; /* set: the table was taken away, and is written then */
    unsigned times;      /* how often lately */
    uint64_t last_ns;
};

struct keeper {
    char **argv;
    int status;
    struct rounds rounds;
    struct watch signals;
    struct server_process server;
    struct watchdog watchdog;
    struct programs programs;
    struct firewall firewall;
    struct child reader; /* of the ledger of ports */
    struct held held[LISTENERS_MAX];
};

/* --- again.c --- */

/* In a child that is about to be this program again: it ends with the keeper, hears every signal, and
 * has nothing in its environment that is the keeper's own. */
void again_begin(pid_t parent);

/* --- held.c --- */

void held_listen(struct keeper *, const struct keeper_message *); /* answers it */
void held_release(struct keeper *, const struct keeper_message *);
void held_release_all(struct keeper *);
void held_forget_wishes(struct keeper *);    /* a new server asks anew */
void held_release_unwanted(struct keeper *); /* what it did not ask for */

/* What systemd handed over stays here: fd/N asks for it. */
void held_handed_over(void);

/* --- firewall.c --- */

void firewall_init(struct keeper *);
void firewall_enforce(struct keeper *, int fd); /* takes the descriptor over */
void firewall_deinit(struct keeper *);

/* --- ledger_reader.c --- */

void reader_start(struct keeper *); /* answers with the pipe that it writes to */

/* --- systemd.c --- */

void systemd_notify(const char *text);
void systemd_ready(const char *status); /* of it the first line; empty: "serving" */
void systemd_reloading(void);
void watchdog_init(struct keeper *);

/* --- server_process.c --- */

void server_init(struct keeper *);
enum err server_start(struct keeper *);

/* Without waiting; false: it does not listen. */
bool server_tell(struct keeper *, enum keeper_kind);

/* Drains and ends, or (`now`, or told twice) ends at once. */
void server_stop(struct keeper *, bool now);
