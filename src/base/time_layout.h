/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times written by an example, as Go's time package does: the layout shows how 2 January 2006,
 * 15:04:05 at seven hours west of Greenwich would look, "02/Jan/2006:15:04:05 -0700".
 */
#pragma once

#include "base/buffer.h"

enum { TIME_LAYOUT_MAX = 128, TIME_TEXT_MAX = 512 };

struct time_part {
    uint8_t kind;   /* enum time_token of time_layout.c */
    uint8_t digits; /* of a fraction */
    uint8_t from, len; /* of text: in `layout` */
};

struct time_layout {
    char layout[TIME_LAYOUT_MAX];
    struct time_part parts[TIME_LAYOUT_MAX];
    unsigned count;
};

/* ERR_LIMIT when it is longer than TIME_LAYOUT_MAX. Anything that is no token is text. */
enum err time_layout_compile(struct time_layout *, struct slice);

/* Writes at most TIME_TEXT_MAX bytes; returns how many. `local`: in the machine's zone. */
size_t time_layout_put(const struct time_layout *, int64_t wall_ns, bool local,
                       char out[TIME_TEXT_MAX]);

/* Reads a text that the layout wrote: its numbers, and names of months; zones are taken as UTC or,
 * with `local`, the machine's. ERR_INVALID for other text or a layout without a whole date. */
enum err time_layout_read(const struct time_layout *, struct slice, bool local, int64_t *wall_ns);
