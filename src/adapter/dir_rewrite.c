/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directives that change the request's method or target: rewrite, method, uri.
 */
#include "adapter/directives.h"

enum err parse_rewrite(struct helper *h, struct values *out)
{
    struct dispenser *d = &h->d;
    json_t *set = NULL, *handler = j_object(h->a);
    dispenser_next(d);
    size_t count = dispenser_count_remaining_args(d);
    if (count == 0)
        return dispenser_err_f(d, "too few arguments; must have at least a rewrite URI");
    if (count > 2)
        return dispenser_err_f(d, "too many arguments; should only be a matcher and a URI");
    if (count == 2) {
        TRY(helper_matcher(h, &set));
        dispenser_next(d);
        dispenser_next(d);
    } else if (!dispenser_next_arg(d)) {
        return dispenser_arg_err(d);
    }
    j_put_text(h->a, handler, "uri", dispenser_val(d));
    helper_add_route(h, out, set, handler, "rewrite");
    return OK;
}

enum err parse_method_directive(struct helper *h, json_t **handler)
{
    struct slice method;
    dispenser_next(&h->d);
    if (!dispenser_all_args(&h->d, &method))
        return dispenser_arg_err(&h->d);
    *handler = j_object(h->a);
    j_put_text(h->a, *handler, "method", method);
    return OK;
}

static void add_pair(struct adapt *a, json_t *query, const char *list, const char *first,
                     struct slice x, const char *second, struct slice y)
{
    json_t *pair = j_object(a);
    j_put_text(a, pair, first, x);
    j_put_text(a, pair, second, y);
    j_add_to_list(a, query, slice_from(list), pair);
}

static struct slice trim_sign(struct slice s, char sign)
{
    while (s.len > 0 && s.ptr[0] == sign)
        s = slice_skip(s, 1);
    return s;
}

static enum err query_op(struct helper *h, json_t *query, const struct slice *args, size_t count)
{
    struct adapt *a = h->a;
    struct slice key = args[0], from, to;
    if (slice_starts(key, SLICE("-"))) {
        if (count != 1)
            return dispenser_arg_err(&h->d);
        j_add_to_list(a, query, SLICE("delete"), j_text(a, trim_sign(key, '-')));
    } else if (slice_starts(key, SLICE("+"))) {
        if (count != 2)
            return dispenser_arg_err(&h->d);
        add_pair(a, query, "add", "key", trim_sign(key, '+'), "val", args[1]);
    } else if (slice_cut(key, '>', &from, &to)) {
        if (count != 1)
            return dispenser_arg_err(&h->d);
        slice_cut(to, '>', &to, &(struct slice){0});
        add_pair(a, query, "rename", "key", from, "val", to);
    } else if (count == 3) {
        json_t *r = j_object(a);
        j_put_text(a, r, "key", key);
        j_put_text(a, r, "search_regexp", args[1]);
        j_put_text(a, r, "replace", args[2]);
        j_add_to_list(a, query, SLICE("replace"), r);
    } else {
        if (count != 2)
            return dispenser_arg_err(&h->d);
        add_pair(a, query, "set", "key", key, "val", args[1]);
    }
    return OK;
}

static enum err query_ops(struct helper *h, json_t *o, const struct slice *args, size_t count)
{
    struct dispenser *d = &h->d;
    json_t *query = j_at(h->a, o, "query");
    if (count > 4)
        return dispenser_arg_err(d);
    if (count > 1)
        TRY(query_op(h, query, args + 1, count - 1));
    while (dispenser_next_block(d, 0)) {
        struct slice line[8];
        size_t n = 0;
        if (count > 1)
            return dispenser_err_f(
                d, "Cannot specify uri query rewrites in both argument and block");
        line[n++] = dispenser_val(d);
        while (dispenser_next_arg(d) && n < 8)
            line[n++] = dispenser_val(d);
        TRY(query_op(h, query, line, n));
    }
    return OK;
}

static enum err replace_op(struct helper *h, json_t *o, const struct slice *args, size_t count)
{
    json_t *r = j_object(h->a);
    int64_t limit = 0;
    if (count != 3 && count != 4)
        return dispenser_arg_err(&h->d);
    if (count == 4 && !slice_to_i64(args[3], &limit))
        return dispenser_err_f(&h->d,
                               "limit must be an integer; invalid: strconv.Atoi: parsing \"" SLICE_FMT
                               "\": invalid syntax",
                               SLICE_ARG(args[3]));
    j_put_text(h->a, r, "find", args[1]);
    j_put_text(h->a, r, "replace", args[2]);
    j_put_int(h->a, r, "limit", limit);
    j_add_to_list(h->a, o, SLICE("uri_substring"), r);
    return OK;
}

enum err parse_uri(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    struct slice *args;
    json_t *o = *handler = j_object(h->a);
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count < 1)
        return dispenser_arg_err(d);
    if (slice_is(args[0], "strip_prefix") || slice_is(args[0], "strip_suffix")) {
        if (count != 2)
            return dispenser_arg_err(d);
        j_put_text(h->a, o,
                   slice_is(args[0], "strip_prefix") ? "strip_path_prefix" : "strip_path_suffix",
                   args[1]);
        return OK;
    }
    if (slice_is(args[0], "replace"))
        return replace_op(h, o, args, count);
    if (slice_is(args[0], "path_regexp")) {
        if (count != 3)
            return dispenser_arg_err(d);
        add_pair(h->a, o, "path_regexp", "find", args[1], "replace", args[2]);
        return OK;
    }
    if (slice_is(args[0], "query"))
        return query_ops(h, o, args, count);
    return dispenser_err_f(d, "unrecognized URI manipulation '" SLICE_FMT "'", SLICE_ARG(args[0]));
}
