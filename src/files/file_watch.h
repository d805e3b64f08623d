/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel tells of changes below watched folders (inotify), for all open-file caches of the
 * process. Asking costs two atomic loads. It is a help, not a promise: a folder that is not watched,
 * an event that is late or lost, are made good by the caches' own checks.
 */
#pragma once

#include "base/slice.h"

enum {
    FILE_WATCH_FOLDERS = 4096, /* of the process; more are not watched */
    FILE_WATCH_SLOTS = 4096,
};

/* Asks for the folder of an absolute name, and those above it, to be watched from soon on. When that
 * has begun, every name's state changes: what was learned until then must be looked at again. */
void file_watch_folder_of(struct slice path);

/* The slot of a name. */
unsigned file_watch_slot(struct slice path);

/* Changes after each event that may concern a name of that slot, or a folder above it. */
uint64_t file_watch_state(unsigned slot);
