/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A malformed q counts as 1, as in Caddy; "*" is a name like any other and so chooses nothing. The
 * list is short, so it is kept sorted while it is read.
 */
#include "http/accept_encoding.h"

enum { MILLION = 1000000 };

/* "0.5", "1", ".25", "1." as millionths; what is no such number, or beyond 1, is 1. */
static uint32_t parse_q(struct slice text)
{
    uint64_t n = 0;
    struct slice whole, fraction;
    bool dot = slice_cut(text, '.', &whole, &fraction);
    if (whole.len + fraction.len == 0 || (whole.len > 0 && !slice_to_u64(whole, 1, &n)))
        return MILLION;
    n *= MILLION;
    for (size_t i = 0, unit = MILLION / 10; dot && i < fraction.len; i++, unit /= 10) {
        if (fraction.ptr[i] < '0' || fraction.ptr[i] > '9')
            return MILLION;
        n += (size_t)(fraction.ptr[i] - '0') * unit;
    }
    return n > MILLION ? MILLION : (uint32_t)n;
}

static uint32_t q_of(struct slice params)
{
    struct slice first, rest;
    slice_cut(params, ';', &first, &rest);
    first = slice_trim(first);
    return slice_starts_nocase(first, SLICE("q=")) ? parse_q(slice_skip(first, 2)) : MILLION;
}

static int rank_of(const struct accepted *a, const struct slice *prefer, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(slice_of(a->name, a->len), prefer[i]))
            return (int)(count - i);
    }
    return -1;
}

static bool better(const struct accepted *a, const struct accepted *b)
{
    uint32_t apart = a->q > b->q ? a->q - b->q : b->q - a->q;
    return apart >= 10 ? a->q > b->q : a->rank > b->rank;
}

size_t accepted_encodings(struct slice field, const struct slice *prefer, size_t prefer_count,
                          struct accepted out[ACCEPTED_MAX])
{
    size_t count = 0;
    bool more = field.len > 0;
    while (more && count < ACCEPTED_MAX) {
        struct slice item, name, params;
        struct accepted a = {.q = MILLION};
        more = slice_cut(field, ',', &item, &field);
        if (slice_cut(item, ';', &name, &params))
            a.q = q_of(params);
        name = slice_trim(name);
        if (a.q < 10 || name.len > sizeof a.name)
            continue;
        a.len = (uint8_t)name.len;
        for (size_t i = 0; i < name.len; i++)
            a.name[i] = ascii_lower(name.ptr[i]);
        a.rank = rank_of(&a, prefer, prefer_count);
        size_t at = count++;
        for (; at > 0 && better(&a, &out[at - 1]); at--)
            out[at] = out[at - 1];
        out[at] = a;
    }
    return count;
}
