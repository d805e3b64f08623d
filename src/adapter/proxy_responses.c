/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done with answers, of upstreams (reverse_proxy) or of handlers behind (intercept): named
 * matchers, `replace_status`, `handle_response`. Blocks are read last, when all matchers are known.
 */
#include "adapter/proxy_parts.h"

struct named_matcher {
    struct slice name;
    json_t *matcher;
    struct named_matcher *next;
};

static enum err find_matcher(struct responses *r, struct dispenser *d, struct slice name,
                             json_t **out)
{
    if (!slice_starts(name, SLICE("@")))
        return dispenser_err_f(d, "must use a named response matcher, starting with '@'");
    for (struct named_matcher *m = r->matchers; m != NULL; m = m->next)
        if (slice_eq(m->name, name)) {
            *out = m->matcher;
            return OK;
        }
    return dispenser_err_f(d, "no named response matcher defined with name '" SLICE_FMT "'",
                           SLICE_ARG(slice_skip(name, 1)));
}

enum err responses_matcher(struct responses *r)
{
    struct adapt *a = r->h->a;
    struct dispenser in = dispenser_new_from_next_segment(&r->h->d);
    struct named_matcher *m = ARENA_NEW(a->arena, struct named_matcher);
    TRY(response_matcher_parse(a, &in, &m->name, &m->matcher));
    for (struct named_matcher *o = r->matchers; o != NULL; o = o->next)
        if (slice_eq(o->name, m->name))
            return dispenser_err_f(&in, "matcher is defined more than once: " SLICE_FMT,
                                   SLICE_ARG(m->name));
    m->next = r->matchers;
    r->matchers = m;
    return OK;
}

static void add_response(struct responses *r, json_t *matcher, json_t *o)
{
    if (matcher != NULL)
        j_set(r->h->a, o, "match", matcher);
    j_append(matcher != NULL ? r->with : r->without, o);
}

enum err responses_replace_status(struct responses *r)
{
    struct dispenser *d = &r->h->d;
    struct slice *args;
    json_t *matcher = NULL, *o = j_object(r->h->a);
    size_t count = dispenser_remaining_args(d, &args);
    if (count != 1 && count != 2)
        return dispenser_err_f(d, "must have one or two arguments: an optional response matcher, "
                                  "and a status code");
    if (count == 2)
        TRY(find_matcher(r, d, args[0], &matcher));
    j_put_weak(r->h->a, o, "status_code", args[count - 1]);
    if (dispenser_next_block(d, dispenser_nesting(d)))
        return dispenser_err_f(
            d, "cannot define routes for 'replace_status', use 'handle_response' instead.");
    add_response(r, matcher, o);
    return OK;
}

static enum err handle_response(struct responses *r, struct dispenser *d)
{
    struct adapt *a = r->h->a;
    struct slice *args;
    struct route *routes;
    json_t *matcher = NULL, *o = j_object(a);
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count > 1) {
        struct slice parts[128];
        size_t n = 0;
        for (size_t i = 0; i < count && n < 126; i++) {
            if (i > 0)
                parts[n++] = SLICE(" ");
            parts[n++] = args[i];
        }
        struct slice all = arena_join(a->arena, parts, n);
        return dispenser_err_f(d,
                               "too many arguments for 'handle_response': only a single response "
                               "matcher name is allowed, but got: [" SLICE_FMT "]",
                               SLICE_ARG(all));
    }
    if (count == 1)
        TRY(find_matcher(r, d, args[0], &matcher));
    struct helper inner = *r->h;
    inner.d = dispenser_new_from_next_segment(d);
    TRY(helper_subroute(&inner, true, &routes, &count));
    if (count > 0)
        j_set(a, o, "routes", routes_json(a, routes, count));
    add_response(r, matcher, o);
    return OK;
}

void responses_init(struct responses *r, struct helper *h)
{
    *r = (struct responses){.h = h, .with = j_array(h->a), .without = j_array(h->a)};
}

enum err responses_block(struct responses *r)
{
    if (r->count == sizeof r->blocks / sizeof *r->blocks)
        return dispenser_err_f(&r->h->d, "too many handle_response blocks: more than 64");
    r->blocks[r->count++] = dispenser_new_from_next_segment(&r->h->d);
    return OK;
}

enum err responses_finish(struct responses *r, json_t *handler)
{
    for (size_t i = 0; i < r->count; i++)
        TRY(handle_response(r, &r->blocks[i]));
    json_array_extend(r->with, r->without);
    if (json_array_size(r->with) > 0)
        j_set(r->h->a, handler, "handle_response", r->with);
    return OK;
}

enum err parse_intercept(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    struct responses *r = ARENA_NEW(h->a->arena, struct responses);
    *handler = j_object(h->a);
    responses_init(r, h);
    dispenser_next(d);
    while (dispenser_next_block(d, 0)) {
        if (slice_starts(dispenser_val(d), SLICE("@")))
            TRY(responses_matcher(r));
        else if (dispenser_val_is(d, "handle_response"))
            TRY(responses_block(r));
        else if (dispenser_val_is(d, "replace_status"))
            TRY(responses_replace_status(r));
        else
            return dispenser_unrecognized(d);
    }
    return responses_finish(r, *handler);
}
