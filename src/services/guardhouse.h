/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guardhouse is the one process that forks wardens, between them and the keeper: the subreaper
 * of all of them. Of a program's three guards (keeper, guardhouse, warden) any two may be killed, and
 * the third ends the program's tree. It has those of the keeper's rights that this needs, does nothing
 * else, and has them awake while it starts or ends a program.
 */
#pragma once

#include "services/identity.h"
#include "services/supervisor_wire.h"
#include "services/warden.h"

/* What START carries in place of its text. */
struct guard_order {
    uint32_t exec; /* three descriptors of stdio instead of two of output */
    uint32_t has_socket, has_cgroup, any_user;
    uid_t uid; /* the server's */
    gid_t gid;
    int32_t groups_count;
    gid_t groups[IDENTITY_GROUPS];
};

/* The memory of a process's arguments, which ps shows: it and what it forks are told apart there. */
struct title {
    char *text;
    size_t room;
};
struct title title_of(char **argv);

/* In a process that was just forked for it; `wire` is its end of a SOCK_SEQPACKET pair with the
 * keeper, which sends START (order; descriptors: launch, the warden's wire, output or stdio, socket,
 * cgroup) and SIGNAL (to a warden, by instance). It answers with one EXITED when a warden has ended
 * and nothing of its program is left (status: the warden's), or FAILED. `rights`: true before what needs
 * them, false behind it. */
_Noreturn void guardhouse_run(int wire, struct rlimit files, struct title title,
                              void (*rights)(bool awake));

/* START, from the warden that it shall become. Waits for room, for a second at most: ERR_TIMEOUT. */
enum err guardhouse_order(int wire, uint64_t instance, int launch, const struct warden *);
