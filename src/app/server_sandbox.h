/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option `sandbox`: what the server process never needs is refused by the kernel from then on,
 * whatever takes control of it.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

/* "portico": {"sandbox": true} of a document. */
bool sandbox_wanted(const json_t *document);

/* For this process and all threads it will have; before its first thread, behind rights_settle. Not to
 * be undone. On failure `error` holds a sentence. */
enum err sandbox_enter(char *error, size_t cap);
