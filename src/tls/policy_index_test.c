/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index gives what a look at one policy after the other gives, whatever the policies are.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/test.h"
#include "pki/subject.h"
#include "tls/policy_index.h"

enum { POLICIES = 24, NAMES = 4, ROUNDS = 4000 };

static uint64_t state;

static unsigned draw(unsigned below)
{
    state = state * 6364136223846793005 + 1442695040888963407;
    return (unsigned)(state >> 33) % below;
}

static const char *const labels[] = {"a", "b", "example", "*", "A", "xn--p1ai", ""};

/* Some of few, so that they meet. */
static struct slice draw_name(struct arena *arena, bool pattern)
{
    struct slice name = SLICE("");
    unsigned count = draw(20) == 0 ? 0 : 1 + draw(4);
    for (unsigned i = 0; i < count; i++) {
        unsigned which = draw(20) == 0 ? draw(7) : draw(pattern ? 4 : 3);
        name = arena_join(arena, (struct slice[]){name, i > 0 ? SLICE(".") : SLICE(""),
                                                  slice_from(labels[which])}, 3);
    }
    return name;
}

static bool by_chance(const void *cfg, const struct tls_hello *h)
{
    uintptr_t n = (uintptr_t)cfg; /* agrees with some of all names */
    for (size_t i = 0; i < h->server_name.len; i++)
        n = n * 31 + (unsigned char)h->server_name.ptr[i];
    return n % 3 > 0;
}

static const struct tls_policy *one_by_one(const struct tls_policy *policies, size_t count,
                                           const struct tls_hello *h)
{
    for (size_t i = 0; i < count; i++) {
        const struct tls_policy *p = &policies[i];
        bool named = !p->by_name;
        for (size_t n = 0; n < p->names_count; n++)
            named = named || subject_matches(h->server_name, p->names[n]);
        if (named && policy_agrees(p, h))
            return p;
    }
    return NULL;
}

static void draw_policy(struct tls_policy *p, struct tls_matcher *m, struct arena *arena)
{
    *p = (struct tls_policy){.by_name = draw(5) > 0, .matchers = m, .matchers_count = draw(3)};
    if (!p->by_name && draw(4) > 0)
        p->matchers_count = 1 + draw(2); /* else none behind it is ever asked */
    for (size_t i = 0; i < p->matchers_count; i++)
        m[i] = (struct tls_matcher){by_chance, (void *)(uintptr_t)draw(1000)};
    p->names_count = p->by_name ? draw(NAMES) : 0;
    p->names = ARENA_ARRAY(arena, struct slice, NAMES);
    for (size_t i = 0; i < p->names_count; i++)
        p->names[i] = draw_name(arena, true);
}

TEST("the index gives what a look at one policy after the other gives")
{
    unsigned found = 0;
    for (state = 1; state < ROUNDS;) {
        uint64_t seed = state;
        struct arena arena;
        struct tls_policy policies[POLICIES];
        struct tls_matcher matchers[POLICIES][2];
        arena_init(&arena, 16384);
        size_t count = draw(POLICIES + 1);
        for (size_t i = 0; i < count; i++)
            draw_policy(&policies[i], matchers[i], &arena);
        struct policy_index *x = policy_index_create(policies, count);
        for (int i = 0; i < 20; i++) {
            struct tls_hello h = {.server_name = draw_name(&arena, false)};
            const struct tls_policy *want = one_by_one(policies, count, &h);
            const struct tls_policy *got = policy_index_find(x, &h);
            if (got != want)
                test_fail(__FILE__, __LINE__, "seed %" PRIu64 ", name \"" SLICE_FMT "\"", seed,
                          SLICE_ARG(h.server_name));
            found += got != NULL;
        }
        policy_index_free(x);
        arena_deinit(&arena);
        state = seed + 1;
    }
    CHECK(found > ROUNDS);
}

static struct slice site(size_t i, struct arena *arena)
{
    return arena_printf(arena, "site-%zu.example", i);
}

static uint64_t time_of(size_t count)
{
    struct arena arena;
    struct policy_index *x;
    struct tls_policy *all = mem_alloc((count + 1) * sizeof *all);
    arena_init(&arena, 65536);
    for (size_t i = 0; i < count; i++) {
        struct slice *name = ARENA_NEW(&arena, struct slice);
        *name = site(i, &arena);
        all[i] = (struct tls_policy){.by_name = true, .names = name, .names_count = 1};
    }
    all[count] = (struct tls_policy){0};
    x = policy_index_create(all, count + 1);
    uint64_t began = clock_mono_ns();
    for (size_t i = 0; i < 20000; i++) {
        struct tls_hello h = {.server_name = site(i % (count + 1), &arena)};
        CHECK(policy_index_find(x, &h) == &all[i % (count + 1)]);
    }
    uint64_t took = clock_mono_ns() - began;
    policy_index_free(x);
    arena_deinit(&arena);
    mem_free(all);
    return took;
}

TEST("of ten thousand policies one is found in about the time of ten")
{
    uint64_t few = time_of(10), many = time_of(10000);
    CHECK(many < 50 * few + 50 * NS_PER_MS); /* one by one it would be hundreds of times */
}

TEST("a name of very many labels is looked for within bounds")
{
    char long_name[SUBJECT_MAX + 1], stars[SUBJECT_MAX + 1];
    for (size_t i = 0; i < SUBJECT_MAX; i++) {
        long_name[i] = i % 2 == 0 ? 'a' : '.';
        stars[i] = i % 2 == 0 ? '*' : '.';
    }
    struct slice names[] = {slice_of(stars, SUBJECT_MAX), SLICE("*")};
    struct tls_policy p = {.by_name = true, .names = names, .names_count = 2};
    struct policy_index *x = policy_index_create(&p, 1);
    struct tls_hello h = {.server_name = slice_of(long_name, SUBJECT_MAX)};
    CHECK(policy_index_find(x, &h) == &p);
    h.server_name.len -= 2;
    CHECK(policy_index_find(x, &h) == NULL);
    h.server_name.len = 1;
    CHECK(policy_index_find(x, &h) == &p);
    h.server_name.len = 0;
    CHECK(policy_index_find(x, &h) == NULL);
    policy_index_free(x);
}
