/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of header fields as the configuration writes them: what the headers handler does to
 * requests and responses, and the gateway to both sides.
 *
 *     {"add": {"X-A": ["1"]}, "set": {…}, "delete": ["X-B*"],
 *      "replace": {"X-C": [{"search": "a", "replace": "b"}, {"search_regexp": "a+", "replace": "$0"}]}}
 */
#pragma once

#include "http/module.h"

struct op_values;
struct replacement;

struct field_ops {
    struct op_values *add, *set;
    struct template *remove;
    struct replacement *replace;
    size_t add_count, set_count, remove_count, replace_count;
};

/* Members other than the four are not looked at. */
enum err field_ops_provision(struct field_ops *, const json_t *, struct provision *);
void field_ops_release(struct field_ops *);

/* In Caddy's order: delete everything ("*"), add, set, delete by name or wildcard, replace. */
void field_ops_apply(const struct field_ops *, struct fields *, struct exchange *);

/* The same to the response's; remembers when Date is among what is deleted. */
void field_ops_apply_response(const struct field_ops *, struct fields *, struct exchange *);
