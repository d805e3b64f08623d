/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other programs that this one starts and waits for: those that keep the machine's trust stores, those
 * of an operator that change his zones. Each call blocks: on a thread that may.
 */
#pragma once

#include <sys/types.h>

#include "base/slice.h"

enum { TOOL_OUTPUT_MAX = 2048, TOOL_TIMEOUT_S = 120 };

struct tool_user { /* as whom it runs */
    uid_t uid;
    gid_t gid;
    char home[256];
};

struct tool_call {
    const char *path;             /* of the program */
    const char *const *argv;      /* ends with NULL */
    const struct tool_user *user; /* NULL: as this process */
    const char *const *more_env;  /* "NAME=VALUE" besides this process's own; ends with NULL; NULL: none */
    uint64_t timeout_ns;          /* 0: TOOL_TIMEOUT_S */
};

struct tool_end {
    int error;  /* why it was not started: an errno; 0: it was */
    bool late;  /* it took too long, and was killed with all that it had started */
    int status; /* waitpid's */
    char output[TOOL_OUTPUT_MAX]; /* the end of what it wrote; without spaces at its own end */
};

/* Where in $PATH (and in the folders of the administrator's programs) it is; false: nowhere. */
bool tool_find(const char *name, char *path, size_t cap);

/* Runs it with no input, until it has ended. OK: with status 0. */
enum err tool_call(const struct tool_call *, struct tool_end *);

/* "ended with status 3", "was ended by signal 9", "did not end in time and was killed", "No such file
 * or directory": what went wrong. */
void tool_words(const struct tool_end *, char *out, size_t cap);

/* The same in short. `output` holds what it said, or what went wrong; never empty after a failure. */
enum err tool_run(const char *path, const char *const argv[], const struct tool_user *user,
                  char output[TOOL_OUTPUT_MAX]);
