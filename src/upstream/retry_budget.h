/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many requests may be repeated: a share of those that come, saved up to a limit, and a few each
 * second in any case. Shared by all workers.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { BUDGET_SAVED_MAX = 100 }; /* retries */

struct retry_budget {
    _Atomic int64_t saved; /* millionths of a retry */
    int64_t share;         /* of each request, likewise */
    _Atomic uint64_t second; /* which one, and how many were given in it: 32 bits each */
    uint32_t each_second;
};

void retry_budget_init(struct retry_budget *, double share, uint32_t each_second);

/* A request has come. */
void retry_budget_add(struct retry_budget *);

/* Whether one may be repeated, which counts. */
bool retry_budget_take(struct retry_budget *, uint64_t now_ns);
