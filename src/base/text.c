/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing of small text forms. Durations and sizes follow what Go's time package and
 * go-humanize document, since configurations hold them; both are computed in integers as far as
 * they go, so that what is read is what was written.
 */
#include "base/text.h"

#include <math.h>

int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    char lower = ascii_lower(c);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* --- UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF --- */

static bool continues(struct slice s, size_t at)
{
    return at < s.len && ((unsigned char)s.ptr[at] & 0xc0) == 0x80;
}

size_t utf8_decode(struct slice s, uint32_t *rune)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (s.len == 0)
        return 0;
    unsigned char lead = (unsigned char)s.ptr[0];
    size_t len = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
    if (len == 0)
        return 0;
    uint32_t value = len == 1 ? lead : lead & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if (!continues(s, i))
            return 0;
        value = value << 6 | ((unsigned char)s.ptr[i] & 0x3f);
    }
    if (value < least[len] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    if (rune != NULL)
        *rune = value;
    return len;
}

bool utf8_valid(struct slice s)
{
    size_t at = 0;
    while (at < s.len) {
        size_t n = (unsigned char)s.ptr[at] < 0x80 ? 1 : utf8_decode(slice_skip(s, at), NULL);
        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

struct slice utf8_whole(struct slice s)
{
    size_t at = s.len;
    while (at > 0 && s.len - at < 3 && ((unsigned char)s.ptr[at - 1] & 0xc0) == 0x80)
        at--;
    if (at == 0)
        return s;
    unsigned char lead = (unsigned char)s.ptr[at - 1];
    size_t want = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    return want > 1 && s.len - at + 1 < want ? slice_take(s, at - 1) : s;
}

size_t utf8_encode(uint32_t rune, char out[4])
{
    if (rune < 0x80) {
        out[0] = (char)rune;
        return 1;
    }
    size_t len = rune < 0x800 ? 2 : rune < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (rune & 0x3f));
        rune >>= 6;
    }
    out[0] = (char)(lead[len] | rune);
    return len;
}

/* --- base64 (RFC 4648) --- */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum err base64_encode(struct buffer *b, struct slice s)
{
    TRY(buffer_reserve(b, (s.len + 2) / 3 * 4));
    for (size_t i = 0; i < s.len; i += 3) {
        size_t n = s.len - i < 3 ? s.len - i : 3;
        uint32_t bits = (uint32_t)(unsigned char)s.ptr[i] << 16;
        if (n > 1)
            bits |= (uint32_t)(unsigned char)s.ptr[i + 1] << 8;
        if (n > 2)
            bits |= (unsigned char)s.ptr[i + 2];
        b->ptr[b->len++] = alphabet[bits >> 18];
        b->ptr[b->len++] = alphabet[bits >> 12 & 63];
        b->ptr[b->len++] = n > 1 ? alphabet[bits >> 6 & 63] : '=';
        b->ptr[b->len++] = n > 2 ? alphabet[bits & 63] : '=';
    }
    return OK;
}

enum err base64url_encode(struct buffer *b, struct slice s)
{
    size_t from = b->len;
    TRY(base64_encode(b, s));
    while (b->len > from && b->ptr[b->len - 1] == '=')
        b->len--;
    for (size_t i = from; i < b->len; i++)
        b->ptr[i] = b->ptr[i] == '+' ? '-' : b->ptr[i] == '/' ? '_' : b->ptr[i];
    return OK;
}

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    return c == '/' || c == '_' ? 63 : -1;
}

enum err base64_decode(struct buffer *b, struct slice s)
{
    while (s.len > 0 && s.ptr[s.len - 1] == '=')
        s.len--;
    if (s.len % 4 == 1)
        return ERR_INVALID;
    uint32_t bits = 0;
    int have = 0;
    for (size_t i = 0; i < s.len; i++) {
        int v = sextet(s.ptr[i]);
        if (v < 0)
            return ERR_INVALID;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            TRY(buffer_append_byte(b, (char)(bits >> have)));
        }
    }
    return OK;
}

/* --- durations --- */

static const struct {
    const char *name;
    int64_t ns;
} units[] = {
    {"ns", 1},
    {"us", 1000},
    {"\xc2\xb5s", 1000},
    {"\xce\xbcs", 1000},
    {"ms", 1000000},
    {"s", INT64_C(1000000000)},
    {"m", INT64_C(60000000000)},
    {"h", INT64_C(3600000000000)},
    {"d", INT64_C(86400000000000)},
};

static bool take_unit(struct slice *s, int64_t *ns)
{
    size_t len = 0;
    while (len < s->len && s->ptr[len] != '.' && (s->ptr[len] < '0' || s->ptr[len] > '9'))
        len++;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (slice_is(slice_take(*s, len), units[i].name)) {
            *s = slice_skip(*s, len);
            *ns = units[i].ns;
            return true;
        }
    }
    return false;
}

/* Digits, a dot, digits; at least one digit. The fraction is *fraction / *scale. */
static bool take_decimal(struct slice *s, uint64_t *whole, uint64_t *fraction, uint64_t *scale)
{
    bool any = false;
    *whole = *fraction = 0;
    *scale = 1;
    for (; s->len > 0 && s->ptr[0] >= '0' && s->ptr[0] <= '9'; *s = slice_skip(*s, 1), any = true) {
        if (*whole > (UINT64_MAX / 2 - 9) / 10)
            return false;
        *whole = *whole * 10 + (uint64_t)(s->ptr[0] - '0');
    }
    if (s->len == 0 || s->ptr[0] != '.')
        return any;
    *s = slice_skip(*s, 1);
    for (; s->len > 0 && s->ptr[0] >= '0' && s->ptr[0] <= '9'; *s = slice_skip(*s, 1), any = true) {
        if (*scale < UINT64_C(1000000000000000)) {
            *fraction = *fraction * 10 + (uint64_t)(s->ptr[0] - '0');
            *scale *= 10;
        }
    }
    return any;
}

enum err duration_parse(struct slice s, int64_t *ns)
{
    bool negative = s.len > 0 && s.ptr[0] == '-';
    uint64_t total = 0;
    if (negative || (s.len > 0 && s.ptr[0] == '+'))
        s = slice_skip(s, 1);
    if (slice_is(s, "0")) {
        *ns = 0;
        return OK;
    }
    if (s.len == 0)
        return ERR_INVALID;
    while (s.len > 0) {
        uint64_t whole, fraction, scale, part;
        int64_t unit;
        if (!take_decimal(&s, &whole, &fraction, &scale) || !take_unit(&s, &unit) ||
            __builtin_mul_overflow(whole, (uint64_t)unit, &part))
            return ERR_INVALID;
        part += (uint64_t)((double)fraction * ((double)unit / (double)scale));
        if (__builtin_add_overflow(total, part, &total) || total > INT64_MAX)
            return ERR_INVALID;
    }
    *ns = negative ? -(int64_t)total : (int64_t)total;
    return OK;
}

/* `n` / 10^digits without trailing zeros in its fraction. */
static enum err put_fraction(struct buffer *b, uint64_t n, uint64_t scale, const char *unit)
{
    TRY(buffer_append_u64(b, n / scale));
    uint64_t rest = n % scale;
    if (rest > 0) {
        TRY(buffer_append_byte(b, '.'));
        for (scale /= 10; rest > 0; scale /= 10) {
            TRY(buffer_append_byte(b, (char)('0' + rest / scale)));
            rest %= scale;
        }
    }
    return buffer_append(b, slice_from(unit));
}

enum err duration_put(struct buffer *b, int64_t ns)
{
    uint64_t n = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    if (ns < 0)
        TRY(buffer_append_byte(b, '-'));
    if (n == 0)
        return BUFFER_PUT(b, "0s");
    if (n < 1000)
        return put_fraction(b, n, 1, "ns");
    if (n < 1000000)
        return put_fraction(b, n, 1000, "\xc2\xb5s");
    if (n < UINT64_C(1000000000))
        return put_fraction(b, n, 1000000, "ms");
    uint64_t minutes = n / UINT64_C(60000000000);
    if (minutes >= 60)
        TRY(put_fraction(b, minutes / 60, 1, "h"));
    if (minutes > 0)
        TRY(put_fraction(b, minutes % 60, 1, "m"));
    return put_fraction(b, n % UINT64_C(60000000000), UINT64_C(1000000000), "s");
}

/* --- sizes --- */

static const struct {
    const char *name;
    uint64_t bytes;
} sizes[] = {
    {"", 1}, {"b", 1},
    {"k", 1000}, {"kb", 1000}, {"ki", 1 << 10}, {"kib", 1 << 10},
    {"m", 1000000}, {"mb", 1000000}, {"mi", 1 << 20}, {"mib", 1 << 20},
    {"g", 1000000000}, {"gb", 1000000000}, {"gi", 1 << 30}, {"gib", 1 << 30},
    {"t", UINT64_C(1000000000000)}, {"tb", UINT64_C(1000000000000)},
    {"ti", UINT64_C(1) << 40}, {"tib", UINT64_C(1) << 40},
    {"p", UINT64_C(1000000000000000)}, {"pb", UINT64_C(1000000000000000)},
    {"pi", UINT64_C(1) << 50}, {"pib", UINT64_C(1) << 50},
};

enum err size_parse(struct slice s, uint64_t *bytes)
{
    uint64_t whole, fraction, scale, total;
    if (!take_decimal(&s, &whole, &fraction, &scale))
        return ERR_INVALID;
    struct slice unit = slice_trim(s);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (!slice_eq_nocase(unit, slice_from(sizes[i].name)))
            continue;
        if (__builtin_mul_overflow(whole, sizes[i].bytes, &total))
            return ERR_INVALID;
        *bytes = total + (uint64_t)((double)fraction * ((double)sizes[i].bytes / (double)scale));
        return OK;
    }
    return ERR_INVALID;
}

enum err size_put(struct buffer *b, uint64_t bytes)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t i = 0;
    for (; value >= 1024 && i < 6; i++)
        value /= 1024;
    value = floor(value * 10 + 0.5) / 10;
    if (bytes < 10 || value >= 10)
        return buffer_append_f(b, "%.0f %s", value, names[i]);
    return buffer_append_f(b, "%.1f %s", value, names[i]);
}
