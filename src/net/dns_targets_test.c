/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of a service's targets; what DNS answers is asked in tests/dynamic_test.py.
 */
#include "base/test.h"
#include "net/dns_targets.h"

static uint32_t state = 7;

static uint32_t below(uint32_t n)
{
    state = state * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)state * n >> 32);
}

static struct dns_target target(const char *host, unsigned priority, unsigned weight)
{
    struct dns_target t = {.priority = (uint16_t)priority, .weight = (uint16_t)weight};
    snprintf(t.host, sizeof t.host, "%s", host);
    return t;
}

TEST("targets come by priority, and within one as often first as their weights say")
{
    int first[3] = {0}, last = 0;
    for (int i = 0; i < 4000; i++) {
        struct dns_target items[] = {target("z", 9, 60000), target("a", 1, 3), target("b", 1, 1),
                                     target("c", 1, 0)};
        struct dns_targets t = {.items = items, .count = 4};
        dns_targets_order(&t, below);
        CHECK_INT(items[3].host[0], 'z');
        first[items[0].host[0] - 'a']++;
        last += items[2].host[0] == 'c';
    }
    CHECK(first[0] > 2800 && first[0] < 3200);
    CHECK_INT(first[0] + first[1], 4000);
    CHECK_INT(last, 4000);
}

TEST("no targets, one, and many without weights stay whole")
{
    struct dns_targets t = {0};
    struct dns_target items[64];
    bool seen[64] = {false};
    dns_targets_order(&t, below);
    for (int i = 0; i < 64; i++) {
        items[i] = target("h", (unsigned)i % 3, 0);
        items[i].port = (uint16_t)i;
    }
    t = (struct dns_targets){.items = items, .count = 1};
    dns_targets_order(&t, below);
    CHECK_INT(items[0].port, 0);
    t.count = 64;
    dns_targets_order(&t, below);
    for (int i = 0; i < 64; i++) {
        CHECK(!seen[items[i].port]);
        seen[items[i].port] = true;
        CHECK(i == 0 || items[i].priority >= items[i - 1].priority);
    }
}
