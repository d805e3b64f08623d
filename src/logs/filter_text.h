/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the filters of log fields share.
 */
#pragma once

#include "base/arena.h"
#include "base/log.h"

typedef struct slice log_text_filter(const void *cfg, struct slice, struct arena *);

/* Changes a string, or each string of an array; other fields stay. */
void log_filter_each(struct log_field *, struct arena *, log_text_filter *, const void *cfg);

/* The first four bytes of the SHA-256, in hexadecimal. */
struct slice log_filter_hashed(struct slice, struct arena *);
