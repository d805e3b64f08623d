/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in the file system that match a pattern. Blocks: for the offload pool.
 */
#pragma once

#include "base/slice.h"

enum {
    FILE_GLOB_MATCHES = 1000,    /* more are left out */
    FILE_GLOB_SEEN = 100 * 1000, /* names looked at, over all folders of one pattern */
};

struct file_glob {
    char *pattern;  /* in: absolute, NUL-terminated, with base/glob.h's rules per segment */
    char **matches; /* out: malloc'd names in the order of their bytes */
    size_t count, cap;
    size_t seen;
};

/* Whether a pattern can match anything but the one name that pattern_literal makes of it. */
bool pattern_is_literal(struct slice pattern);

/* The name without its escapes, into `out` of pattern.len bytes; the length of it. */
size_t pattern_literal(struct slice pattern, char *out);

/* `glob` is a struct file_glob (the type that await_offload wants). */
void file_glob_run(void *glob);
void file_glob_free(struct file_glob *);
