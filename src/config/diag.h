/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sentence for a person about one place of a configuration. `text` is complete by itself and
 * begins with the words Caddy's users know; file, line and column tell programs the same place.
 */
#pragma once

#include "base/slice.h"

struct diag {
    char text[2048]; /* ends in NUL; cut at a whole UTF-8 sequence when longer */
    char file[512];  /* "" when unknown */
    unsigned line;   /* from 1; 0 when unknown */
    unsigned column; /* in bytes from 1; 0 when unknown */
};

void diag_clear(struct diag *);

/* Replace the place, or the text. A diag of NULL is allowed everywhere: nobody listens. */
void diag_place(struct diag *, struct slice file, unsigned line, unsigned column);
void diag_say(struct diag *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void diag_append(struct diag *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* diag_say, and ERR_INVALID, so that a caller returns with one line. */
MUST_USE enum err diag_fail(struct diag *, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
