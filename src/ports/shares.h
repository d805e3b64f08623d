/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads for one piece of work over a list, and no longer.
 */
#pragma once

#include <stddef.h>

enum { SHARES_MAX = 4 };

/* How many would share a list of this length: as many as there are cores, at most SHARES_MAX, of
 * `enough` items each: fewer are not worth a thread. */
size_t share_count(size_t count, size_t enough);

/* Calls `work` for each of `size` neighbouring shares of 0 … count, one of them on this thread, and
 * returns when all have returned. Signals are not taken by the others. */
void share_run(size_t size, size_t count,
              void (*work)(void *arg, size_t member, size_t from, size_t to), void *arg);
