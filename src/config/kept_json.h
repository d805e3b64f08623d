/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JSON value that is kept long and looked at seldom: as its text. The library's tree of the same
 * value is ten times as large.
 */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "base/slice.h"

/* From so many bytes of text on, a tree is large enough to be given back to the kernel at once. */
#define KEPT_JSON_LARGE ((size_t)256 << 10)

struct kept_json {
    char *text; /* compact, members in the order of the tree; NULL: nothing is kept */
    size_t len;
};

/* In place of what was kept before. ERR_LIMIT: it nests deeper than JSONX_MAX_DEPTH; nothing is kept. */
enum err kept_json_set(struct kept_json *, const json_t *);

/* In place of what was kept before, too. */
void kept_json_copy(struct kept_json *, const struct kept_json *from);

/* The value, as a new tree; null where nothing is kept. */
json_t *kept_json_tree(const struct kept_json *);

/* Whether both are one value; the order of members does not count. */
bool kept_json_same(const struct kept_json *, const struct kept_json *);

/* Whether a tree is the value that is kept. */
bool kept_json_is(const struct kept_json *, const json_t *);

void kept_json_clear(struct kept_json *);

static inline struct slice kept_json_text(const struct kept_json *k)
{
    return slice_of(k->text, k->len);
}
