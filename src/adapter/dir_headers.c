/* SPDX-License-Identifier: Apache-2.0 */
/*
 * header and request_header, whose operations reverse_proxy's header_up and header_down share.
 */
#include "adapter/directives.h"

static void add_replacement(struct adapt *a, json_t *ops, struct slice field, struct slice search,
                            struct slice replace)
{
    json_t *r = j_object(a);
    while (field.len > 0 && strchr("+-?>", field.ptr[0]) != NULL)
        field = slice_skip(field, 1);
    j_put_text(a, r, "search_regexp", search);
    j_put_text(a, r, "replace", replace);
    j_add_to_list(a, j_at(a, ops, "replace"), field, r);
}

static void set_field(struct adapt *a, json_t *ops, struct slice field, struct slice value)
{
    field = canonical_field(a->arena, field);
    j_set_key(a, j_at(a, ops, "set"), field, j_strings(a, &value, 1));
}

/* `response` is where "deferred" and "require" go: the operations of a response, or NULL. */
enum err header_op(struct adapt *a, struct dispenser *d, json_t *ops, json_t *response,
                   struct slice field, struct slice value, const struct slice *replacement)
{
    char sign = field.len > 0 ? field.ptr[0] : '\0';
    struct slice name = slice_skip(field, 1);
    bool deferred = false;
    if (sign == '+') {
        j_add_to_list(a, j_at(a, ops, "add"), canonical_field(a->arena, name), j_text(a, value));
    } else if (sign == '-') {
        j_add_to_list(a, ops, SLICE("delete"), j_text(a, name));
        deferred = true;
    } else if (sign == '?') {
        if (response == NULL)
            return dispenser_err_f(d,
                                   SLICE_FMT ": the default header modifier ('?') can only be used "
                                   "on response headers; for conditional manipulation of request "
                                   "headers, use matchers",
                                   SLICE_ARG(field));
        j_set_key(a, j_at(a, response, "require.headers"), name, json_null());
        set_field(a, ops, name, value);
    } else if (replacement != NULL) {
        deferred = sign == '>';
        add_replacement(a, ops, field, value, *replacement);
    } else if (sign == '>') {
        set_field(a, ops, name, value);
        deferred = true;
    } else {
        set_field(a, ops, field, value);
    }
    if (deferred && response != NULL)
        j_put_bool(a, response, "deferred", true);
    return OK;
}

static struct slice without_colon(struct slice field)
{
    if (slice_ends(field, SLICE(":")))
        field.len--;
    return field;
}

/* The value and replacement that follow a field, and the operation of all three. */
static enum err read_op(struct adapt *a, struct dispenser *d, json_t *ops, json_t *response,
                        struct slice field)
{
    struct slice value = SLICE_NONE, replacement;
    const struct slice *third = NULL;
    if (dispenser_next_arg(d))
        value = dispenser_val(d);
    if (dispenser_next_arg(d)) {
        replacement = dispenser_val(d);
        third = &replacement;
    }
    return header_op(a, d, ops, response, field, value, third);
}

static enum err read_match(struct adapt *a, struct dispenser *d, json_t *response)
{
    struct slice name;
    json_t *matcher;
    struct dispenser inner = dispenser_new_from_next_segment(d);
    TRY(response_matcher_parse(a, &inner, &name, &matcher));
    j_set(a, response, "require", matcher);
    return OK;
}

enum err parse_header_directive(struct helper *h, struct values *out)
{
    struct dispenser *d = &h->d;
    struct adapt *a = h->a;
    json_t *set, *plain = j_object(a), *fallback = j_object(a);
    bool has_args = false;
    dispenser_next(d);
    TRY(helper_matcher(h, &set));
    dispenser_next(d);
    if (dispenser_next_arg(d)) {
        has_args = true;
        TRY(read_op(a, d, plain, plain, dispenser_val(d)));
    }
    while (dispenser_next_block(d, 0)) {
        struct slice field = dispenser_val(d);
        if (slice_is(field, "defer")) {
            j_put_bool(a, plain, "deferred", true);
            continue;
        }
        if (slice_is(field, "match")) {
            TRY(read_match(a, d, plain));
            continue;
        }
        if (has_args)
            return dispenser_err_f(d, "cannot specify headers in both arguments and block");
        field = without_colon(field);
        json_t *ops = slice_starts(field, SLICE("?")) ? fallback : plain;
        TRY(read_op(a, d, ops, ops, field));
    }
    json_t *both[] = {plain, fallback};
    for (int i = 0; i < 2; i++) {
        if (json_object_size(both[i]) == 0)
            continue;
        json_t *handler = j_object(a);
        j_set(a, handler, "response", both[i]);
        helper_add_route(h, out, set, handler, "headers");
    }
    return OK;
}

enum err parse_request_header(struct helper *h, struct values *out)
{
    struct dispenser *d = &h->d;
    struct adapt *a = h->a;
    json_t *set, *handler = j_object(a);
    dispenser_next(d);
    TRY(helper_matcher(h, &set));
    dispenser_next(d);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    TRY(read_op(a, d, j_at(a, handler, "request"), NULL, without_colon(dispenser_val(d))));
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    helper_add_route(h, out, set, handler, "headers");
    return OK;
}
