/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small text forms that many rooms read and write: UTF-8, hexadecimal, base64, durations, sizes.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"
#include "base/slice.h"

/* 0 … 15, or -1. */
int hex_value(char c);

/* Length in bytes (1 … 4) of the valid UTF-8 sequence at the front, or 0; `rune` may be NULL. */
size_t utf8_decode(struct slice, uint32_t *rune);
bool utf8_valid(struct slice);

/* Without a sequence at the end that was cut in its middle. */
struct slice utf8_whole(struct slice);

/* Writes 1 … 4 bytes; returns how many. */
size_t utf8_encode(uint32_t rune, char out[4]);

/* Standard alphabet, padded. */
enum err base64_encode(struct buffer *, struct slice);

/* The URL alphabet without padding (RFC 4648 §5, RFC 7515 §2). */
enum err base64url_encode(struct buffer *, struct slice);

/* Standard or URL alphabet, padding optional; ERR_INVALID on anything else. */
enum err base64_decode(struct buffer *, struct slice);

/* Go's duration text with Caddy's day unit: "1h30m", "250ms", "2d", "-1.5s", "0". Units ns us µs
 * ms s m h d. ERR_INVALID when malformed or beyond ±292 years. */
enum err duration_parse(struct slice, int64_t *ns);

/* As Go prints it: "1h30m0s", "250ms", "0s". */
enum err duration_put(struct buffer *, int64_t ns);

/* Bytes as go-humanize reads them: "10MB" is 10,000,000, "10MiB" is 10,485,760, "10" is 10;
 * one optional space, fractions allowed, case ignored. */
enum err size_parse(struct slice, uint64_t *bytes);

/* As go-humanize's IBytes prints it: "1.5 KiB", "512 B". */
enum err size_put(struct buffer *, uint64_t bytes);
