/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directives that hold other directives: route, handle, handle_path, handle_errors, and invoke.
 */
#include "adapter/directives.h"
#include "base/buffer.h"

enum err parse_route(struct helper *h, json_t **handler)
{
    struct values all = {0};
    struct route *routes;
    size_t count;
    TRY(helper_values(h, &all));
    for (size_t i = 0; i < all.count; i++)
        if (all.items[i].kind != VALUE_ROUTE && all.items[i].kind != VALUE_ROUTES)
            return dispenser_err_f(&h->d,
                                   SLICE_FMT " directive returned something other than an HTTP route "
                                   "or subroute (only handler directives can be used in routes)",
                                   SLICE_ARG(all.items[i].directive));
    TRY(build_routes(h->a, &all, h->groups, false, &routes, &count));
    *handler = subroute_handler(h->a, routes, count);
    return OK;
}

enum err parse_handle(struct helper *h, json_t **handler)
{
    struct route *routes;
    size_t count;
    TRY(helper_subroute(h, true, &routes, &count));
    *handler = subroute_handler(h->a, routes, count);
    return OK;
}

static json_t *strip_prefix(struct adapt *a, struct slice path)
{
    json_t *o = j_object(a), *list = j_array(a);
    if (slice_ends(path, SLICE("/*")))
        path.len -= 2;
    else if (slice_ends(path, SLICE("*")))
        path.len--;
    j_put_text(a, o, "strip_path_prefix", path);
    j_append(list, j_module(a, "handler", "rewrite", o));
    return list;
}

enum err parse_handle_path(struct helper *h, struct values *out)
{
    struct dispenser *d = &h->d;
    struct adapt *a = h->a;
    struct route *routes, *all;
    size_t count;
    json_t *set;
    dispenser_next(d);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice path = dispenser_val(d);
    if (!slice_starts(path, SLICE("/")))
        return dispenser_err_f(d, "path matcher must begin with '/', got " SLICE_FMT,
                               SLICE_ARG(path));
    dispenser_reset(d);
    dispenser_next(d);
    TRY(helper_matcher(h, &set));
    TRY(helper_subroute(h, true, &routes, &count));
    all = ARENA_ARRAY(a->arena, struct route, count + 1);
    all[0].handle = strip_prefix(a, path);
    memcpy(all + 1, routes, count * sizeof *all);
    helper_add_route(h, out, set, subroute_handler(a, all, count + 1), "subroute");
    return OK;
}

/* "404 5xx" to an expression over the error's status. */
static enum err status_expression(struct helper *h, const struct slice *args, size_t count,
                                  struct buffer *b)
{
    struct buffer codes;
    enum err e = OK;
    buffer_init(&codes, 1 << 20);
    for (size_t i = 0; i < count && e == OK; i++) {
        struct slice s = args[i];
        int64_t n;
        bool range = slice_ends(s, SLICE("xx"));
        if (s.len != 3)
            e = dispenser_err_f(&h->d, "bad status value '" SLICE_FMT "'", SLICE_ARG(s));
        else if (!slice_to_i64(range ? slice_take(s, 1) : s, &n))
            e = read_int(&h->d, range ? slice_take(s, 1) : s, "bad status value", &n);
        else if (range)
            buffer_append_f(b, "%s{http.error.status_code} >= %c00 && {http.error.status_code} <= %c99",
                            b->len > 0 ? " || " : "", s.ptr[0], s.ptr[0]);
        else
            buffer_append_f(&codes, "%s" SLICE_FMT, codes.len > 0 ? ", " : "", SLICE_ARG(s));
    }
    if (codes.len > 0)
        buffer_append_f(b, "%s{http.error.status_code} in [" SLICE_FMT "]",
                        b->len > 0 ? " || " : "", SLICE_ARG(codes));
    buffer_deinit(&codes);
    return e;
}

enum err parse_handle_errors(struct helper *h, struct values *out)
{
    struct dispenser *d = &h->d;
    struct adapt *a = h->a;
    struct slice *args;
    struct route *routes;
    size_t count;
    struct buffer expression;
    dispenser_next(d);
    size_t arg_count = dispenser_remaining_args(d, &args);
    buffer_init(&expression, 1 << 20);
    enum err e = status_expression(h, args, arg_count, &expression);
    struct slice text = arena_copy(a->arena, buffer_slice(&expression));
    buffer_deinit(&expression);
    TRY(e);
    /* The block is read as that of a directive without arguments. */
    d->cursor = (ptrdiff_t)arg_count - 1;
    TRY(helper_subroute(h, true, &routes, &count));
    struct config_value *v = values_add(a, out, VALUE_ERRORS);
    v->routes = ARENA_NEW(a->arena, struct route);
    v->route_count = 1;
    v->routes->handle = j_array(a);
    j_append(v->routes->handle,
             j_module(a, "handler", "subroute", subroute_handler(a, routes, count)));
    if (text.len > 0) {
        json_t *set = j_object(a);
        j_set(a, set, "expression", j_text(a, text));
        v->routes->match = j_array(a);
        j_append(v->routes->match, set);
    }
    return OK;
}

enum err parse_invoke(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    dispenser_next(d);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice name = dispenser_val(d);
    if (dispenser_next(d) || dispenser_next_block(d, 0))
        return dispenser_arg_err(d);
    values_add(h->a, h->a->invoked, VALUE_INVOKED)->name = name;
    *handler = j_object(h->a);
    j_put_text(h->a, *handler, "name", name);
    return OK;
}
