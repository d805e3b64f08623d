/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse_proxy: portico's own options for upstreams that are slow or fail (docs/slow-services.md).
 *
 *     max_requests 10          at once, at each upstream
 *     queue 100                so many wait while all are at that limit
 *     queue_timeout 2s         for that long
 *     slow_start 30s           until an upstream that came back has its full share
 *     warm_connections 2       to each upstream, of each worker, kept open
 *     eject {                  who does worse than the others: see eject_options
 *         latency 3
 *     }
 *     retry_budget 20% [3]     of the requests may be repeated, and 3 each second
 */
#include <stdlib.h>

#include "adapter/proxy_parts.h"

static enum err read_above_zero(struct dispenser *d, const char *what, int64_t *n)
{
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice text = dispenser_val(d);
    TRY(read_int(d, text, what, n));
    if (*n <= 0)
        return dispenser_err_f(d, "%s: '" SLICE_FMT "' is not above zero", what, SLICE_ARG(text));
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

static enum err read_time_above_zero(struct dispenser *d, const char *what, int64_t *ns)
{
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice text = dispenser_val(d);
    TRY(read_duration(d, text, what, ns));
    if (*ns <= 0)
        return dispenser_err_f(d, "%s: '" SLICE_FMT "' is not above zero", what, SLICE_ARG(text));
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

static const struct {
    const char *name, *what;
    bool is_time;
} numbers[] = {
    {"max_requests", "invalid maximum request count", false},
    {"queue", "invalid length of the queue", false},
    {"queue_timeout", "bad duration value", true},
    {"slow_start", "bad duration value", true},
    {"warm_connections", "invalid number of connections", false},
};

/* --- eject --- */

static const struct option eject_options[] = {
    {"consecutive_failures", OPTION_INT, "consecutive_failures", "invalid number of failures"},
    {"min_requests", OPTION_INT, "min_requests", "invalid number of requests"},
    {"interval", OPTION_DURATION, "interval", "bad duration value"},
    {"base_time", OPTION_DURATION, "base_time", "bad duration value"},
    {"max_time", OPTION_DURATION, "max_time", "bad duration value"},
    {0},
};

/* "3", or "2.5": times the median. */
static enum err read_factor(struct dispenser *d, double *factor)
{
    char text[32], *end;
    struct slice s = dispenser_val(d);
    if (s.len > 0 && s.len < sizeof text && s.ptr[0] >= '0' && s.ptr[0] <= '9') {
        memcpy(text, s.ptr, s.len);
        text[s.len] = '\0';
        *factor = strtod(text, &end);
        if (*end == '\0' && *factor >= 1.1 && *factor <= 1000)
            return OK;
    }
    return dispenser_err_f(d, "eject: bad latency '" SLICE_FMT "': how many times the median it may "
                           "be is wanted, from 1.1 to 1000", SLICE_ARG(s));
}

static enum err read_eject(struct adapt *a, struct dispenser *d, json_t *handler)
{
    double value;
    bool known;
    json_t *eject = j_object(a);
    int nesting = dispenser_nesting(d);
    if (json_object_get(j_at(a, handler, "overload"), "eject") != NULL)
        return dispenser_err_f(d, "eject already specified");
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, nesting)) {
        bool rate = dispenser_val_is(d, "failure_rate");
        if (rate || dispenser_val_is(d, "latency")) {
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            TRY(rate ? read_share(d, "failure_rate", &value) : read_factor(d, &value));
            j_set(a, eject, rate ? "failure_rate" : "latency_factor", keep(a, json_real(value)));
            if (dispenser_next_arg(d))
                return dispenser_arg_err(d);
            continue;
        }
        TRY(option_read(a, d, eject_options, eject, &known));
        if (!known)
            return dispenser_unrecognized(d);
    }
    j_set(a, j_at(a, handler, "overload"), "eject", eject);
    return OK;
}

static enum err read_retry_budget(struct adapt *a, struct dispenser *d, json_t *handler)
{
    double share;
    int64_t few;
    json_t *budget = j_at(a, handler, "overload.retry_budget");
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    TRY(read_share(d, "retry_budget", &share));
    j_set(a, budget, "share", keep(a, json_real(share)));
    if (!dispenser_next_arg(d))
        return OK;
    TRY(read_int(d, dispenser_val(d), "invalid number of retries each second", &few));
    if (few < 0 || few > 1000000)
        return dispenser_err_f(d, "invalid number of retries each second: '" SLICE_FMT "'",
                               SLICE_ARG(dispenser_val(d)));
    j_put_int(a, budget, "each_second", few);
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

enum err overload_option(struct adapt *a, struct dispenser *d, json_t *handler, bool *known)
{
    struct slice name = dispenser_val(d);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int64_t n;
        *known = slice_is(name, numbers[i].name);
        if (!*known)
            continue;
        TRY(numbers[i].is_time ? read_time_above_zero(d, numbers[i].what, &n)
                               : read_above_zero(d, numbers[i].what, &n));
        j_put_int(a, j_at(a, handler, "overload"), numbers[i].name, n);
        return OK;
    }
    *known = slice_is(name, "eject");
    if (*known)
        return read_eject(a, d, handler);
    *known = slice_is(name, "retry_budget");
    return *known ? read_retry_budget(a, d, handler) : OK;
}
