/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expressions of the expression matcher: the part of CEL (github.com/google/cel-spec) that requests are
 * matched by. Parsed and checked at provision into a tree in the generation's arena, then only read.
 *
 * There: literals, lists, maps, || && ! == != < <= > >= in + - * / % ?: [] and ".", size int double
 * string, the common methods of strings, request matchers as functions (path('/a'), header({…}))
 * and placeholders. Not there: macros (all, exists, map …), bytes, time, messages.
 */
#pragma once

#include "http/regexp.h"
#include "http/route.h"

enum cel_type { CEL_NULL, CEL_BOOL, CEL_INT, CEL_DOUBLE, CEL_STRING, CEL_LIST, CEL_MAP, CEL_DYN };

struct cel_value {
    enum cel_type type;
    bool is_placeholder; /* text that compares with numbers and truths by what it says */
    union {
        bool truth;
        int64_t integer;
        double real;
        struct slice text;
        struct {
            struct cel_value *items; /* of maps: key, value, key, value … */
            size_t count;            /* of maps: pairs */
        };
    };
};

enum cel_kind {
    CEL_LITERAL, CEL_MAKE_LIST, CEL_MAKE_MAP, CEL_PLACEHOLDER, CEL_MATCHER, CEL_NOT, CEL_MINUS,
    CEL_OR, CEL_AND, CEL_CHOICE, CEL_INDEX, CEL_BINARY, CEL_CALL,
};

enum cel_operator { CEL_EQ, CEL_NE, CEL_LT, CEL_LE, CEL_GT, CEL_GE, CEL_IN, CEL_ADD, CEL_SUB,
                    CEL_MUL, CEL_DIV, CEL_MOD };

struct cel_node {
    enum cel_kind kind;
    enum cel_type type; /* as far as it is known; CEL_DYN else */
    struct cel_node **args;
    size_t count;
    union {
        struct cel_value value;         /* literals */
        struct placeholder placeholder;
        struct matcher matcher;
        enum cel_operator operator;
        const struct cel_function *function;
    };
    struct regexp *regexp; /* of matches() */
};

/* A function of values; args[0] is the target when it is called as a method. */
struct cel_function {
    const char *name;
    bool method;
    size_t min, max; /* arguments, with the target */
    enum cel_type type;
    enum err (*run)(struct exchange *, const struct cel_node *, const struct cel_value *args,
                    size_t count, struct cel_value *out);
};
const struct cel_function *cel_function_find(struct slice name, bool method);

/* Parses; the result is a truth. `name` is the default of capturing matchers. ERR_INVALID with
 * provision's sentence. */
enum err cel_compile(struct provision *, struct slice text, struct slice name,
                     struct cel_node **out);

/* On the exchange's fiber; may wait. The exchange fails with 500 when an operation has no result. */
enum err cel_match(const struct cel_node *, struct exchange *, bool *matches);
