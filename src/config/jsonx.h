/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON as Go's encoding/json writes it and as a careful server reads it.
 */
#pragma once

#include <jansson.h>

#include "base/buffer.h"
#include "config/diag.h"

/* Larger documents are refused, as is nesting beyond 1,000. */
#define JSONX_MAX_SIZE ((size_t)64 << 20)
#define JSONX_MAX_DEPTH 1000

/* Any JSON value. A key that stands twice in one object, and text behind the value, are errors.
 * NULL with a diag (line, column, reason) when it is not good; `file` may be empty. */
json_t *jsonx_load(struct slice file, struct slice text, struct diag *);

/* Whether text that may be JSON nests deeper than `max`: a parser's recursion is bounded by asking
 * before. */
bool jsonx_too_deep(struct slice text, size_t max);

/* As json.Marshal: no white space, "<", ">" and "&" as \u003c … ; keys in order of insertion. */
enum err jsonx_dump(struct buffer *, const json_t *);

/* As json.MarshalIndent with tabs; no line end behind it. */
enum err jsonx_dump_pretty(struct buffer *, const json_t *);

/* One string with its quotes, escaped that way. */
enum err jsonx_put_string(struct buffer *, struct slice);

/* A number as Go writes a float64. ERR_INVALID for infinities and NaN. */
enum err jsonx_put_float(struct buffer *, double);

/* A string of the slice; bytes that are not UTF-8 become U+FFFD, as in Go. Never NULL. */
json_t *jsonx_string(struct slice);

/* The same value with the keys of every object in the order of their bytes, as Go writes maps. A
 * new reference. */
json_t *jsonx_sorted(const json_t *);

/* The keys of this object only; values are shared. A new reference. */
json_t *jsonx_sorted_keys(const json_t *object);
