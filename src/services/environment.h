/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a service finds in its environment. Nothing of portico's own but PATH, LANG, LC_*, and TZ; who
 * it is (HOME, USER, LOGNAME, SHELL); where it shall listen (PORT, HOST); then its files of
 * variables, then `env`. The later one counts.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"
#include "services/service.h"

enum { ENVIRONMENT_FILE_MAX = 1 << 20, ENVIRONMENT_MAX = 4096 };

bool environment_name_ok(struct slice name);

/* A whole file; 0, or an errno. */
int environment_load(struct slice path, struct buffer *);

/* Text with {port}, {host} and {replica} (from 1) filled in; other braces stay as they are. */
struct slice environment_expand(struct slice text, const struct service *, uint16_t port,
                                uint32_t replica, struct arena *);

/* "NAME=value" texts of a replica in the arena. ERR_INVALID with a sentence. */
enum err environment_make(const struct service *, uint16_t port, uint32_t replica, struct arena *,
                          struct slice **env, size_t *count, char *error, size_t cap);
