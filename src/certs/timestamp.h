/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times as JSON has them (RFC 3339): "2026-11-25T23:58:01.5Z".
 */
#pragma once

#include "base/arena.h"

/* Seconds since 1970, a fraction cut off; Go's zero time, and everything before 1970, is 0. False
 * when malformed. */
bool timestamp_read(struct slice, int64_t *seconds);

/* In UTC; 0 is Go's zero time. */
struct slice timestamp_text(struct arena *, int64_t seconds);

/* With a fraction of a second. */
struct slice timestamp_text_ns(struct arena *, int64_t ns);
