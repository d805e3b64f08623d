/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of users, asked for once each.
 */
#pragma once

#include <sys/types.h>

#include "base/arena.h"
#include "base/buffer.h"

struct user_entry;

struct user_names {
    struct arena *arena;   /* holds the names */
    struct buffer passwd;  /* /etc/passwd */
    struct user_entry *seen; /* newest first */
};

void user_names_init(struct user_names *, struct arena *);
void user_names_deinit(struct user_names *);

/* Its name; the number as text when it has none. `home` may be NULL; "" when not known. */
struct slice user_name(struct user_names *, uid_t, const char **home);
