/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A warden stands between the keeper and one program: its parent, and the subreaper of all that
 * descends from it. It ends the whole tree when the program ends, when it is told to, and when the
 * keeper is gone. It speaks supervisor_wire.h with the keeper.
 */
#pragma once

#include "services/spawn.h"

struct warden {
    int wire;           /* its end of a SOCK_SEQPACKET pair */
    int output, errors; /* the writing ends that stdout and stderr become; -1: spawn.stdio is complete */
    struct spawn spawn;
};

/* In a process that was just forked for it. Keeps the descriptors that are named, and closes all
 * others but 2. It sends STARTED with a pidfd, or FAILED; EXITED when nothing is left; then it
 * ends. It obeys STOP and SIGNAL. */
_Noreturn void warden_run(struct warden *);
