/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scans byte by byte: the reference that the vector forms are tested against, their tail, and
 * the whole on machines without one.
 */
#include "wire/h1_scan.h"

#include <stdbool.h>

static bool in_value(unsigned char c)
{
    return (c >= 0x20 || c == '\t') && c != 0x7f;
}

const char *h1_scan_value_scalar(const char *at, const char *end)
{
    while (at < end && in_value((unsigned char)*at))
        at++;
    return at;
}

const char *h1_scan_target_scalar(const char *at, const char *end)
{
    while (at < end && (unsigned char)*at > 0x20 && *at != 0x7f)
        at++;
    return at;
}
