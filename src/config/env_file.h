/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of --envfile: NAME=value lines, quoted values over several lines, "#" comments.
 */
#pragma once

#include "base/arena.h"
#include "config/diag.h"

struct env_var {
    struct slice name;
    struct slice value;
};

/* Variables in the order of their first appearance; of a name that stands twice the last value.
 * Memory of the arena. */
MUST_USE enum err env_file_parse(struct arena *, struct slice text, struct env_var **out,
                                 size_t *count, struct diag *);
