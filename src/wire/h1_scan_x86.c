/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scans with SSE2, which every x86-64 has: sixteen bytes a step. A saturating subtraction finds
 * bytes up to 0x1f (or 0x20), comparisons find DEL and let HTAB pass.
 */
#include <emmintrin.h>
#include <string.h>

#include "wire/h1_scan.h"

const char *h1_scan_value(const char *at, const char *end)
{
    const __m128i limit = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t');
    const __m128i del = _mm_set1_epi8(0x7f);
    for (; end - at >= 16; at += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, limit), v);
        __m128i bad = _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(v, tab), low),
                                   _mm_cmpeq_epi8(v, del));
        int mask = _mm_movemask_epi8(bad);
        if (mask != 0)
            return at + __builtin_ctz((unsigned)mask);
    }
    return h1_scan_value_scalar(at, end);
}

const char *h1_scan_target(const char *at, const char *end)
{
    const __m128i limit = _mm_set1_epi8(0x20), del = _mm_set1_epi8(0x7f);
    for (; end - at >= 16; at += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i bad = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(v, limit), v),
                                   _mm_cmpeq_epi8(v, del));
        int mask = _mm_movemask_epi8(bad);
        if (mask != 0)
            return at + __builtin_ctz((unsigned)mask);
    }
    return h1_scan_target_scalar(at, end);
}

bool h1_scan_plain(const char *at, size_t len)
{
    const __m128i case_bit = _mm_set1_epi8(0x20), dash = _mm_set1_epi8('-');
    for (size_t n; len > 0; at += n, len -= n) {
        char sixteen[16];
        n = len < 16 ? len : 16;
        memset(sixteen, '-', sizeof sixteen);
        memcpy(sixteen, at, n);
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)sixteen);
        __m128i letter = _mm_sub_epi8(_mm_or_si128(v, case_bit), _mm_set1_epi8('a'));
        __m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0'));
        letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
        digit = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
        __m128i good = _mm_or_si128(_mm_or_si128(letter, digit), _mm_cmpeq_epi8(v, dash));
        if (_mm_movemask_epi8(good) != 0xffff)
            return false;
    }
    return true;
}
