/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set is a sorted array of disjoint ranges, searched by halves: the lists of a large proxy network
 * have hundreds of prefixes, and most configurations have six. Family and bytes stand side by side
 * in an address, so that one memcmp orders all of them.
 */
#include "net/ip_set.h"

#include <arpa/inet.h>
#include <stdlib.h>

static int order(const struct ip_address *a, const struct ip_address *b)
{
    return memcmp(a, b, sizeof *a);
}

bool ip_parse(struct slice text, struct ip_address *out)
{
    char copy[IP_TEXT_MAX];
    memset(out, 0, sizeof *out);
    if (text.len == 0 || text.len >= sizeof copy || memchr(text.ptr, '\0', text.len) != NULL)
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    out->is_six = memchr(text.ptr, ':', text.len) != NULL;
    return inet_pton(out->is_six ? AF_INET6 : AF_INET, copy, out->bytes) == 1;
}

static bool is_mapped(const struct ip_address *a)
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return a->is_six && memcmp(a->bytes, prefix, sizeof prefix) == 0;
}

static unsigned group_of(const struct ip_address *a, int i)
{
    return (unsigned)a->bytes[2 * i] << 8 | a->bytes[2 * i + 1];
}

/* The longest run of two or more zero groups, the first of equals; *len = 0 without one. */
static int longest_zeros(const struct ip_address *a, int *len)
{
    int best = 0;
    *len = 0;
    for (int i = 0, run = 0; i < 8; i++) {
        run = group_of(a, i) == 0 ? run + 1 : 0;
        if (run > *len && run > 1) {
            best = i + 1 - run;
            *len = run;
        }
    }
    return best;
}

static char *put_decimal(char *at, unsigned n)
{
    if (n >= 100)
        *at++ = (char)('0' + n / 100);
    if (n >= 10)
        *at++ = (char)('0' + n / 10 % 10);
    *at++ = (char)('0' + n % 10);
    return at;
}

static char *put_hex(char *at, unsigned group)
{
    for (int shift = 12; shift >= 0; shift -= 4) {
        if (shift == 0 || group >> shift != 0)
            *at++ = "0123456789abcdef"[group >> shift & 15];
    }
    return at;
}

static char *put_four(char *at, const uint8_t *bytes)
{
    for (int i = 0; i < 4; i++) {
        if (i > 0)
            *at++ = '.';
        at = put_decimal(at, bytes[i]);
    }
    return at;
}

static char *put_six(char *at, const struct ip_address *a)
{
    int zeros_len, zeros = longest_zeros(a, &zeros_len);
    for (int i = 0; i < 8; i++) {
        bool run = zeros_len > 0 && i == zeros;
        if (run || (i > 0 && at[-1] != ':'))
            *at++ = ':';
        if (run) {
            *at++ = ':';
            i += zeros_len - 1;
        } else {
            at = put_hex(at, group_of(a, i));
        }
    }
    return at;
}

size_t ip_text(const struct ip_address *a, char out[IP_TEXT_MAX])
{
    static const char mapped[] = {':', ':', 'f', 'f', 'f', 'f', ':'};
    char *at = out;
    if (is_mapped(a)) {
        memcpy(at, mapped, sizeof mapped);
        at = put_four(at + sizeof mapped, a->bytes + 12);
    } else {
        at = a->is_six ? put_six(at, a) : put_four(at, a->bytes);
    }
    *at = '\0';
    return (size_t)(at - out);
}

bool ip_range_parse(struct slice text, struct ip_range *out)
{
    struct slice address, digits;
    uint64_t bits;
    bool prefix = slice_cut(text, '/', &address, &digits);
    if (!ip_parse(address, &out->first))
        return false;
    unsigned size = out->first.is_six ? 128 : 32;
    bool zero_led = digits.len > 1 && digits.ptr[0] == '0';
    if (prefix && (zero_led || !slice_to_u64(digits, size, &bits)))
        return false;
    if (!prefix)
        bits = size;
    out->last = out->first;
    for (unsigned i = 0; i < size / 8; i++) {
        unsigned kept = bits > i * 8 ? (unsigned)bits - i * 8 : 0;
        uint8_t mask = kept >= 8 ? 0xff : (uint8_t)(0xff00 >> kept);
        out->first.bytes[i] &= mask;
        out->last.bytes[i] |= (uint8_t)~mask;
    }
    return true;
}

bool ip_range_has(const struct ip_range *r, const struct ip_address *a)
{
    return order(&r->first, a) <= 0 && order(a, &r->last) <= 0;
}

static int by_first(const void *a, const void *b)
{
    return order(&((const struct ip_range *)a)->first, &((const struct ip_range *)b)->first);
}

struct ip_set ip_set_build(struct ip_range *ranges, size_t count)
{
    size_t n = 0;
    if (count > 0)
        qsort(ranges, count, sizeof *ranges, by_first);
    for (size_t i = 0; i < count; i++) {
        struct ip_range *before = n > 0 ? &ranges[n - 1] : NULL;
        if (before == NULL || order(&ranges[i].first, &before->last) > 0)
            ranges[n++] = ranges[i];
        else if (order(&ranges[i].last, &before->last) > 0)
            before->last = ranges[i].last;
    }
    return (struct ip_set){ranges, n};
}

bool ip_set_has(const struct ip_set *s, const struct ip_address *a)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (order(&s->ranges[middle].last, a) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->count && ip_range_has(&s->ranges[low], a);
}
