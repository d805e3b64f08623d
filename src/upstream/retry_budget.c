/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retries are paid for by requests that came before them, so at no time have there been more than the share
 * and the few of each second: an upstream that fails everything gets so much more and not a multiple. What
 * is saved has a limit, or a good day would pay for a bad minute all at once. Atomics alone, with no
 * clock where requests come.
 */
#include "upstream/retry_budget.h"

#include "base/clock.h"

#define ONE INT64_C(1000000)

void retry_budget_init(struct retry_budget *b, double share, uint32_t each_second)
{
    *b = (struct retry_budget){.share = (int64_t)(share * (double)ONE + 0.5), .each_second = each_second};
}

void retry_budget_add(struct retry_budget *b)
{
    if (atomic_load_explicit(&b->saved, memory_order_relaxed) < BUDGET_SAVED_MAX * ONE)
        atomic_fetch_add_explicit(&b->saved, b->share, memory_order_relaxed);
}

static bool take_of_second(struct retry_budget *b, uint64_t now_ns)
{
    uint32_t second = (uint32_t)(now_ns / NS_PER_S);
    uint64_t old = atomic_load(&b->second), new;
    do {
        uint32_t given = (uint32_t)(old >> 32) == second ? (uint32_t)old : 0;
        if (given >= b->each_second)
            return false;
        new = (uint64_t)second << 32 | (given + 1);
    } while (!atomic_compare_exchange_weak(&b->second, &old, new));
    return true;
}

bool retry_budget_take(struct retry_budget *b, uint64_t now_ns)
{
    int64_t saved = atomic_load(&b->saved);
    while (saved >= ONE)
        if (atomic_compare_exchange_weak(&b->saved, &saved, saved - ONE))
            return true;
    return take_of_second(b, now_ns);
}
