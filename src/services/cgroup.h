/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control group (version 2) for each program, below the keeper's own where that one is delegated:
 * it ends a program with all that it ever started, in one step, and holds its limits. Where none is
 * delegated there is none, and a launch with limits is refused.
 */
#pragma once

#include "services/launch.h"

struct cgroups {
    int folder;      /* the keeper's own group; -1: none is delegated */
    bool prepared;   /* for limits */
    bool memory, cpu, tasks; /* which controllers programs may be limited by */
    char why[200];   /* why not, as the end of a sentence */
};

/* What version 2 controls where it is mounted ("cpu memory pids"; empty where version 1 has it all);
 * false: it is not mounted. */
bool cgroup_controllers(char *names, size_t cap);

/* Looks for the group of this process. Groups that a keeper which is gone has left are ended and
 * removed. */
void cgroups_init(struct cgroups *);

/* The same in `folder`, for tests; takes it over. */
void cgroups_init_at(struct cgroups *, int folder);
void cgroups_deinit(struct cgroups *);

/* A new group with the launch's limits: its folder, or -1 when there is none to be had and none is
 * needed. ERR_UNSUPPORTED with a sentence when a limit can not be kept. Before the first one with a
 * limit, what is in the keeper's group moves to a group "keeper" below it, so that controllers can be
 * given to others beside it (a group with processes may not hand any on). */
enum err cgroup_create(struct cgroups *, const struct launch *, uint64_t instance, int *folder,
                       char *error, size_t cap);

/* SIGKILL to all in it. Also of -1, which does nothing, as do the other ones. */
void cgroup_kill(int folder);

/* Ends and removes the one of a program whose warden can not. */
void cgroup_end(const struct cgroups *, struct slice service, uint32_t replica, uint64_t instance);

/* Why something in it was killed: a sentence, or empty. */
void cgroup_why(int folder, char *text, size_t cap);

/* Removes it, when nothing is in it any more, and closes `folder`. */
void cgroup_remove(int folder);
