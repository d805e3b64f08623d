/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys that a fleet seals its session tickets with, as Caddy's distributed provider stores them
 * ("stek/stek.bin"): a Go struct { Keys [][32]byte; LastRotation, NextRotation time.Time } in Go's
 * encoding "gob". Pure.
 */
#pragma once

#include "base/buffer.h"

enum { STEK_LEN = 32, STEK_MAX = 64, STEK_FILE_MAX = 64 * 1024 };

struct stek_file {
    unsigned char keys[STEK_MAX][STEK_LEN]; /* the newest first */
    unsigned count;
    int64_t last_ns, next_ns; /* rotation; wall clock, INT64_MIN for a time of long ago */
};

/* ERR_INVALID when that is something else. Of more keys than STEK_MAX the oldest are passed over. */
enum err stek_file_parse(struct slice, struct stek_file *) MUST_USE;

void stek_file_put(struct buffer *, const struct stek_file *);

/* A new key (random bytes) in front; at most `max` stay. */
void stek_file_rotate(struct stek_file *, const unsigned char key[STEK_LEN], unsigned max);
