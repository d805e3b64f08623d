/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to rolled files behind the log thread's back: old ones are deleted, the others
 * compressed. One thread of low priority, started at the first job, does it for all logs.
 */
#pragma once

#include "base/time_layout.h"

enum log_compression { LOG_COMPRESS_NONE, LOG_COMPRESS_GZIP, LOG_COMPRESS_ZSTD };

/* How rolled files are named, compressed and kept. */
struct log_rolled {
    struct time_layout layout; /* of the time in their names */
    bool local_time;
    enum log_compression compression;
    int64_t keep;      /* how many; 0: all */
    int64_t keep_days; /* 0: for ever */
};

/* The name that a file gets: "/d/access.log" → "/d/access-TIME-REASON.log". */
struct buffer;
enum err log_rolled_name(struct buffer *, const char *path, const struct log_rolled *,
                         int64_t wall_ns, const char *reason);

/* Looks after the rolled files of `path`, soon. */
void log_mill_add(const char *path, const struct log_rolled *);

/* The same, now, on the calling thread. */
void log_mill_run(const char *path, const struct log_rolled *);
