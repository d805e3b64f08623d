/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other programs that this one starts and waits for: those that keep the machine's trust stores.
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

/* Where in $PATH (and in the folders of the administrator's programs) it is; false: nowhere. */
bool tool_find(const char *name, char *path, size_t cap);

/* Runs it with no input, and blocks until it has ended or TOOL_TIMEOUT_S are over. `user` NULL: as
 * this process. OK: it ended with status 0. Else `output` holds what it said, or why it could not be
 * run; never empty. */
enum err tool_run(const char *path, const char *const argv[], const struct tool_user *user,
                  char output[TOOL_OUTPUT_MAX]);
