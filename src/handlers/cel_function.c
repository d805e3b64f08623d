/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions of values that expressions have: CEL's conversions and the methods of strings.
 */
#include <stdlib.h>

#include "base/buffer.h"
#include "base/text.h"
#include "handlers/cel.h"

#define RUN(name)                                                                                  \
    static enum err name(struct exchange *x, const struct cel_node *n,                             \
                         const struct cel_value *args, size_t count, struct cel_value *out)

static enum err no_result(struct exchange *x, const char *why)
{
    return exchange_fail_f(x, 500, "evaluating expression: %s", why);
}

static bool are_texts(const struct cel_value *args, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (args[i].type != CEL_STRING)
            return false;
    }
    return true;
}

#define NEED_TEXTS(count)                                                                          \
    do {                                                                                           \
        if (!are_texts(args, count))                                                               \
            return no_result(x, "no such overload: strings are needed");                           \
    } while (0)

static int64_t rune_count(struct slice s)
{
    int64_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
    return n;
}

RUN(run_size)
{
    (void)n;
    (void)count;
    *out = (struct cel_value){.type = CEL_INT};
    if (args[0].type == CEL_STRING)
        out->integer = rune_count(args[0].text);
    else if (args[0].type == CEL_LIST || args[0].type == CEL_MAP)
        out->integer = (int64_t)args[0].count;
    else
        return no_result(x, "size of what has none");
    return OK;
}

RUN(run_int)
{
    (void)n;
    (void)count;
    *out = (struct cel_value){.type = CEL_INT};
    if (args[0].type == CEL_INT)
        out->integer = args[0].integer;
    else if (args[0].type == CEL_DOUBLE && args[0].real > -9e18 && args[0].real < 9e18)
        out->integer = (int64_t)args[0].real;
    else if (args[0].type != CEL_STRING || !slice_to_i64(args[0].text, &out->integer))
        return no_result(x, "int() of what is no whole number");
    return OK;
}

RUN(run_double)
{
    char copy[64], *end;
    (void)n;
    (void)count;
    *out = (struct cel_value){.type = CEL_DOUBLE};
    if (args[0].type == CEL_DOUBLE || args[0].type == CEL_INT) {
        out->real = args[0].type == CEL_INT ? (double)args[0].integer : args[0].real;
        return OK;
    }
    if (args[0].type != CEL_STRING || args[0].text.len == 0 || args[0].text.len >= sizeof copy)
        return no_result(x, "double() of what is no number");
    memcpy(copy, args[0].text.ptr, args[0].text.len);
    copy[args[0].text.len] = '\0';
    out->real = strtod(copy, &end);
    return end == copy + args[0].text.len ? OK : no_result(x, "double() of what is no number");
}

RUN(run_string)
{
    (void)n;
    (void)count;
    *out = (struct cel_value){.type = CEL_STRING};
    if (args[0].type == CEL_STRING)
        out->text = args[0].text;
    else if (args[0].type == CEL_INT)
        out->text = arena_printf(x->arena, "%lld", (long long)args[0].integer);
    else if (args[0].type == CEL_DOUBLE)
        out->text = arena_printf(x->arena, "%.15g", args[0].real);
    else if (args[0].type == CEL_BOOL)
        out->text = args[0].truth ? SLICE("true") : SLICE("false");
    else
        return no_result(x, "string() of what has no text");
    return OK;
}

RUN(run_contains)
{
    (void)n;
    NEED_TEXTS(count);
    *out = (struct cel_value){.type = CEL_BOOL,
                              .truth = slice_find_slice(args[0].text, args[1].text) != SIZE_MAX};
    return OK;
}

RUN(run_starts)
{
    (void)n;
    NEED_TEXTS(count);
    *out = (struct cel_value){.type = CEL_BOOL, .truth = slice_starts(args[0].text, args[1].text)};
    return OK;
}

RUN(run_ends)
{
    (void)n;
    NEED_TEXTS(count);
    *out = (struct cel_value){.type = CEL_BOOL, .truth = slice_ends(args[0].text, args[1].text)};
    return OK;
}

RUN(run_matches)
{
    struct slice groups[REGEXP_GROUPS_MAX];
    size_t found;
    NEED_TEXTS(count);
    *out = (struct cel_value){.type = CEL_BOOL};
    if (regexp_match(n->regexp, args[0].text, groups, &found) != OK)
        return no_result(x, "a regular expression took too long to match");
    out->truth = found > 0;
    return OK;
}

static struct slice change_case(struct exchange *x, struct slice text, bool upper)
{
    char *copy = arena_str(x->arena, text);
    for (size_t i = 0; i < text.len; i++) {
        bool is_lower = copy[i] >= 'a' && copy[i] <= 'z';
        copy[i] = upper && is_lower ? (char)(copy[i] & ~0x20) : upper ? copy[i] : ascii_lower(copy[i]);
    }
    return slice_of(copy, text.len);
}

RUN(run_lower)
{
    (void)n;
    NEED_TEXTS(count);
    *out = (struct cel_value){.type = CEL_STRING, .text = change_case(x, args[0].text, false)};
    return OK;
}

RUN(run_upper)
{
    (void)n;
    NEED_TEXTS(count);
    *out = (struct cel_value){.type = CEL_STRING, .text = change_case(x, args[0].text, true)};
    return OK;
}

RUN(run_trim)
{
    (void)n;
    NEED_TEXTS(count);
    *out = (struct cel_value){.type = CEL_STRING, .text = slice_trim(args[0].text)};
    return OK;
}

RUN(run_index_of)
{
    (void)n;
    NEED_TEXTS(count);
    size_t at = slice_find_slice(args[0].text, args[1].text);
    *out = (struct cel_value){.type = CEL_INT, .integer = at == SIZE_MAX ? -1
                              : rune_count(slice_take(args[0].text, at))};
    return OK;
}

RUN(run_replace)
{
    struct buffer b;
    struct slice rest = args[0].text;
    size_t at;
    (void)n;
    NEED_TEXTS(count);
    *out = (struct cel_value){.type = CEL_STRING, .text = args[0].text};
    if (args[1].text.len == 0)
        return OK;
    buffer_init(&b, 1 << 20);
    while ((at = slice_find_slice(rest, args[1].text)) != SIZE_MAX && !b.full) {
        (void)!buffer_append(&b, slice_take(rest, at));
        (void)!buffer_append(&b, args[2].text);
        rest = slice_skip(rest, at + args[1].text.len);
    }
    (void)!buffer_append(&b, rest);
    bool full = b.full;
    out->text = arena_copy(x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    return full ? no_result(x, "a string became too long") : OK;
}

RUN(run_split)
{
    struct slice rest = args[0].text, by = args[1].text;
    size_t parts = 1, at;
    (void)n;
    NEED_TEXTS(count);
    if (by.len == 0)
        return no_result(x, "split needs a separator");
    for (struct slice s = rest; (at = slice_find_slice(s, by)) != SIZE_MAX; parts++)
        s = slice_skip(s, at + by.len);
    *out = (struct cel_value){.type = CEL_LIST};
    out->items = ARENA_ARRAY(x->arena, struct cel_value, parts);
    for (out->count = 0; out->count < parts; out->count++) {
        at = slice_find_slice(rest, by);
        struct slice part = at == SIZE_MAX ? rest : slice_take(rest, at);
        out->items[out->count] = (struct cel_value){.type = CEL_STRING, .text = part};
        rest = slice_skip(rest, part.len + by.len);
    }
    return OK;
}

static const struct cel_function functions[] = {
    {"size", false, 1, 1, CEL_INT, run_size},
    {"size", true, 1, 1, CEL_INT, run_size},
    {"int", false, 1, 1, CEL_INT, run_int},
    {"double", false, 1, 1, CEL_DOUBLE, run_double},
    {"string", false, 1, 1, CEL_STRING, run_string},
    {"contains", true, 2, 2, CEL_BOOL, run_contains},
    {"startsWith", true, 2, 2, CEL_BOOL, run_starts},
    {"endsWith", true, 2, 2, CEL_BOOL, run_ends},
    {"matches", true, 2, 2, CEL_BOOL, run_matches},
    {"matches", false, 2, 2, CEL_BOOL, run_matches},
    {"lowerAscii", true, 1, 1, CEL_STRING, run_lower},
    {"upperAscii", true, 1, 1, CEL_STRING, run_upper},
    {"trim", true, 1, 1, CEL_STRING, run_trim},
    {"indexOf", true, 2, 2, CEL_INT, run_index_of},
    {"replace", true, 3, 3, CEL_STRING, run_replace},
    {"split", true, 2, 2, CEL_LIST, run_split},
};

const struct cel_function *cel_function_find(struct slice name, bool method)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        if (functions[i].method == method && slice_is(name, functions[i].name))
            return &functions[i];
    }
    return NULL;
}
