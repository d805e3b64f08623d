/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse_proxy: where upstreams come from (`dynamic`) and which one is taken (`lb_policy`).
 */
#include "adapter/proxy_parts.h"
#include "adapter/service_option.h"

/* Of other options the last one counts. */
static bool is_once(struct slice option)
{
    return slice_is(option, "name") || slice_is(option, "port") || slice_is(option, "service") ||
           slice_is(option, "proto");
}

static enum err dynamic_options(struct adapt *a, struct dispenser *d, struct slice name, json_t *o)
{
    static const struct option srv[] = {
        {"service", OPTION_TEXT, "service", NULL},
        {"proto", OPTION_TEXT, "proto", NULL},
        {"grace_period", OPTION_DURATION, "grace_period", "bad grace period value"},
        {0},
    };
    static const struct option both[] = {
        {"name", OPTION_TEXT, "name", NULL},
        {"refresh", OPTION_DURATION, "refresh", "parsing refresh interval duration"},
        {"resolvers", OPTION_TEXTS, "resolver.addresses", NULL},
        {"dial_timeout", OPTION_DURATION, "dial_timeout", "bad timeout value"},
        {"dial_fallback_delay", OPTION_DURATION, "dial_fallback_delay", "bad delay value"},
        {0},
    };
    bool is_a = slice_is(name, "a"), known;
    while (dispenser_next_block(d, 0)) {
        struct slice option = dispenser_val(d);
        if (j_get(o, option) != NULL && is_once(option))
            return dispenser_err_f(d, SLICE_FMT " " SLICE_FMT " has already been specified",
                                   SLICE_ARG(name), SLICE_ARG(option));
        TRY(option_read(a, d, both, o, &known));
        if (!known && !is_a)
            TRY(option_read(a, d, srv, o, &known));
        if (known)
            continue;
        if (is_a && slice_is(option, "port")) {
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            j_put_text(a, o, "port", dispenser_val(d));
        } else if (is_a && slice_is(option, "versions")) {
            if (dispenser_count_remaining_args(d) == 0)
                return dispenser_err_f(d, "must specify at least one version");
            while (dispenser_next_arg(d)) {
                if (!dispenser_val_is(d, "ipv4") && !dispenser_val_is(d, "ipv6"))
                    return dispenser_err_f(d, "unsupported version: '" SLICE_FMT "'",
                                           SLICE_ARG(dispenser_val(d)));
                j_set_key(a, j_at(a, o, "versions"), dispenser_val(d), json_true());
            }
        } else {
            return dispenser_err_f(d, "unrecognized " SLICE_FMT " option '" SLICE_FMT "'",
                                   SLICE_ARG(name), SLICE_ARG(option));
        }
    }
    return OK;
}

/* The source named at the cursor: a, srv, multi. */
enum err dynamic_read(struct adapt *a, struct dispenser *outer, json_t **source)
{
    struct slice name = dispenser_val(outer), *args;
    struct dispenser at = *outer; /* the name's place */
    struct dispenser in = dispenser_new_from_next_segment(outer), *d = &in;
    json_t *o = j_object(a), *inner;
    bool is_a = slice_is(name, "a"), is_srv = slice_is(name, "srv");
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (slice_is(name, "service"))
        return count == 1 ? service_upstream(a, d, args[0], source) : dispenser_arg_err(d);
    if (is_a || is_srv) {
        if (count > (is_a ? 2 : 1))
            return dispenser_arg_err(d);
        if (count > 0)
            j_put_text(a, o, "name", args[0]);
        if (count > 1)
            j_put_text(a, o, "port", args[1]);
        TRY(dynamic_options(a, d, name, o));
    } else if (slice_is(name, "multi")) {
        if (count > 0)
            return dispenser_arg_err(d);
        while (dispenser_next_block(d, 0)) {
            TRY(dynamic_read(a, d, &inner));
            j_add_to_list(a, o, SLICE("sources"), inner);
        }
    } else {
        return proxy_hint(&at, WORDS_SOURCE, no_module(&at, "http.reverse_proxy.upstreams", name));
    }
    *source = j_module(a, "source", arena_str(a->arena, name), o);
    return OK;
}

/* --- choosing --- */

static enum err policy_block(struct adapt *a, struct dispenser *d, bool cookie, json_t *o)
{
    while (dispenser_next_block(d, 0)) {
        json_t *fallback;
        if (dispenser_val_is(d, "fallback")) {
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            if (json_object_get(o, "fallback") != NULL)
                return dispenser_err_f(d, "fallback selection policy already specified");
            TRY(policy_read(a, d, &fallback));
            j_set(a, o, "fallback", fallback);
        } else if (cookie && dispenser_val_is(d, "max_age")) {
            int64_t age;
            struct slice text;
            if (json_object_get(o, "max_age") != NULL)
                return dispenser_err_f(d, "cookie max_age already specified");
            if (!dispenser_all_args(d, &text))
                return dispenser_arg_err(d);
            TRY(read_duration(d, text, "invalid duration", &age));
            if (age <= 0)
                return dispenser_err_f(d,
                                       "invalid duration: " SLICE_FMT
                                       ", max_age should be non-zero and positive",
                                       SLICE_ARG(text));
            j_put_int(a, o, "max_age", age);
        } else {
            return dispenser_err_f(d, "unrecognized option '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        }
    }
    return OK;
}

static enum err policy_weights(struct adapt *a, struct dispenser *d, json_t *o)
{
    if (dispenser_count_remaining_args(d) == 0)
        return dispenser_arg_err(d);
    while (dispenser_next_arg(d)) {
        int64_t weight;
        TRY(read_int(d, dispenser_val(d), "invalid weight value", &weight));
        if (weight < 0)
            return dispenser_err_f(d,
                                   "invalid weight value '" SLICE_FMT
                                   "': weight should be non-negative",
                                   SLICE_ARG(dispenser_val(d)));
        j_add_to_list(a, o, SLICE("weights"), j_int(a, weight));
    }
    return OK;
}

/* Ours. */
static enum err policy_decay(struct adapt *a, struct dispenser *d, json_t *o)
{
    int64_t ns;
    if (!dispenser_next_arg(d))
        return OK;
    TRY(read_duration(d, dispenser_val(d), "bad duration value", &ns));
    if (ns < 1000000)
        return dispenser_err_f(d, "bad duration value: '" SLICE_FMT "' is less than a millisecond",
                               SLICE_ARG(dispenser_val(d)));
    j_put_int(a, o, "decay", ns);
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

static enum err policy_options(struct adapt *a, struct dispenser *d, struct slice name, json_t *o)
{
    static const char *const plain[] = {"random", "least_conn", "round_robin", "first", "ip_hash",
                                        "client_ip_hash", "uri_hash"};
    struct slice *args;
    int64_t choose;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (slice_is(name, plain[i]))
            return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
    if (slice_is(name, "weighted_round_robin"))
        return policy_weights(a, d, o);
    if (slice_is(name, "random_choose")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        TRY(read_int(d, dispenser_val(d), "invalid choice value", &choose));
        j_put_int(a, o, "choose", choose);
        return OK;
    }
    if (slice_is(name, "p2c_ewma"))
        return policy_decay(a, d, o);
    if (slice_is(name, "query") || slice_is(name, "header")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_put_text(a, o, slice_is(name, "query") ? "key" : "field", dispenser_val(d));
        return policy_block(a, d, false, o);
    }
    if (slice_is(name, "cookie")) {
        size_t count = dispenser_remaining_args(d, &args);
        if (count > 2)
            return dispenser_arg_err(d);
        if (count > 0)
            j_put_text(a, o, "name", args[0]);
        if (count > 1)
            j_put_text(a, o, "secret", args[1]);
        return policy_block(a, d, true, o);
    }
    return ERR_NOT_FOUND;
}

enum err policy_read(struct adapt *a, struct dispenser *outer, json_t **policy)
{
    struct slice name = dispenser_val(outer);
    struct dispenser at = *outer; /* the name's place */
    struct dispenser in = dispenser_new_from_next_segment(outer);
    json_t *o = j_object(a);
    dispenser_next(&in);
    enum err e = policy_options(a, &in, name, o);
    if (e == ERR_NOT_FOUND)
        return proxy_hint(&at, WORDS_POLICY,
                          no_module(&at, "http.reverse_proxy.selection_policies", name));
    *policy = e == OK ? j_module(a, "policy", arena_str(a->arena, name), o) : NULL;
    return e;
}
