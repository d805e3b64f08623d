/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scans with NEON, which every aarch64 has: sixteen bytes a step; the narrowing shift turns the
 * comparison into four bits a byte, so the first hit is a count of trailing zeros.
 */
#include <arm_neon.h>
#include <string.h>

#include "wire/h1_scan.h"

static inline unsigned long first_of(uint8x16_t bad)
{
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(bad), 4)), 0);
}

const char *h1_scan_value(const char *at, const char *end)
{
    for (; end - at >= 16; at += 16) {
        uint8x16_t v = vld1q_u8((const unsigned char *)at);
        uint8x16_t low = vandq_u8(vcltq_u8(v, vdupq_n_u8(0x20)),
                                  vmvnq_u8(vceqq_u8(v, vdupq_n_u8('\t'))));
        unsigned long mask = first_of(vorrq_u8(low, vceqq_u8(v, vdupq_n_u8(0x7f))));
        if (mask != 0)
            return at + __builtin_ctzl(mask) / 4;
    }
    return h1_scan_value_scalar(at, end);
}

const char *h1_scan_target(const char *at, const char *end)
{
    for (; end - at >= 16; at += 16) {
        uint8x16_t v = vld1q_u8((const unsigned char *)at);
        uint8x16_t bad = vorrq_u8(vcleq_u8(v, vdupq_n_u8(0x20)), vceqq_u8(v, vdupq_n_u8(0x7f)));
        unsigned long mask = first_of(bad);
        if (mask != 0)
            return at + __builtin_ctzl(mask) / 4;
    }
    return h1_scan_target_scalar(at, end);
}

bool h1_scan_plain(const char *at, size_t len)
{
    for (size_t n; len > 0; at += n, len -= n) {
        unsigned char sixteen[16];
        n = len < 16 ? len : 16;
        memset(sixteen, '-', sizeof sixteen);
        memcpy(sixteen, at, n);
        uint8x16_t v = vld1q_u8(sixteen);
        uint8x16_t letter = vsubq_u8(vorrq_u8(v, vdupq_n_u8(0x20)), vdupq_n_u8('a'));
        uint8x16_t digit = vsubq_u8(v, vdupq_n_u8('0'));
        uint8x16_t good = vorrq_u8(vcleq_u8(letter, vdupq_n_u8(25)),
                                   vcleq_u8(digit, vdupq_n_u8(9)));
        if (first_of(vmvnq_u8(vorrq_u8(good, vceqq_u8(v, vdupq_n_u8('-'))))) != 0)
            return false;
    }
    return true;
}
