/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse_proxy: portico's own options for upstreams that are slow or fail (docs/slow-services.md).
 *
 *     max_requests 10          at once, at each upstream
 *     queue 100                so many wait while all are at that limit
 *     queue_timeout 2s         for that long
 *     slow_start 30s           until an upstream that came back has its full share
 *     retry_budget 20% [3]     of the requests may be repeated, and 3 each second
 */
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
};

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
    *known = slice_is(name, "retry_budget");
    return *known ? read_retry_budget(a, d, handler) : OK;
}
