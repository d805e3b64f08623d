/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directives that stand alone: templates, tracing, metrics, push, timeouts, acme_server.
 */
#include "adapter/directives.h"

#include "adapter/options.h"
#include "base/text.h"

enum err parse_templates(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    json_t *o = *handler = j_object(h->a);
    struct slice *args;
    int nesting;
    dispenser_next(d);
    while (dispenser_next_block(d, 0)) {
        bool mime = dispenser_val_is(d, "mime");
        if (mime || dispenser_val_is(d, "between")) {
            size_t count = dispenser_remaining_args(d, &args);
            if (mime ? count == 0 : count != 2)
                return dispenser_arg_err(d);
            j_put_strings(h->a, o, mime ? "mime_types" : "delimiters", args, count);
        } else if (dispenser_val_is(d, "root")) {
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            j_put_text(h->a, o, "file_root", dispenser_val(d));
        } else if (dispenser_val_is(d, "extensions")) {
            if (dispenser_next_arg(d))
                return dispenser_arg_err(d);
            nesting = dispenser_nesting(d);
            if (dispenser_next_block(d, nesting))
                return no_module(d, "http.handlers.templates.functions", dispenser_val(d));
        } else {
            adapt_warn(h->a, dispenser_token(d), SLICE("templates"),
                       "a subdirective that is unknown is ignored, as in Caddy");
        }
    }
    return OK;
}

enum err parse_tracing(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    json_t *o = *handler = j_object(h->a);
    j_set(h->a, o, "span", j_text(h->a, SLICE("")));
    dispenser_next(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0)) {
        struct slice key, value;
        if (dispenser_val_is(d, "span")) {
            if (!dispenser_all_args(d, &value))
                return dispenser_arg_err(d);
            j_set(h->a, o, "span", j_text(h->a, value));
            continue;
        }
        if (!dispenser_val_is(d, "span_attributes"))
            return dispenser_arg_err(d);
        while (dispenser_next_block(d, 1)) {
            key = dispenser_val(d);
            if (!dispenser_all_args(d, &value))
                return dispenser_arg_err(d);
            j_set_key(h->a, j_at(h->a, o, "span_attributes"), key, j_text(h->a, value));
        }
    }
    return OK;
}

enum err parse_metrics(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    *handler = j_object(h->a);
    dispenser_next(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0)) {
        if (!dispenser_val_is(d, "disable_openmetrics"))
            return dispenser_err_f(d, "unrecognized subdirective \"" SLICE_FMT "\"",
                                   SLICE_ARG(dispenser_val(d)));
        j_put_bool(h->a, *handler, "disable_openmetrics", true);
    }
    return OK;
}

/* --- push --- */

static void add_resource(struct adapt *a, json_t *o, struct slice method, struct slice target)
{
    json_t *resource = j_object(a);
    j_put_text(a, resource, "method", method);
    j_put_text(a, resource, "target", target);
    j_add_to_list(a, o, SLICE("resources"), resource);
}

static enum err push_headers(struct adapt *a, struct dispenser *d, json_t *o)
{
    int nesting;
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        struct slice field = dispenser_val(d), *args;
        size_t count = dispenser_remaining_args(d, &args);
        if (count > 2)
            return dispenser_arg_err(d);
        TRY(header_op(a, d, j_at(a, o, "headers"), NULL, field, count > 0 ? args[0] : SLICE_NONE,
                      count > 1 ? &args[1] : NULL));
    }
    return OK;
}

enum err parse_push(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    json_t *o = *handler = j_object(h->a);
    dispenser_next(d);
    if (dispenser_next_arg(d))
        add_resource(h->a, o, SLICE_NONE, dispenser_val(d));
    while (dispenser_next_block(d, 0)) {
        struct slice method = SLICE_NONE;
        if (dispenser_val_is(d, "headers")) {
            TRY(push_headers(h->a, d, o));
            continue;
        }
        if (dispenser_val_is(d, "GET") || dispenser_val_is(d, "HEAD")) {
            method = dispenser_val(d);
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
        }
        add_resource(h->a, o, method, dispenser_val(d));
    }
    return OK;
}

/* --- timeouts --- */

static enum err timeout_and_rate(struct adapt *a, struct dispenser *d, json_t *o, bool read)
{
    struct slice *args;
    int64_t n;
    const char *name = read ? "read_timeout" : "write_timeout";
    size_t count = dispenser_remaining_args(d, &args);
    if (count < 1 || count > 2)
        return dispenser_arg_err(d);
    if (duration_parse(args[0], &n) != OK)
        return dispenser_err_f(d, "parsing %s: time: invalid duration \"" SLICE_FMT "\"", name,
                               SLICE_ARG(args[0]));
    j_put_int(a, o, name, n);
    if (count == 1)
        return OK;
    if (!slice_to_i64(args[1], &n))
        return dispenser_err_f(d,
                               "parsing %s min_rate: strconv.ParseInt: parsing \"" SLICE_FMT
                               "\": invalid syntax", name, SLICE_ARG(args[1]));
    j_put_int(a, o, read ? "read_min_rate" : "write_min_rate", n);
    return OK;
}

enum err parse_timeouts(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    struct slice text;
    int64_t size;
    *handler = j_object(h->a);
    dispenser_next(d);
    while (dispenser_next_block(d, 0)) {
        bool read = dispenser_val_is(d, "read_timeout");
        if (read || dispenser_val_is(d, "write_timeout")) {
            TRY(timeout_and_rate(h->a, d, *handler, read));
        } else if (dispenser_val_is(d, "max_write_chunk")) {
            if (!dispenser_all_args(d, &text))
                return dispenser_arg_err(d);
            TRY(read_size(d, text, "parsing max_write_chunk", &size));
            j_put_int(h->a, *handler, "max_write_chunk", size);
        } else {
            return dispenser_err_f(d, "unrecognized timeouts subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        }
    }
    return OK;
}

/* --- acme_server --- */

static enum err acme_rules(struct adapt *a, struct dispenser *d, json_t *o, const char *kind)
{
    json_t *rules = j_object(a);
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        struct slice name = dispenser_val(d);
        if (dispenser_count_remaining_args(d) == 0)
            return dispenser_arg_err(d);
        if (!slice_is(name, "domains") && !slice_is(name, "ip_ranges"))
            return dispenser_err_f(d, "unrecognized '%s' subdirective: " SLICE_FMT, kind,
                                   SLICE_ARG(name));
        while (dispenser_next_arg(d))
            j_add_to_list(a, rules, name, j_text(a, dispenser_val(d)));
    }
    j_set(a, j_at(a, o, "policy"), kind, rules);
    return OK;
}

static void acme_challenges(struct adapt *a, struct dispenser *d, json_t *o)
{
    while (dispenser_next_arg(d)) {
        struct slice word = dispenser_val(d);
        char *lower = arena_str(a->arena, word);
        for (size_t i = 0; i < word.len; i++)
            lower[i] = ascii_lower(lower[i]);
        j_add_to_list(a, o, SLICE("challenges"), j_text(a, slice_of(lower, word.len)));
    }
}

static enum err acme_option(struct helper *h, json_t *o, struct slice *ca)
{
    struct dispenser *d = &h->d;
    struct adapt *a = h->a;
    int64_t ns;
    if (dispenser_val_is(d, "ca")) {
        if (!dispenser_all_args(d, ca))
            return dispenser_arg_err(d);
        json_object_del(o, "ca");
        j_put_text(a, o, "ca", *ca);
    } else if (dispenser_val_is(d, "lifetime")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        TRY(bare_duration(a, d, &ns));
        j_put_int(a, o, "lifetime", ns);
    } else if (dispenser_val_is(d, "resolvers")) {
        struct slice *args;
        size_t count = dispenser_remaining_args(d, &args);
        if (count == 0)
            return dispenser_err_f(d, "must specify at least one resolver address");
        j_put_strings(a, o, "resolvers", args, count);
    } else if (dispenser_val_is(d, "challenges")) {
        acme_challenges(a, d, o);
    } else if (dispenser_val_is(d, "allow_wildcard_names")) {
        j_put_bool(a, j_at(a, o, "policy"), "allow_wildcard_names", true);
    } else if (dispenser_val_is(d, "allow") || dispenser_val_is(d, "deny")) {
        return acme_rules(a, d, o, dispenser_val_is(d, "allow") ? "allow" : "deny");
    } else if (dispenser_val_is(d, "sign_with_root")) {
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_put_bool(a, o, "sign_with_root", true);
    } else {
        return dispenser_err_f(d, "unrecognized ACME server directive: " SLICE_FMT,
                               SLICE_ARG(dispenser_val(d)));
    }
    return OK;
}

enum err parse_acme_server(struct helper *h, struct values *out)
{
    struct dispenser *d = &h->d;
    json_t *set, *o = j_object(h->a);
    struct slice ca = SLICE_NONE;
    dispenser_next(d);
    TRY(helper_matcher(h, &set));
    dispenser_next(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0))
        TRY(acme_option(h, o, &ca));
    helper_add_route(h, out, set, o, "acme_server");
    if (ca.ptr != NULL)
        values_add(h->a, out, VALUE_CA)->name = ca;
    return OK;
}
