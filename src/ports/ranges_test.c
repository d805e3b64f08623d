/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets of addresses: their arithmetic against a small world that is counted through, and their text.
 */
#include "base/test.h"
#include "ports/ranges.h"

static struct arena arena = {.chunk_size = 1 << 16};

static struct ranges make(const char *const *texts)
{
    struct ip_range items[16];
    size_t n = 0;
    for (; texts[n] != NULL; n++)
        CHECK(ip_range_parse(slice_from(texts[n]), &items[n]));
    return ranges_of(&arena, items, n);
}

#define MAKE(...) make((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

TEST("a set reads as its prefixes")
{
    CHECK_TEXT(ranges_text(MAKE("10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"), 9, &arena), "10.0.0.0/7");
    CHECK_TEXT(ranges_text(MAKE("192.0.2.1", "2001:db8::/32"), 9, &arena), "192.0.2.1, 2001:db8::/32");
    CHECK_TEXT(ranges_text(MAKE("0.0.0.0/0", "::/0"), 9, &arena), "0.0.0.0/0, ::/0");
    struct ranges r = ranges_minus(&arena, ranges_all(false), MAKE("10.0.0.0/8"));
    CHECK_TEXT(ranges_text(r, 3, &arena), "0.0.0.0/5, 8.0.0.0/7, 11.0.0.0/8 and 5 more");
}

TEST("whole families can be taken away and put together")
{
    struct ranges none = ranges_minus(&arena, ranges_all(true), ranges_all(true));
    CHECK_INT(none.count, 0);
    struct ranges both = ranges_or(&arena, ranges_all(true), ranges_all(false));
    CHECK_INT(both.count, 2);
    CHECK(ranges_equal(ranges_family(&arena, both, true), ranges_all(true)));
    CHECK(ranges_share(both, false) > 0.99 && ranges_share(both, true) > 0.99);
    struct ranges most = ranges_minus(&arena, both, MAKE("0.0.0.0", "255.255.255.255", "::"));
    CHECK_INT(most.count, 2);
}

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 16;
}

/* 256 addresses as bits. */
static struct ranges of_bits(const uint8_t bits[256])
{
    struct ip_range items[256];
    size_t n = 0;
    for (unsigned i = 0; i < 256; i++) {
        struct ip_address a = {0, {10, 0, 0, (uint8_t)i}};
        if (bits[i])
            items[n++] = (struct ip_range){a, a};
    }
    return ranges_of(&arena, items, n);
}

static bool has(struct ranges r, unsigned i)
{
    struct ip_set set = {(struct ip_range *)(uintptr_t)r.items, r.count};
    struct ip_address a = {0, {10, 0, 0, (uint8_t)i}};
    return ip_set_has(&set, &a);
}

TEST("and, or and minus agree with counting through")
{
    uint8_t x[256], y[256];
    uint32_t seed = 7;
    for (int round = 0; round < 300; round++) {
        int density = 1 + (int)(next(&seed) % 12);
        for (int i = 0; i < 256; i++) {
            x[i] = (int)(next(&seed) % 12) < density;
            y[i] = (int)(next(&seed) % 12) < density;
        }
        struct ranges a = of_bits(x), b = of_bits(y);
        struct ranges and = ranges_and(&arena, a, b), or = ranges_or(&arena, a, b);
        struct ranges minus = ranges_minus(&arena, a, b);
        for (unsigned i = 0; i < 256; i++) {
            CHECK(has(and, i) == (x[i] && y[i]));
            CHECK(has(or, i) == (x[i] || y[i]));
            CHECK(has(minus, i) == (x[i] && !y[i]));
        }
        CHECK(ranges_equal(a, ranges_or(&arena, and, minus)));
        arena_reset(&arena);
    }
}
