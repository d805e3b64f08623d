/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JSON value as the text that a placeholder gives for it.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"

/* Strings as they are, numbers without exponent as Caddy prints them, true and false; null is the
 * empty text; arrays and objects as compact JSON. */
struct slice json_text(const json_t *, struct arena *);
