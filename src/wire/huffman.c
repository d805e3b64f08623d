/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding keeps up to 64 bits left-aligned in a word. A table of the next 11 bits gives one or two
 * bytes at once, which is nearly all of what headers consist of; longer codes are found by their
 * length, as the code is canonical: of each length it is known below which number codes are of that
 * length or shorter. At the input's end the word is filled with ones, which no byte's code consists
 * of, so that what is left there is padding or an error.
 */
#include "wire/huffman.h"

#include <endian.h>

#include "wire/hpack_tables.h"

struct bits {
    uint64_t word;  /* the next bit is the highest */
    unsigned count; /* of bits that are there */
    const uint8_t *at, *end;
};

/* Until 57 bits or more are there, or all; then ones follow. */
static void refill(struct bits *b)
{
    uint64_t next;
    if (b->end - b->at >= 8) {
        memcpy(&next, b->at, 8);
        b->word |= be64toh(next) >> b->count;
        b->at += (63 - b->count) >> 3;
        b->count |= 56;
        return;
    }
    for (; b->count <= 56 && b->at < b->end; b->count += 8)
        b->word |= (uint64_t)*b->at++ << (56 - b->count);
    if (b->at == b->end && b->count < 64)
        b->word |= UINT64_MAX >> b->count;
}

static void drop(struct bits *b, unsigned count)
{
    b->word <<= count;
    b->count -= count;
}

/* One byte by its code's length; false when its code is not all there, or EOS. */
static bool take_one(struct bits *b, char *out)
{
    uint64_t next = b->word >> 32;
    unsigned length = 5;
    while (next >= huffman_limits[length])
        length++;
    unsigned place = (unsigned)((int32_t)(next >> (32 - length)) + huffman_offsets[length]);
    if (length > b->count || place >= sizeof huffman_order)
        return false;
    *out = (char)huffman_order[place];
    drop(b, length);
    return true;
}

static bool is_padding(const struct bits *b)
{
    return b->count < 8 && b->word == UINT64_MAX;
}

static uint32_t look(const struct bits *b)
{
    return huffman_fast[b->word >> (64 - HUFFMAN_FAST_BITS)];
}

size_t huffman_decode(char *out, struct slice in)
{
    struct bits b = {.at = (const uint8_t *)in.ptr, .end = (const uint8_t *)in.ptr + in.len};
    char *start = out;
    for (;;) {
        refill(&b);
        uint32_t found = look(&b);
        if (found == 0 || found >> 24 > b.count) { /* a long code, or the end */
            if (is_padding(&b))
                return (size_t)(out - start);
            if (!take_one(&b, out++))
                return SIZE_MAX;
            continue;
        }
        do {
            out[0] = (char)found;
            out[1] = (char)(found >> 8);
            out += found >> 16 & 0xff;
            drop(&b, found >> 24);
            found = look(&b);
        } while (found != 0 && found >> 24 <= b.count);
    }
}

size_t huffman_length(struct slice text)
{
    size_t bits = 7;
    for (size_t i = 0; i < text.len; i++)
        bits += huffman_codes[(unsigned char)text.ptr[i]].length;
    return bits / 8;
}

char *huffman_encode(char *out, struct slice text)
{
    uint64_t word = 0; /* right-aligned */
    unsigned count = 0;
    for (size_t i = 0; i < text.len; i++) {
        struct huffman_code code = huffman_codes[(unsigned char)text.ptr[i]];
        word = word << code.length | code.bits;
        count += code.length;
        if (count >= 32) {
            uint32_t ready = htobe32((uint32_t)(word >> (count - 32)));
            memcpy(out, &ready, 4);
            out += 4;
            count -= 32;
        }
    }
    if (count % 8 > 0) {
        word = word << (8 - count % 8) | (0xffu >> count % 8);
        count += 8 - count % 8;
    }
    while (count > 0) {
        count -= 8;
        *out++ = (char)(word >> count);
    }
    return out;
}
