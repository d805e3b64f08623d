/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directives of other servers, and of older versions: what they are here.
 */
#pragma once

#include "base/slice.h"

/* A sentence to stand behind " - "; NULL: nobody has such a word. */
const char *foreign_directive(struct slice name);
