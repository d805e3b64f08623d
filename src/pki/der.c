/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Definite lengths only, of at most four bytes and as short as they can be; tags of one byte: more
 * is in no certificate.
 */
#include "pki/der.h"

#include <time.h>

bool der_next(struct slice *from, int *tag, struct slice *inside)
{
    const unsigned char *p = (const unsigned char *)from->ptr;
    size_t len, head = 2;
    if (from->len < 2 || (p[0] & 0x1f) == 0x1f)
        return false;
    len = p[1];
    if (len >= 0x80) {
        size_t bytes = len & 0x7f;
        if (bytes < 1 || bytes > 4 || from->len < 2 + bytes || p[2] == 0)
            return false;
        len = 0;
        for (size_t i = 0; i < bytes; i++)
            len = len << 8 | p[2 + i];
        if (len < 0x80)
            return false;
        head += bytes;
    }
    if (len > from->len - head)
        return false;
    *tag = p[0];
    *inside = slice_of(from->ptr + head, len);
    *from = slice_skip(*from, head + len);
    return true;
}

bool der_take(struct slice *from, int tag, struct slice *inside)
{
    struct slice rest = *from;
    int got;
    if (!der_next(&rest, &got, inside) || got != tag)
        return false;
    *from = rest;
    return true;
}

static bool digits(struct slice text, size_t at, size_t count, int *out)
{
    *out = 0;
    for (size_t i = at; i < at + count; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        *out = *out * 10 + text.ptr[i] - '0';
    }
    return true;
}

bool der_time(int tag, struct slice text, int64_t *seconds)
{
    size_t at = tag == DER_UTC_TIME ? 2 : 4;
    int year;
    struct tm tm = {0};
    if ((tag != DER_UTC_TIME && tag != DER_TIME) || text.len != at + 11 || text.ptr[at + 10] != 'Z' ||
        !digits(text, 0, at, &year) || !digits(text, at, 2, &tm.tm_mon) ||
        !digits(text, at + 2, 2, &tm.tm_mday) || !digits(text, at + 4, 2, &tm.tm_hour) ||
        !digits(text, at + 6, 2, &tm.tm_min) || !digits(text, at + 8, 2, &tm.tm_sec))
        return false;
    if (tag == DER_UTC_TIME)
        year += year < 50 ? 2000 : 1900;
    if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
        tm.tm_min > 59 || tm.tm_sec > 60)
        return false;
    tm.tm_year = year - 1900;
    tm.tm_mon--;
    *seconds = timegm(&tm);
    return true;
}
