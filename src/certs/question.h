/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs with a question behind them: ?domain=example.com.
 */
#pragma once

#include "base/arena.h"

struct question_pair {
    struct slice name, value;
};

/* The URL with pairs set in its query, in place of those of the same names; encoded. */
struct slice question_url(struct arena *, struct slice url, const struct question_pair *,
                          size_t count);
