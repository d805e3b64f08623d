/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One change of the ports' history as a line for a person.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"
#include "base/buffer.h"

void ports_log_put(const json_t *change, bool colour, struct arena *, struct buffer *);
