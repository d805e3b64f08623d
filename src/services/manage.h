/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the manager share; all of it is the control thread's.
 *
 *   managed   a service by its name: what is wanted of it, its slots, its last lines
 *   version   a description, as a configuration gave it; shared by what was started by it
 *   slot      one replica: a number from 0 and at most two programs, the one that serves and the one
 *             that shall take over from it
 *   program   one process, from its START to its EXITED
 */
#pragma once

#include "base/list.h"
#include "loop/await.h"
#include "loop/loop.h"
#include "services/output.h"
#include "services/registry.h"
#include "services/supervisor_wire.h"

enum { PROGRAMS_MAX = 2048, WHY_MAX = 512 };

struct allowed;
struct folder_watch;

struct version {
    unsigned refs;
    struct arena arena;
    struct service service;
};

struct program {
    struct list node; /* of overseer.programs */
    uint64_t instance, digest;
    struct managed *owner;
    struct version *version;
    struct slot *slot; /* NULL: it is not needed any more */
    uint32_t replica;
    uint16_t port;
    enum replica_state state;
    int32_t pid;
    int pidfd;
    struct output output, errors;
    struct endpoint *endpoint;
    struct fiber *probe; /* asks whether it is ready, then whether it is well */
    struct timer drain;  /* until its last request has ended */
    uint64_t drain_by_ns, start_ns, ready_ns, sick_ns;
    int64_t started_wall_ns;
    unsigned passes, fails; /* of health checks, in a row */
    bool told_to_stop, told_started;
    bool stale;  /* to be replaced, though its description is the same */
    bool failed; /* it is being stopped since it was of no use: `why` */
    bool trial;  /* it shares a socket with the one before it, and its health has not yet been seen alone */
    char note[128], why[128]; /* note: what is not to be had here */
};

struct slot {
    struct managed *owner;
    uint32_t number;
    struct program *now, *next;
    struct timer retry;
    unsigned failures; /* in a row */
    uint16_t port;     /* the last one */
    bool gave_up, ended; /* ended: by itself, and that is all right */
    char why[WHY_MAX]; /* how it last ended */
};

struct managed {
    struct list node; /* of overseer.services */
    struct slice name;
    char logger[96];
    struct service_handle *handle;
    struct version *version;
    struct version *good; /* whose program was ready last */
    struct slot *slots;   /* REPLICAS_MAX, made once */
    uint32_t replicas;    /* as it is wanted now */
    bool wanted, paused, demanded;
    bool released;       /* those that it comes after are ready, or were when it started */
    bool roll_failed;    /* what was new, by whatever cause, did not become ready */
    struct timer idle;
    struct folder_watch *watch;
    struct lines lines;
    uint64_t starts, exits, crashes, check_failures, rolls;
    struct endpoint *published[REPLICAS_MAX]; /* what workers see; not held */
    uint32_t published_count;
    bool published_closed, published_once, published_wanted;
    const struct version *published_version; /* not held: to compare */
    char last_why[WHY_MAX];
};

struct overseer {
    struct loop *loop;
    int fd; /* the pair to the keeper; -1: there is none */
    struct op op;
    struct list services, programs;
    unsigned programs_count;
    struct list commands; /* health commands that run: health.c */
    struct task settle;
    bool settling, stopping, stopped_told;
    struct allowed *allowed; /* users that were settled with the first configuration */
    void (*stopped)(void);
    uint64_t next_instance;
};
extern struct overseer overseer;

/* --- manage.c --- */

/* Something changed: looks at every service later in this turn. */
void overseer_settle(void);
struct managed *overseer_find(struct slice name);
struct managed *overseer_own(struct slice name); /* made when there is none; NULL: there are too many */
void overseer_renew(struct managed *); /* a new process for each replica, in turn */
void version_ref(struct version *);
void version_unref(struct version *);

/* It works: what is to go on when a later one does not. */
void slot_proven(struct slot *, struct program *);

/* Told by program.c. `status`: as of waitpid; -1: it could not be started. */
void slot_ready(struct slot *, struct program *);
void slot_ended(struct slot *, struct program *, bool asked, int status, const char *why);

/* --- program.c --- */

/* Starts one for the slot; NULL when that cannot be, with the slot's `why`. */
struct program *program_start(struct slot *, uint16_t port);

/* Takes it out of what workers see, waits for its requests, then stops it. */
void program_retire(struct program *);
void program_condemn(struct program *, const char *why);

struct launch;
enum err program_launch(const struct service *, const struct slice *words, size_t count,
                        uint16_t port, uint32_t replica, struct arena *, struct launch *,
                        char *error, size_t cap);

/* From the keeper. */
void program_started(struct program *, const struct supervisor_message *, const int *fds,
                     unsigned count);
void program_exited(struct program *, const struct supervisor_message *);
struct program *program_adopt(const struct supervisor_message *, const int *fds, unsigned count);
void program_attach(struct program *, struct slot *); /* an adopted one finds its place */

bool program_usable(const struct program *);

/* Whether another one answers on its socket. */
bool program_is_alone(const struct program *);
void program_proven(struct program *); /* its trial is over */

/* From health.c. */
void program_ready(struct program *); /* also: well again */
void program_unwell(struct program *, const char *why);
void program_probe_ended(struct program *);

/* --- health.c --- */
void probe_start(struct program *); /* from the loop's stack */
void probe_stop(struct program *);
void health_command_ended(uint64_t instance, int status, bool failed);

/* --- ports_kept.c --- */
void ports_open(struct slice folder);
void ports_settle(void); /* behind a change of what is wanted: what is gone is kept for a while only */

/* Whether a program may have another port while the last one still runs. */
bool ports_can_overlap(const struct service *);

/* The port of a slot's next program: a fixed one, or a kept one that no program of the service uses,
 * `wanted` when it can be had. 0: none is free, with the reason. */
uint16_t port_for(const struct slot *, uint16_t wanted, char *why, size_t cap);
void ports_close(void);

/* --- folder_watch.c --- */
struct folder_watch *folder_watch_open(struct managed *);
void folder_watch_close(struct folder_watch *);
