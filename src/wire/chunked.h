/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chunked transfer coding, decoding side (RFC 9112 §7.1). Pure: bytes in, events out; no I/O,
 * no allocation; may be fed in pieces of any size.
 */
#pragma once

#include "base/slice.h"

enum chunked_event {
    CHUNKED_MORE, /* all input is consumed; feed the next bytes */
    CHUNKED_DATA, /* `data` holds body bytes, a view into the input */
    CHUNKED_LAST, /* the last chunk's line was read; a trailer section follows in `in` */
    CHUNKED_BAD,  /* malformed: answer 400 and close; the state is dead */
};

struct chunked {
    uint64_t left; /* bytes left in the current chunk, 0 … 2^60 - 1 */
    uint16_t line; /* bytes of the current size line so far */
    uint32_t excess; /* bytes of size lines that no data made up for yet */
    uint8_t state;
};

/* A size line with its extensions; a longer one is bad, for extensions are where smuggling hides. */
enum { CHUNKED_LINE_MAX = 256 };

/* Size lines may be longer than what a chunk of their data pays for (16 bytes and twice the data) by
 * this much in all: a body of one-byte chunks with long extensions is no body (as in Go). */
enum { CHUNKED_EXCESS_MAX = 16 * 1024 };

void chunked_init(struct chunked *);

/* Takes the next event out of `*in`, advancing it. `data`, at most `max` bytes
 * (at least 1), is set for CHUNKED_DATA only. Strict: CRLF
 * only, no sign, no prefix, no space before or behind the size. */
enum chunked_event chunked_next(struct chunked *, struct slice *in, size_t max,
                                struct slice *data);

enum { CHUNKED_HEAD_MAX = 20 };

/* Writes a chunk's size line ("1f4\r\n"); returns its length. */
size_t chunked_head(char out[CHUNKED_HEAD_MAX], uint64_t size);
