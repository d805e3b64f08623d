/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on query parameters, of the rewrite handler.
 */
#pragma once

#include "http/module.h"

struct query_ops;

enum err query_ops_provision(struct query_ops **, const json_t *, struct provision *);
void query_ops_release(struct query_ops *); /* NULL is allowed */

/* Renames, sets, adds, replaces, deletes; the query is written anew, sorted by key. */
enum err query_ops_apply(const struct query_ops *, struct exchange *);
