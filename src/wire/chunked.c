/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A state for each place in the grammar; bytes of a size line go one by one (there are few), bytes
 * of data in one piece. Extensions are skipped, but their bytes are checked: no CR but the one of
 * the CRLF, no other control character.
 */
#include "wire/chunked.h"

#include "base/text.h"

enum { FIRST_DIGIT, DIGITS, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, LAST, DEAD };

void chunked_init(struct chunked *c)
{
    *c = (struct chunked){.state = FIRST_DIGIT};
}

static uint8_t take_digit(struct chunked *c, char byte)
{
    int digit = hex_value(byte);
    if (digit < 0 || c->left >> 56 != 0)
        return DEAD;
    c->left = c->left << 4 | (unsigned)digit;
    return DIGITS;
}

static uint8_t behind_size(char byte)
{
    if (byte == '\r')
        return SIZE_LF;
    return byte == ';' ? EXTENSION : DEAD;
}

static bool end_line(struct chunked *c)
{
    uint64_t pays = 16 + 2 * (c->left < CHUNKED_EXCESS_MAX ? c->left : CHUNKED_EXCESS_MAX);
    uint64_t excess = (uint64_t)c->excess + c->line;
    c->excess = excess > pays ? (uint32_t)(excess - pays) : 0;
    c->line = 0;
    return c->excess <= CHUNKED_EXCESS_MAX;
}

static uint8_t step(struct chunked *c, char byte)
{
    switch (c->state) {
    case FIRST_DIGIT:
        return take_digit(c, byte);
    case DIGITS:
        return hex_value(byte) >= 0 ? take_digit(c, byte) : behind_size(byte);
    case EXTENSION:
        if (byte == '\r')
            return SIZE_LF;
        return ((unsigned char)byte < 0x20 && byte != '\t') || byte == 0x7f ? DEAD : EXTENSION;
    case SIZE_LF:
        if (byte != '\n')
            return DEAD;
        return end_line(c) ? (c->left > 0 ? DATA : LAST) : DEAD;
    case DATA_CR:
        return byte == '\r' ? DATA_LF : DEAD;
    case DATA_LF:
        return byte == '\n' ? FIRST_DIGIT : DEAD;
    default:
        return DEAD;
    }
}

static enum chunked_event take_data(struct chunked *c, struct slice *in, size_t max,
                                    struct slice *data)
{
    *data = slice_take(*in, c->left < max ? (size_t)c->left : max);
    *in = slice_skip(*in, data->len);
    c->left -= data->len;
    if (c->left == 0)
        c->state = DATA_CR;
    return CHUNKED_DATA;
}

enum chunked_event chunked_next(struct chunked *c, struct slice *in, size_t max, struct slice *data)
{
    while (in->len > 0 && c->state != LAST && c->state != DEAD) {
        if (c->state == DATA)
            return take_data(c, in, max, data);
        c->state = ++c->line > CHUNKED_LINE_MAX ? DEAD : step(c, in->ptr[0]);
        *in = slice_skip(*in, 1);
    }
    if (c->state == DEAD)
        return CHUNKED_BAD;
    return c->state == LAST ? CHUNKED_LAST : CHUNKED_MORE;
}

size_t chunked_head(char out[CHUNKED_HEAD_MAX], uint64_t size)
{
    char digits[16];
    size_t at = sizeof digits, n = 0;
    do
        digits[--at] = "0123456789abcdef"[size & 15];
    while ((size >>= 4) != 0);
    n = sizeof digits - at;
    memcpy(out, digits + at, n);
    out[n++] = '\r';
    out[n++] = '\n';
    return n;
}
