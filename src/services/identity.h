/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose a process is: user, group, further groups. Found by name (which may ask the network, so only
 * in a process that may wait) or read from another process.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/slice.h"

enum { IDENTITY_GROUPS = 64 }; /* more than these are left out, with an error */

struct identity {
    char name[64]; /* empty: read from a process */
    char home[256];
    uid_t uid;
    gid_t gid;
    gid_t groups[IDENTITY_GROUPS];
    int groups_count;
};

/* `user`: a name or a number. `group` likewise; empty: the user's own, and all that it belongs to,
 * else that one alone. A sentence on failure. */
enum err identity_find(struct slice user, struct slice group, struct identity *, char *error,
                       size_t cap);

/* The effective ones of a process, of /proc. */
enum err identity_of_process(pid_t, struct identity *);

/* For good: real, effective and saved ones. Needs SETUID and SETGID where something changes. */
enum err identity_become(const struct identity *, char *error, size_t cap);

/* Whether this process has them already. */
bool identity_is_mine(const struct identity *);

/* No capability but `kept` (CAP_…, -1: none) is to be had again by running a program. Before the
 * user changes: behind it nobody may. */
void rights_bound(int kept);

/* No capability but `kept`, which stays only where it was there. */
enum err rights_drop(int kept);
