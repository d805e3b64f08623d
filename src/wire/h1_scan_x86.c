/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scans with SSE2, which every x86-64 has: sixteen bytes a step. Comparisons with a minimum find
 * bytes up to 0x1f (or 0x20), others find DEL and let HTAB pass. What is shorter than sixteen, most
 * names and values of fields, is loaded as two words that overlap.
 */
#include <emmintrin.h>
#include <stdint.h>
#include <string.h>

#include "wire/h1_scan.h"

/* Four to fifteen bytes in one register: the first `*step` of them, and in the lanes behind those
 * the last `*step`; copies of the same beyond. */
static inline __m128i load_short(const char *at, size_t len, size_t *step)
{
    if (len >= 8) {
        uint64_t first, last;
        memcpy(&first, at, 8);
        memcpy(&last, at + len - 8, 8);
        *step = 8;
        return _mm_set_epi64x((long long)last, (long long)first);
    }
    uint32_t first, last;
    memcpy(&first, at, 4);
    memcpy(&last, at + len - 4, 4);
    uint64_t both = (uint64_t)last << 32 | first;
    *step = 4;
    return _mm_set1_epi64x((long long)both);
}

/* The place in a text of `len` bytes that a lane of load_short stands for. */
static inline size_t place_of(size_t lane, size_t len, size_t step)
{
    return lane < step ? lane : len - 2 * step + lane;
}

static inline unsigned bad_in_value(__m128i v)
{
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
    __m128i tab = _mm_cmpeq_epi8(v, _mm_set1_epi8('\t'));
    __m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_andnot_si128(tab, low), del));
}

static inline unsigned bad_in_target(__m128i v)
{
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x20)), v);
    __m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(low, del));
}

const char *h1_scan_value(const char *at, const char *end)
{
    size_t step;
    for (; end - at >= 16; at += 16) {
        unsigned bad = bad_in_value(_mm_loadu_si128((const __m128i *)(const void *)at));
        if (bad != 0)
            return at + __builtin_ctz(bad);
    }
    size_t len = (size_t)(end - at);
    if (len < 4)
        return h1_scan_value_scalar(at, end);
    unsigned bad = bad_in_value(load_short(at, len, &step));
    return bad != 0 ? at + place_of((size_t)__builtin_ctz(bad), len, step) : end;
}

const char *h1_scan_target(const char *at, const char *end)
{
    size_t step;
    for (; end - at >= 16; at += 16) {
        unsigned bad = bad_in_target(_mm_loadu_si128((const __m128i *)(const void *)at));
        if (bad != 0)
            return at + __builtin_ctz(bad);
    }
    size_t len = (size_t)(end - at);
    if (len < 4)
        return h1_scan_target_scalar(at, end);
    unsigned bad = bad_in_target(load_short(at, len, &step));
    return bad != 0 ? at + place_of((size_t)__builtin_ctz(bad), len, step) : end;
}

static inline bool all_plain(__m128i v)
{
    __m128i letter = _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
    __m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0'));
    letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
    digit = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
    __m128i good = _mm_or_si128(_mm_or_si128(letter, digit),
                                _mm_cmpeq_epi8(v, _mm_set1_epi8('-')));
    return _mm_movemask_epi8(good) == 0xffff;
}

bool h1_scan_plain(const char *at, size_t len)
{
    size_t step;
    for (; len >= 16; at += 16, len -= 16) {
        if (!all_plain(_mm_loadu_si128((const __m128i *)(const void *)at)))
            return false;
    }
    if (len >= 4)
        return all_plain(load_short(at, len, &step));
    for (; len > 0; at++, len--) {
        if (!h1_plain_byte((unsigned char)*at))
            return false;
    }
    return true;
}
