/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks the tree. Errors are values of CEL's "&&" and "||": what the other side settles hides them.
 * Placeholders are text here, where Caddy has numbers and truths for some; so a placeholder compares
 * with a number or a truth by what its text says.
 */
#include <stdlib.h>

#include "handlers/cel.h"

static enum err eval(const struct cel_node *n, struct exchange *x, struct cel_value *out);

static enum err no_result(struct exchange *x, const char *why)
{
    return exchange_fail_f(x, 500, "evaluating expression: %s", why);
}

/* --- comparing --- */

static bool is_number(const struct cel_value *v)
{
    return v->type == CEL_INT || v->type == CEL_DOUBLE;
}

static double real_of(const struct cel_value *v)
{
    return v->type == CEL_INT ? (double)v->integer : v->real;
}

static bool parse_text(struct slice text, struct cel_value *out)
{
    char copy[64], *end;
    if (slice_to_i64(text, &out->integer)) {
        out->type = CEL_INT;
        return true;
    }
    if (text.len == 0 || text.len >= sizeof copy)
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    out->type = CEL_DOUBLE;
    out->real = strtod(copy, &end);
    return end == copy + text.len;
}

/* A placeholder's text as the type of what it meets. */
static void meet(struct cel_value *v, const struct cel_value *other)
{
    struct cel_value number = {0};
    if (!v->is_placeholder || v->type != CEL_STRING)
        return;
    if (is_number(other) && parse_text(v->text, &number)) {
        *v = number;
    } else if (other->type == CEL_BOOL && (slice_is(v->text, "true") || slice_is(v->text, "false"))) {
        bool truth = slice_is(v->text, "true");
        *v = (struct cel_value){.type = CEL_BOOL, .truth = truth};
    } else if (other->type == CEL_NULL && v->text.len == 0) {
        *v = (struct cel_value){.type = CEL_NULL};
    }
}

static bool equal(struct cel_value a, struct cel_value b)
{
    meet(&a, &b);
    meet(&b, &a);
    if (is_number(&a) && is_number(&b))
        return a.type == CEL_INT && b.type == CEL_INT ? a.integer == b.integer
                                                      : real_of(&a) == real_of(&b);
    if (a.type != b.type)
        return false;
    switch (a.type) {
    case CEL_BOOL:
        return a.truth == b.truth;
    case CEL_STRING:
        return slice_eq(a.text, b.text);
    case CEL_LIST:
        for (size_t i = 0; i < a.count && a.count == b.count; i++) {
            if (!equal(a.items[i], b.items[i]))
                return false;
        }
        return a.count == b.count;
    default:
        return a.type == CEL_NULL;
    }
}

static enum err compare(struct exchange *x, struct cel_value a, struct cel_value b, int *order)
{
    meet(&a, &b);
    meet(&b, &a);
    if (a.type == CEL_INT && b.type == CEL_INT)
        *order = (a.integer > b.integer) - (a.integer < b.integer);
    else if (is_number(&a) && is_number(&b))
        *order = (real_of(&a) > real_of(&b)) - (real_of(&a) < real_of(&b));
    else if (a.type == CEL_STRING && b.type == CEL_STRING)
        *order = slice_cmp(a.text, b.text);
    else if (a.type == CEL_BOOL && b.type == CEL_BOOL)
        *order = a.truth - b.truth;
    else
        return no_result(x, "values of different kinds have no order");
    return OK;
}

static enum err contains(struct exchange *x, const struct cel_value *v, const struct cel_value *in,
                         bool *found)
{
    size_t step = in->type == CEL_MAP ? 2 : 1, total = in->count * step;
    *found = false;
    if (in->type != CEL_LIST && in->type != CEL_MAP)
        return no_result(x, "'in' needs a list or a map");
    for (size_t i = 0; i < total && !*found; i += step)
        *found = equal(*v, in->items[i]);
    return OK;
}

/* --- operators --- */

static enum err calculate_int(struct exchange *x, enum cel_operator o, int64_t a, int64_t b,
                              int64_t *out)
{
    bool fine = true;
    if ((o == CEL_DIV || o == CEL_MOD) && (b == 0 || (a == INT64_MIN && b == -1)))
        return no_result(x, "division by zero, or its result is too large");
    switch (o) {
    case CEL_ADD:
        fine = !__builtin_add_overflow(a, b, out);
        break;
    case CEL_SUB:
        fine = !__builtin_sub_overflow(a, b, out);
        break;
    case CEL_MUL:
        fine = !__builtin_mul_overflow(a, b, out);
        break;
    case CEL_DIV:
        *out = a / b;
        break;
    default:
        *out = a % b;
        break;
    }
    return fine ? OK : no_result(x, "a number became too large");
}

static enum err calculate(struct exchange *x, enum cel_operator o, struct cel_value a,
                          struct cel_value b, struct cel_value *out)
{
    meet(&a, &b);
    meet(&b, &a);
    *out = (struct cel_value){.type = a.type};
    if (a.type == CEL_INT && b.type == CEL_INT)
        return calculate_int(x, o, a.integer, b.integer, &out->integer);
    if (o == CEL_ADD && a.type == CEL_STRING && b.type == CEL_STRING) {
        out->text = arena_join(x->arena, (struct slice[]){a.text, b.text}, 2);
        return OK;
    }
    if (o == CEL_ADD && a.type == CEL_LIST && b.type == CEL_LIST) {
        out->count = a.count + b.count;
        out->items = ARENA_ARRAY(x->arena, struct cel_value, out->count);
        for (size_t i = 0; i < out->count; i++)
            out->items[i] = i < a.count ? a.items[i] : b.items[i - a.count];
        return OK;
    }
    if (!is_number(&a) || !is_number(&b) || o == CEL_MOD)
        return no_result(x, "no such operation on these values");
    double l = real_of(&a), r = real_of(&b);
    out->type = CEL_DOUBLE;
    out->real = o == CEL_ADD ? l + r : o == CEL_SUB ? l - r : o == CEL_MUL ? l * r : l / r;
    return OK;
}

static enum err run_binary(const struct cel_node *n, struct exchange *x, struct cel_value *out)
{
    struct cel_value a, b;
    int order = 0;
    TRY(eval(n->args[0], x, &a));
    TRY(eval(n->args[1], x, &b));
    enum cel_operator o = n->operator;
    if (o >= CEL_ADD)
        return calculate(x, o, a, b, out);
    *out = (struct cel_value){.type = CEL_BOOL};
    if (o == CEL_IN)
        return contains(x, &a, &b, &out->truth);
    if (o == CEL_EQ || o == CEL_NE) {
        out->truth = equal(a, b) == (o == CEL_EQ);
        return OK;
    }
    TRY(compare(x, a, b, &order));
    out->truth = (o == CEL_LT && order < 0) || (o == CEL_LE && order <= 0) ||
                 (o == CEL_GT && order > 0) || (o == CEL_GE && order >= 0);
    return OK;
}

static enum err eval_truth(const struct cel_node *n, struct exchange *x, bool *truth)
{
    static const struct cel_value yes = {.type = CEL_BOOL, .truth = true};
    struct cel_value v;
    *truth = false;
    TRY(eval(n, x, &v));
    meet(&v, &yes);
    if (v.type != CEL_BOOL)
        return no_result(x, "a truth was expected");
    *truth = v.truth;
    return OK;
}

/* A term that settles the result hides the errors of others. */
static enum err run_logic(const struct cel_node *n, struct exchange *x, bool *out)
{
    bool settles = n->kind == CEL_OR, truth;
    enum err failed = OK;
    *out = settles;
    struct exchange_error before = x->error;
    for (size_t i = 0; i < n->count; i++) {
        enum err e = eval_truth(n->args[i], x, &truth);
        if (e == OK && truth == settles) {
            if (failed != OK)
                x->error = before; /* handlers would answer as error routes do */
            return OK;
        }
        if (e != OK && e != ERR_FAILED)
            return e;
        failed = e != OK ? e : failed;
    }
    *out = !settles;
    return failed;
}

static enum err run_index(const struct cel_node *n, struct exchange *x, struct cel_value *out)
{
    struct cel_value of, key;
    TRY(eval(n->args[0], x, &of));
    TRY(eval(n->args[1], x, &key));
    if (of.type == CEL_LIST) {
        meet(&key, &(struct cel_value){.type = CEL_INT});
        if (key.type != CEL_INT || key.integer < 0 || (uint64_t)key.integer >= of.count)
            return no_result(x, "index out of range");
        *out = of.items[key.integer];
        return OK;
    }
    for (size_t i = 0; of.type == CEL_MAP && i < of.count; i++) {
        if (equal(of.items[2 * i], key)) {
            *out = of.items[2 * i + 1];
            return OK;
        }
    }
    return no_result(x, of.type == CEL_MAP ? "no such key" : "only lists and maps have elements");
}

static enum err run_call(const struct cel_node *n, struct exchange *x, struct cel_value *out)
{
    struct cel_value args[4];
    for (size_t i = 0; i < n->count && i < 4; i++)
        TRY(eval(n->args[i], x, &args[i]));
    return n->function->run(x, n, args, n->count, out);
}

static enum err make_items(const struct cel_node *n, struct exchange *x, struct cel_value *out)
{
    bool map = n->kind == CEL_MAKE_MAP;
    out->type = map ? CEL_MAP : CEL_LIST;
    out->count = map ? n->count / 2 : n->count;
    out->items = ARENA_ARRAY(x->arena, struct cel_value, n->count);
    for (size_t i = 0; i < n->count; i++)
        TRY(eval(n->args[i], x, &out->items[i]));
    return OK;
}

static enum err run_minus(const struct cel_node *n, struct exchange *x, struct cel_value *out)
{
    static const struct cel_value zero = {.type = CEL_INT};
    TRY(eval(n->args[0], x, out));
    meet(out, &zero);
    if (out->type == CEL_DOUBLE) {
        out->real = -out->real;
        return OK;
    }
    if (out->type != CEL_INT)
        return no_result(x, "'-' needs a number");
    return calculate_int(x, CEL_SUB, 0, out->integer, &out->integer);
}

static enum err eval(const struct cel_node *n, struct exchange *x, struct cel_value *out)
{
    bool truth;
    *out = (struct cel_value){.type = CEL_BOOL};
    switch (n->kind) {
    case CEL_LITERAL:
        *out = n->value;
        return OK;
    case CEL_MAKE_LIST:
    case CEL_MAKE_MAP:
        return make_items(n, x, out);
    case CEL_PLACEHOLDER:
        out->type = CEL_STRING;
        out->is_placeholder = true;
        (void)placeholder_value(&n->placeholder, x, &out->text);
        return OK;
    case CEL_MATCHER:
        return n->matcher.module->match(n->matcher.cfg, x, &out->truth);
    case CEL_NOT:
        TRY(eval_truth(n->args[0], x, &truth));
        out->truth = !truth;
        return OK;
    case CEL_MINUS:
        return run_minus(n, x, out);
    case CEL_OR:
    case CEL_AND:
        return run_logic(n, x, &out->truth);
    case CEL_CHOICE:
        TRY(eval_truth(n->args[0], x, &truth));
        return eval(n->args[truth ? 1 : 2], x, out);
    case CEL_INDEX:
        return run_index(n, x, out);
    case CEL_BINARY:
        return run_binary(n, x, out);
    default:
        return run_call(n, x, out);
    }
}

enum err cel_match(const struct cel_node *n, struct exchange *x, bool *matches)
{
    *matches = false;
    enum err e = eval_truth(n, x, matches);
    if (e != OK)
        *matches = false;
    return e;
}
