/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse_proxy: options of ours for services that are slow, or new. Caddy has none of them.
 *
 *     mirror UPSTREAM [SHARE%] {
 *         max_requests N
 *         timeout DURATION
 *         max_body SIZE
 *         header_up …
 *     }
 *     hedge DURATION|pN [SHARE%] {
 *         idempotent
 *     }
 */
#include <stdlib.h>

#include "adapter/proxy_parts.h"
#include "adapter/upstream_address.h"

/* "10%" as 0.1 */
enum err read_share(struct dispenser *d, const char *option, double *share)
{
    char text[32], *end;
    struct slice s = dispenser_val(d);
    if (s.len > 1 && s.len < sizeof text && slice_ends(s, SLICE("%")) && s.ptr[0] >= '0' && s.ptr[0] <= '9') {
        memcpy(text, s.ptr, s.len - 1);
        text[s.len - 1] = '\0';
        *share = strtod(text, &end) / 100;
        if (*end == '\0' && *share > 0 && *share <= 1)
            return OK;
    }
    return dispenser_err_f(d, "%s: bad share '" SLICE_FMT "': a percentage is wanted, such as 10%%, "
                           "above 0 and 100 at most", option, SLICE_ARG(s));
}

/* --- mirror --- */

static enum err mirror_upstream(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct upstream_address u;
    struct address_error why;
    struct slice text = dispenser_val(d);
    json_t *transport;
    if (upstream_address_parse(text, &u, a->arena, &why) != OK)
        return dispenser_err_f(d, "mirror: parsing upstream '" SLICE_FMT "': %s", SLICE_ARG(text),
                               why.text);
    struct slice dial = upstream_dial(&u, a->arena);
    if (slice_find(dial, '{') != SIZE_MAX)
        return dispenser_err_f(d, "mirror: the upstream cannot hold placeholders: '" SLICE_FMT "'",
                               SLICE_ARG(text));
    j_put_text(a, o, "dial", dial);
    adapt_origin(a, arena_printf(a->arena, "upstream " SLICE_FMT, SLICE_ARG(dial)), dial,
                 dispenser_file(d), dispenser_line(d));
    if (u.scheme.len == 0) /* as the upstreams are spoken to */
        return OK;
    transport = j_object(a);
    if (slice_is(u.scheme, "https"))
        j_at(a, transport, "tls");
    else if (!slice_is(u.scheme, "http"))
        return dispenser_err_f(d, "mirror: the scheme must be http:// or https://, not '" SLICE_FMT
                               "://'", SLICE_ARG(u.scheme));
    j_set(a, o, "transport", j_module(a, "protocol", "http", transport));
    return OK;
}

static enum err mirror_header(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice *args;
    size_t count = dispenser_remaining_args(d, &args);
    if (count < 1 || count > 3)
        return dispenser_arg_err(d);
    return header_op(a, d, j_at(a, o, "headers"), NULL, args[0], count > 1 ? args[1] : SLICE_NONE,
                     count > 2 ? &args[2] : NULL);
}

enum err mirror_read(struct adapt *a, struct dispenser *d, json_t *handler)
{
    static const struct option options[] = {
        {"max_requests", OPTION_INT, "max_requests", "bad number of requests"},
        {"timeout", OPTION_DURATION, "timeout", "bad duration value"},
        {"max_body", OPTION_SIZE, "max_body", "bad size value"},
        {0},
    };
    json_t *o = j_object(a);
    double share;
    bool known;
    if (json_object_get(handler, "mirror") != NULL)
        return dispenser_err_f(d, "mirror already specified");
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    TRY(mirror_upstream(a, d, o));
    if (dispenser_next_arg(d)) {
        TRY(read_share(d, "mirror", &share));
        j_set(a, o, "share", keep(a, json_real(share)));
    }
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    for (int nesting = dispenser_nesting(d); dispenser_next_block(d, nesting);) {
        TRY(option_read(a, d, options, o, &known));
        if (known)
            continue;
        if (!dispenser_val_is(d, "header_up"))
            return dispenser_unrecognized(d);
        TRY(mirror_header(a, d, o));
    }
    j_set(a, handler, "mirror", o);
    return OK;
}

/* --- hedge --- */

/* "50ms", or a quantile of the gateway's own latencies such as "p95". */
static enum err hedge_after(struct adapt *a, struct dispenser *d, json_t *o)
{
    int64_t ns;
    struct slice text = dispenser_val(d);
    if (slice_starts(text, SLICE("p"))) {
        char *end, *digits = arena_str(a->arena, slice_skip(text, 1));
        double n = strtod(digits, &end);
        if (*digits < '0' || *digits > '9' || *end != '\0' || !(n >= 50 && n < 100))
            return dispenser_err_f(d, "hedge: '" SLICE_FMT "' is no quantile: from p50 to p99.9",
                                   SLICE_ARG(text));
        j_put_text(a, o, "after", text);
        return OK;
    }
    TRY(read_duration(d, text, "hedge: bad duration value", &ns));
    if (ns <= 0)
        return dispenser_err_f(d, "hedge: the duration must be above 0");
    j_put_int(a, o, "after", ns);
    return OK;
}

enum err hedge_read(struct adapt *a, struct dispenser *d, json_t *handler)
{
    json_t *o = j_object(a);
    double share;
    if (json_object_get(handler, "hedge") != NULL)
        return dispenser_err_f(d, "hedge already specified");
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    TRY(hedge_after(a, d, o));
    if (dispenser_next_arg(d)) {
        TRY(read_share(d, "hedge", &share));
        j_set(a, o, "max", keep(a, json_real(share)));
    }
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    for (int nesting = dispenser_nesting(d); dispenser_next_block(d, nesting);) {
        if (!dispenser_val_is(d, "idempotent"))
            return dispenser_unrecognized(d);
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_put_bool(a, o, "idempotent", true);
    }
    j_set(a, handler, "hedge", o);
    return OK;
}
