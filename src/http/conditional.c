/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preconditions in the order of RFC 9110 §13.2.2. Dates have whole seconds.
 */
#include "http/conditional.h"

#include "base/clock.h"

enum truth { TRUTH_NONE, TRUTH_YES, TRUTH_NO };

/* The entity tag at the front, W/ included; false when there is none. */
static bool take_etag(struct slice *s, struct slice *etag)
{
    *s = slice_trim(*s);
    size_t start = slice_starts(*s, SLICE("W/")) ? 2 : 0;
    if (s->len < start + 2 || s->ptr[start] != '"')
        return false;
    for (size_t i = start + 1; i < s->len; i++) {
        unsigned char c = (unsigned char)s->ptr[i];
        if (c == '"') {
            *etag = slice_take(*s, i + 1);
            *s = slice_skip(*s, i + 1);
            return true;
        }
        if (c != 0x21 && (c < 0x23 || c == 0x7f))
            return false;
    }
    return false;
}

static bool strong_equal(struct slice a, struct slice b)
{
    return slice_eq(a, b) && a.len > 0 && a.ptr[0] == '"';
}

static bool weak_equal(struct slice a, struct slice b)
{
    if (slice_starts(a, SLICE("W/")))
        a = slice_skip(a, 2);
    if (slice_starts(b, SLICE("W/")))
        b = slice_skip(b, 2);
    return a.len > 0 && slice_eq(a, b);
}

static bool list_has(struct slice list, struct slice etag, bool (*equal)(struct slice, struct slice))
{
    struct slice one;
    for (;;) {
        list = slice_trim(list);
        while (list.len > 0 && list.ptr[0] == ',')
            list = slice_trim(slice_skip(list, 1));
        if (list.len > 0 && list.ptr[0] == '*')
            return true;
        if (list.len == 0 || !take_etag(&list, &one))
            return false;
        if (equal(one, etag))
            return true;
    }
}

static inline bool get(const struct request *q, struct slice name, struct slice *value)
{
    return fields_get(&q->fields, name, value) && value->len > 0;
}

static enum truth unmodified_since(const struct request *q, int64_t modified)
{
    struct slice v;
    int64_t t;
    if (modified == 0 || !get(q, SLICE("If-Unmodified-Since"), &v) || !clock_parse_http_date(v, &t))
        return TRUTH_NONE;
    return modified <= t ? TRUTH_YES : TRUTH_NO;
}

static enum truth modified_since(const struct request *q, int64_t modified)
{
    struct slice v;
    int64_t t;
    if (q->method_id != METHOD_GET && q->method_id != METHOD_HEAD)
        return TRUTH_NONE;
    if (modified == 0 || !get(q, SLICE("If-Modified-Since"), &v) || !clock_parse_http_date(v, &t))
        return TRUTH_NONE;
    return modified <= t ? TRUTH_NO : TRUTH_YES;
}

static enum truth if_range(const struct request *q, struct slice etag, int64_t modified)
{
    struct slice v, one;
    int64_t t;
    if ((q->method_id != METHOD_GET && q->method_id != METHOD_HEAD) || !get(q, SLICE("If-Range"), &v))
        return TRUTH_NONE;
    struct slice rest = v;
    if (take_etag(&rest, &one))
        return strong_equal(one, etag) ? TRUTH_YES : TRUTH_NO;
    if (modified == 0 || !clock_parse_http_date(v, &t))
        return TRUTH_NO;
    return t == modified ? TRUTH_YES : TRUTH_NO;
}

enum condition condition_check(const struct request *q, struct slice etag, int64_t modified)
{
    struct slice v;
    bool reads = q->method_id == METHOD_GET || q->method_id == METHOD_HEAD;
    if (get(q, SLICE("If-Match"), &v)) {
        if (!list_has(v, etag, strong_equal))
            return CONDITION_FAILED;
    } else if (unmodified_since(q, modified) == TRUTH_NO) {
        return CONDITION_FAILED;
    }
    if (get(q, SLICE("If-None-Match"), &v)) {
        if (list_has(v, etag, weak_equal))
            return reads ? CONDITION_NOT_MODIFIED : CONDITION_FAILED;
    } else if (modified_since(q, modified) == TRUTH_NO) {
        return CONDITION_NOT_MODIFIED;
    }
    return if_range(q, etag, modified) == TRUTH_NO ? CONDITION_SEND_WHOLE : CONDITION_SEND;
}

/* --- ranges --- */

/* One of "a-b", "a-", "-n". RANGE_NONE: it lies outside. */
static enum range_result parse_one(struct slice spec, uint64_t size, struct range *r)
{
    struct slice first, last;
    uint64_t a, b;
    if (!slice_cut(spec, '-', &first, &last))
        return RANGE_INVALID;
    first = slice_trim(first);
    last = slice_trim(last);
    if (first.len == 0) {
        if (!slice_to_u64(last, INT64_MAX, &b))
            return RANGE_INVALID;
        b = b < size ? b : size;
        if (b == 0)
            return RANGE_NONE; /* RFC 9110 §14.1.2: no last bytes are no part */
        *r = (struct range){size - b, b};
        return b > 0 ? RANGE_SOME : RANGE_NONE; /* RFC 9110 §14.1.2; Go sends "10-9/10" */
    }
    if (!slice_to_u64(first, INT64_MAX, &a))
        return RANGE_INVALID;
    if (a >= size)
        return RANGE_NONE;
    if (last.len == 0) {
        *r = (struct range){a, size - a};
        return RANGE_SOME;
    }
    if (!slice_to_u64(last, INT64_MAX, &b) || a > b)
        return RANGE_INVALID;
    b = b < size ? b : size - 1;
    *r = (struct range){a, b - a + 1};
    return RANGE_SOME;
}

enum range_result range_parse(struct slice value, uint64_t size, struct range out[RANGES_MAX],
                              size_t *count)
{
    struct slice rest, spec;
    uint64_t total = 0;
    bool outside = false, too_many = false;
    *count = 0;
    if (!slice_starts(value, SLICE("bytes=")))
        return RANGE_INVALID;
    rest = slice_skip(value, 6);
    for (bool more = true; more;) {
        struct range r;
        more = slice_cut(rest, ',', &spec, &rest);
        spec = slice_trim(spec);
        if (spec.len == 0)
            continue;
        enum range_result one = parse_one(spec, size, &r);
        if (one == RANGE_INVALID)
            return RANGE_INVALID;
        outside = outside || one == RANGE_NONE;
        too_many = too_many || (one == RANGE_SOME && *count == RANGES_MAX);
        if (one == RANGE_NONE || too_many)
            continue;
        out[(*count)++] = r;
        total = r.len > UINT64_MAX - total ? UINT64_MAX : total + r.len;
    }
    if (*count == 0)
        return outside && size > 0 ? RANGE_OUTSIDE : RANGE_NONE;
    return too_many || total > size ? RANGE_NONE : RANGE_SOME;
}
