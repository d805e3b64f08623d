/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two scans in which a head's bytes are spent. One of h1_scan_x86.c, h1_scan_neon.c and
 * h1_scan_scalar.c is built, by the machine; all three mean the same. Nothing beyond `end` is read.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* First byte that may not stand in a field value (RFC 9110 §5.5: controls but HTAB, and DEL), or
 * `end`. That byte is the CR of a well-formed line. */
const char *h1_scan_value(const char *at, const char *end);

/* First byte that may not stand in a request target: controls, space, DEL, or `end`. Bytes above
 * 0x7f are let through here and judged by the URI parser. */
const char *h1_scan_target(const char *at, const char *end);

/* True when all bytes are letters, digits or '-': what nearly every field name consists of. */
bool h1_scan_plain(const char *at, size_t len);

static inline bool h1_plain_byte(unsigned char c)
{
    unsigned char letter = (unsigned char)((c | 0x20) - 'a'), digit = (unsigned char)(c - '0');
    return letter < 26 || digit < 10 || c == '-';
}

/* The scalar form, which the vector forms use for their tails. */
const char *h1_scan_value_scalar(const char *at, const char *end);
const char *h1_scan_target_scalar(const char *at, const char *end);
