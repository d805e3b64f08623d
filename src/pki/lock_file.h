/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands in a lock file: {"created":"…","updated":"…"}, times as Go writes them.
 */
#pragma once

#include "base/slice.h"

enum { LOCK_FILE_MAX = 2048 };

/* A line of constant length. Returns how long. */
size_t lock_file_write(int64_t created_ns, int64_t updated_ns, char out[LOCK_FILE_MAX]);

/* When it was last refreshed, else created; false when it does not say. */
bool lock_file_read(struct slice text, int64_t *updated_ns);

/* RFC 3339 with a zone and any number of digits behind the second; wall-clock nanoseconds. Times that
 * these cannot tell (before 1678, after 2261) are the nearest that they can. */
bool rfc3339_read(struct slice, int64_t *wall_ns);
