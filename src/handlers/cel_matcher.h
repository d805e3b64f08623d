/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request matchers as functions of an expression: path('/a', '/b') is the matcher "path": ["/a", "/b"].
 */
#pragma once

#include "handlers/cel.h"

bool cel_matcher_known(struct slice function);

/* Provisions the matcher that the call means. A placeholder among the arguments is handed on as text,
 * which the matcher expands for each request. */
enum err cel_matcher_provision(struct provision *, struct slice function, struct slice name,
                               struct cel_node *const *args, size_t count, struct matcher *out);
