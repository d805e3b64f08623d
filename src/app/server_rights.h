/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the server process may do: everything that it does not need is given up before its first
 * thread.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

/* "portico": {"user": "NAME[:GROUP]"} of a document: whose the server process shall be. Empty when
 * nothing is said, or when what is said is no text, which is refused elsewhere. */
struct slice rights_user(const json_t *document);

/* Becomes that user, with its groups or the one that is named (numbers are taken, too), and gives up
 * every capability. Without a user: stays who it is, and gives up all of them but
 * CAP_DAC_READ_SEARCH. No new privileges after it. On failure `error` holds a sentence. */
enum err rights_settle(struct slice user, char *error, size_t cap);
