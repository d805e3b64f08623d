/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Killing all that descends from this process, by /proc. This process is a subreaper, so each
 * process whose parent has ended becomes its child: killing and reaping until there is no child
 * left finds everything, whatever left its session or forked twice.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* One round: SIGKILL to every descendant but the children that `spare` names (NULL: none is spared)
 * and what descends from those. Returns how many were found; those that were forked meanwhile are
 * for the next round. */
unsigned tree_kill(bool (*spare)(pid_t child, void *context), void *context);

/* Rounds until no child is left; waits for their ends. The status of `first` (0: none) is stored
 * when it is among them. */
void tree_end(pid_t first, int *status);

/* Numbers in /proc are those of another pid namespace when it is not: then it tells nothing. */
bool proc_is_ours(void);
