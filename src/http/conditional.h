/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conditional and range requests (RFC 9110 §13, §14), decided as Go's http.ServeContent does.
 */
#pragma once

#include "http/exchange.h"

enum condition {
    CONDITION_SEND,         /* with ranges, if there are any */
    CONDITION_SEND_WHOLE,   /* If-Range failed: ranges do not count */
    CONDITION_NOT_MODIFIED, /* 304 */
    CONDITION_FAILED,       /* 412 */
};

/* `etag`: with its quotes, empty for none. `modified`: seconds since 1970, or 0 for unknown. */
enum condition condition_check(const struct request *, struct slice etag, int64_t modified);

struct range {
    uint64_t start, len;
};

enum { RANGES_MAX = 64 };

enum range_result {
    RANGE_NONE,    /* send all: no ranges, too many, or more bytes than the whole */
    RANGE_SOME,
    RANGE_OUTSIDE, /* 416, with Content-Range: bytes and the size */
    RANGE_INVALID, /* 416 */
};

/* The value of Range against a size. */
enum range_result range_parse(struct slice value, uint64_t size, struct range out[RANGES_MAX],
                              size_t *count);
