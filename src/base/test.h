/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unit tests: a file beside its source holds TEST("a sentence that is true") { … } blocks. The
 * program runs all of them, or those whose name contains its first argument, and prints TAP.
 * A failed CHECK ends its test, not the program.
 */
#pragma once

#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/slice.h"

struct test_case {
    const char *name;
    void (*run)(void);
    struct test_case *next;
};

void test_register(struct test_case *);
_Noreturn void test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void test_skip(const char *why);

/* A new empty folder, absolute and below /tmp; it goes with all that is in it when the program ends. */
void test_folder(char *path, size_t cap);

#define TEST_JOIN2(a, b) a##b
#define TEST_JOIN(a, b) TEST_JOIN2(a, b)
#define TEST(sentence) TEST_AT(sentence, TEST_JOIN(test_, __COUNTER__))
#define TEST_AT(sentence, id)                                                                      \
    static void id(void);                                                                          \
    __attribute__((constructor)) static void TEST_JOIN(register_, id)(void)                        \
    {                                                                                              \
        static struct test_case it = {sentence, id, NULL};                                         \
        test_register(&it);                                                                        \
    }                                                                                              \
    static void id(void)

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            test_fail(__FILE__, __LINE__, "%s", #cond);                                            \
    } while (0)

#define CHECK_INT(got, want)                                                                       \
    do {                                                                                           \
        intmax_t got_ = (intmax_t)(got), want_ = (intmax_t)(want);                                 \
        if (got_ != want_)                                                                         \
            test_fail(__FILE__, __LINE__, "%s is %" PRIdMAX ", want %" PRIdMAX, #got, got_, want_);\
    } while (0)

#define CHECK_SLICE(got, want)                                                                     \
    do {                                                                                           \
        struct slice got_ = (got), want_ = (want);                                                 \
        if (!slice_eq(got_, want_))                                                                \
            test_fail(__FILE__, __LINE__, "%s is \"%.*s\", want \"%.*s\"", #got, SLICE_ARG(got_),  \
                      SLICE_ARG(want_));                                                           \
    } while (0)

#define CHECK_TEXT(got, want) CHECK_SLICE(got, slice_from(want))
#define CHECK_OK(expression) CHECK_INT(expression, OK)
