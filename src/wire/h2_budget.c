/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spending is a decrement. Only at zero the clock is looked at.
 */
#include "wire/h2_budget.h"

#include "base/clock.h"

static const struct {
    const char *name;
    uint16_t most;       /* at once */
    uint16_t per_second; /* what grows back */
} budgets[H2_BUDGETS] = {
    [H2_RESETS] = {"too many streams were reset", 1000, 100},
    [H2_CONTROL] = {"too many control frames", 2000, 200},
    [H2_WINDOWS] = {"too many window updates", 4000, 400},
    [H2_EMPTY] = {"too many empty frames", 1000, 100},
};

void h2_budgets_init(struct h2_budgets *b, uint64_t now_ns)
{
    b->at_ns = now_ns;
    for (int i = 0; i < H2_BUDGETS; i++)
        b->left[i] = budgets[i].most;
}

void h2_refund(struct h2_budgets *b, enum h2_budget kind, unsigned n)
{
    unsigned left = b->left[kind] + n;
    b->left[kind] = (uint16_t)(left < budgets[kind].most ? left : budgets[kind].most);
}

static void grow(struct h2_budgets *b, uint64_t now_ns)
{
    uint64_t ms = (now_ns - b->at_ns) / NS_PER_MS;
    b->at_ns = now_ns;
    if (ms > 60000)
        ms = 60000;
    for (int i = 0; i < H2_BUDGETS; i++)
        h2_refund(b, i, (unsigned)(ms * budgets[i].per_second / 1000));
}

bool h2_spend(struct h2_budgets *b, enum h2_budget kind, uint64_t now_ns)
{
    if (b->left[kind] == 0 && now_ns - b->at_ns >= NS_PER_S / 10)
        grow(b, now_ns);
    if (b->left[kind] == 0)
        return false;
    b->left[kind]--;
    return true;
}

const char *h2_budget_name(enum h2_budget kind)
{
    return budgets[kind].name;
}
