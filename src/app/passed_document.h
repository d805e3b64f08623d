/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration that a command makes of its flags goes from the person's process to the server
 * as an open memory file: the server, also one that is started again, reads it from there.
 */
#pragma once

#include <jansson.h>

#include "base/err.h"

/* In the person's process, before it becomes the keeper. The reference stays the caller's. */
enum err document_pass(const json_t *);

/* In the server: a new reference, or NULL. */
json_t *document_passed(void);
