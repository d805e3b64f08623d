/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directives that set something up for those behind them: bind, root, fs, vars, map.
 */
#include "adapter/directives.h"

enum err bind_read(struct dispenser *d, struct bind_value *b)
{
    dispenser_next(d);
    b->address_count = dispenser_remaining_args(d, &b->addresses);
    while (dispenser_next_block(d, 0)) {
        if (!dispenser_val_is(d, "protocols"))
            return dispenser_err_f(d, "unknown subdirective: " SLICE_FMT,
                                   SLICE_ARG(dispenser_val(d)));
        b->protocol_count = dispenser_remaining_args(d, &b->protocols);
        if (b->protocol_count == 0)
            return dispenser_err_f(d, "protocols requires one or more arguments");
    }
    return OK;
}

enum err parse_bind(struct helper *h, struct values *out)
{
    struct bind_value *b = ARENA_NEW(h->a->arena, struct bind_value);
    TRY(bind_read(&h->d, b));
    values_add(h->a, out, VALUE_BIND)->bind = b;
    return OK;
}

static json_t *one_var(struct adapt *a, const char *name, struct slice value)
{
    json_t *o = j_object(a);
    j_set(a, o, name, j_text(a, value));
    return o;
}

enum err parse_root(struct helper *h, struct values *out)
{
    struct dispenser *d = &h->d;
    json_t *set = NULL;
    dispenser_next(d);
    size_t count = dispenser_count_remaining_args(d);
    if (count == 0)
        return dispenser_err_f(d, "too few arguments; must have at least a root path");
    if (count > 2)
        return dispenser_err_f(d, "too many arguments; should only be a matcher and a path");
    if (count == 2) {
        TRY(helper_matcher(h, &set));
        dispenser_next(d);
    }
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (set == NULL)
        h->block->root = dispenser_val(d);
    helper_add_route(h, out, set, one_var(h->a, "root", dispenser_val(d)), "vars");
    return OK;
}

enum err parse_fs(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    dispenser_next(d);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    *handler = one_var(h->a, "fs", dispenser_val(d));
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

static enum err next_var(struct helper *h, json_t *vars)
{
    struct dispenser *d = &h->d;
    struct slice name = dispenser_val(d);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    j_set_key(h->a, vars, name, keep(h->a, dispenser_scalar(d)));
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

enum err parse_vars_directive(struct helper *h, json_t **handler)
{
    *handler = j_object(h->a);
    dispenser_next(&h->d);
    if (dispenser_next_arg(&h->d))
        TRY(next_var(h, *handler));
    while (dispenser_next_block(&h->d, 0))
        TRY(next_var(h, *handler));
    return OK;
}

/* --- map --- */

static enum err read_mapping(struct helper *h, size_t destinations, json_t *mappings)
{
    struct dispenser *d = &h->d;
    struct slice input = dispenser_val(d);
    json_t *outputs = j_array(h->a), *mapping = j_object(h->a);
    while (dispenser_next_arg(d)) {
        json_t *v = keep(h->a, dispenser_scalar(d));
        bool dash = json_is_string(v) && strcmp(json_string_value(v), "-") == 0;
        j_append(outputs, dash ? json_null() : v);
    }
    if (json_array_size(outputs) > destinations)
        return dispenser_err_f(d, "too many outputs");
    while (json_array_size(outputs) < destinations)
        j_append(outputs, json_null());
    if (slice_starts(input, SLICE("~")))
        j_put_text(h->a, mapping, "input_regexp", slice_skip(input, 1));
    else
        j_put_text(h->a, mapping, "input", input);
    j_set(h->a, mapping, "outputs", outputs);
    j_append(mappings, mapping);
    return OK;
}

enum err parse_map(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    struct slice *destinations;
    json_t *mappings = j_array(h->a), *defaults = NULL;
    *handler = j_object(h->a);
    dispenser_next(d);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    j_put_text(h->a, *handler, "source", dispenser_val(d));
    size_t count = dispenser_remaining_args(d, &destinations);
    if (count == 0)
        return dispenser_err_f(d, "missing destination argument(s)");
    for (size_t i = 0; i < count; i++) {
        struct slice shorthand = shorthand_of(destinations[i]);
        if (shorthand.len > 0)
            return dispenser_err_f(d,
                                   "destination {" SLICE_FMT "} conflicts with a Caddyfile "
                                   "placeholder shorthand",
                                   SLICE_ARG(shorthand));
    }
    j_put_strings(h->a, *handler, "destinations", destinations, count);
    while (dispenser_next_block(d, 0)) {
        if (!dispenser_val_is(d, "default")) {
            TRY(read_mapping(h, count, mappings));
            continue;
        }
        if (defaults != NULL)
            return dispenser_err_f(d, "defaults already defined");
        defaults = j_array(h->a);
        while (dispenser_next_arg(d))
            j_append_text(h->a, defaults, dispenser_val(d));
        while (json_array_size(defaults) < count)
            j_append_text(h->a, defaults, SLICE(""));
    }
    if (json_array_size(mappings) > 0)
        j_set(h->a, *handler, "mappings", mappings);
    if (defaults != NULL)
        j_set(h->a, *handler, "defaults", defaults);
    return OK;
}
