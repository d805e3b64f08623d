/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Huffman code of HPACK (RFC 7541 §5.2, appendix B). Pure; the caller gives the room.
 */
#pragma once

#include "base/slice.h"

/* Bytes that huffman_decode may write for an input of that length, some more than come out. */
static inline size_t huffman_room(size_t len)
{
    return len + len / 5 * 3 + 5; /* the shortest code has 5 bits */
}

/* Writes the text at `out`; returns its length, or SIZE_MAX when the input is malformed: it holds
 * EOS, ends within a code, or is padded by 8 bits or more or by other bits than ones. */
size_t huffman_decode(char *out, struct slice in);

/* Bytes of the encoded form. */
size_t huffman_length(struct slice);

/* Writes so many bytes; returns the place behind them. */
char *huffman_encode(char *out, struct slice);
