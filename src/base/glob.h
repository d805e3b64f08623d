/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shell patterns as Go's path.Match reads them: * and ? stop at '/', [a-z] [^a-z], '\' escapes.
 */
#pragma once

#include "base/slice.h"

/* False also for a malformed pattern. At most len(pattern) × len(name) steps. */
bool glob_match(struct slice pattern, struct slice name);

/* Whether every class is closed and no escape stands at the end. */
bool glob_valid(struct slice pattern);
