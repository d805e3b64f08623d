/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layout is taken apart once into tokens and text between them. The calendar of a second is kept
 * per thread, since lines come many to a second and the C library takes a lock for local time.
 *
 * Tokens are looked for in an order in which the longest that fits wins; "Jan" and "Mon" are none
 * when a lower-case letter follows ("Janet"), and a fraction is none when another digit follows.
 */
#include "base/time_layout.h"

#include <time.h>

enum time_token {
    TEXT, MONTH_NAME, MONTH_ABBR, MONTH, MONTH_2, WEEKDAY_NAME, WEEKDAY_ABBR, DAY, DAY_SPACE, DAY_2,
    YEARDAY_SPACE, YEARDAY_3, HOUR_24, HOUR_12, HOUR_12_2, MINUTE, MINUTE_2, SECOND, SECOND_2, YEAR,
    YEAR_2, PM_UPPER, PM_LOWER, ZONE_NAME, ZONE_Z, ZONE_Z_SECONDS, ZONE_Z_HOUR, ZONE_Z_COLON,
    ZONE_Z_COLON_SECONDS, ZONE, ZONE_SECONDS, ZONE_HOUR, ZONE_COLON, ZONE_COLON_SECONDS, FRACTION_0,
    FRACTION_9,
};

static const struct {
    struct slice text;
    enum time_token token;
    bool no_lower_after;
} tokens[] = {
    {{"January", 7}, MONTH_NAME, false}, {{"Jan", 3}, MONTH_ABBR, true},
    {{"Monday", 6}, WEEKDAY_NAME, false}, {{"Mon", 3}, WEEKDAY_ABBR, true},
    {{"MST", 3}, ZONE_NAME, false},
    {{"002", 3}, YEARDAY_3, false}, {{"01", 2}, MONTH_2, false}, {{"02", 2}, DAY_2, false},
    {{"03", 2}, HOUR_12_2, false}, {{"04", 2}, MINUTE_2, false}, {{"05", 2}, SECOND_2, false},
    {{"06", 2}, YEAR_2, false},
    {{"15", 2}, HOUR_24, false}, {{"1", 1}, MONTH, false},
    {{"2006", 4}, YEAR, false}, {{"2", 1}, DAY, false},
    {{"__2", 3}, YEARDAY_SPACE, false}, {{"_2", 2}, DAY_SPACE, false},
    {{"3", 1}, HOUR_12, false}, {{"4", 1}, MINUTE, false}, {{"5", 1}, SECOND, false},
    {{"PM", 2}, PM_UPPER, false}, {{"pm", 2}, PM_LOWER, false},
    {{"-07:00:00", 9}, ZONE_COLON_SECONDS, false}, {{"-070000", 7}, ZONE_SECONDS, false},
    {{"-07:00", 6}, ZONE_COLON, false}, {{"-0700", 5}, ZONE, false}, {{"-07", 3}, ZONE_HOUR, false},
    {{"Z07:00:00", 9}, ZONE_Z_COLON_SECONDS, false}, {{"Z070000", 7}, ZONE_Z_SECONDS, false},
    {{"Z07:00", 6}, ZONE_Z_COLON, false}, {{"Z0700", 5}, ZONE_Z, false},
    {{"Z07", 3}, ZONE_Z_HOUR, false},
};

static const char *const month_names[] = {"January", "February", "March", "April", "May", "June",
                                          "July", "August", "September", "October", "November",
                                          "December"};
static const char *const day_names[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday",
                                        "Friday", "Saturday"};

static bool is_digit(struct slice s, size_t at)
{
    return at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9';
}

/* ".000" or ",999": as many digits as there are, unless another digit follows. */
static bool fraction_at(struct slice s, struct time_part *part)
{
    if (s.len < 2 || (s.ptr[0] != '.' && s.ptr[0] != ',') || (s.ptr[1] != '0' && s.ptr[1] != '9'))
        return false;
    size_t end = 1;
    while (end < s.len && s.ptr[end] == s.ptr[1])
        end++;
    if (is_digit(s, end))
        return false;
    part->kind = s.ptr[1] == '0' ? FRACTION_0 : FRACTION_9;
    part->digits = (uint8_t)(end - 1);
    part->len = (uint8_t)end;
    return true;
}

static bool token_at(struct slice s, struct time_part *part)
{
    if (slice_starts(s, SLICE("_2006"))) /* a bar and the year, not a day */
        return false;
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        size_t len = tokens[i].text.len;
        if (!slice_starts(s, tokens[i].text))
            continue;
        if (tokens[i].no_lower_after && len < s.len && s.ptr[len] >= 'a' && s.ptr[len] <= 'z')
            continue;
        part->kind = (uint8_t)tokens[i].token;
        part->len = (uint8_t)len;
        return true;
    }
    return fraction_at(s, part);
}

enum err time_layout_compile(struct time_layout *l, struct slice text)
{
    if (text.len > TIME_LAYOUT_MAX)
        return ERR_LIMIT;
    l->count = 0;
    if (text.len > 0)
        memcpy(l->layout, text.ptr, text.len);
    for (size_t at = 0; at < text.len;) {
        struct time_part part = {.from = (uint8_t)at};
        struct time_part *last = l->count > 0 ? &l->parts[l->count - 1] : NULL;
        if (token_at(slice_skip(text, at), &part)) {
            l->parts[l->count++] = part;
            at += part.len;
            continue;
        }
        if (last != NULL && last->kind == TEXT)
            last->len++;
        else
            l->parts[l->count++] = (struct time_part){.kind = TEXT, .from = (uint8_t)at, .len = 1};
        at++;
    }
    return OK;
}

/* --- writing --- */

static char *put_text(char *at, const char *text, size_t len)
{
    memcpy(at, text, len);
    return at + len;
}

/* Decimal, filled up on the left to `width`. */
static char *put_number(char *at, unsigned v, unsigned width, char fill)
{
    char digits[12];
    unsigned n = 0;
    do
        digits[n++] = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    for (unsigned i = n; i < width; i++)
        *at++ = fill;
    while (n > 0)
        *at++ = digits[--n];
    return at;
}

static char *put_fraction(char *at, const struct time_part *part, char point, unsigned ns)
{
    char *start = at;
    unsigned scale = 100000000;
    *at++ = point;
    for (unsigned i = 0; i < part->digits; i++, scale /= 10) {
        *at++ = scale > 0 ? (char)('0' + ns / scale) : '0';
        if (scale > 0)
            ns %= scale;
    }
    if (part->kind == FRACTION_0)
        return at;
    while (at > start && (at[-1] == '0' || at[-1] == point))
        at--;
    return at;
}

static char *put_zone(char *at, enum time_token kind, long offset)
{
    bool has_z = kind <= ZONE_Z_COLON_SECONDS;
    bool colon = kind == ZONE_Z_COLON || kind == ZONE_Z_COLON_SECONDS || kind == ZONE_COLON ||
                 kind == ZONE_COLON_SECONDS;
    bool hour_only = kind == ZONE_Z_HOUR || kind == ZONE_HOUR;
    bool seconds = kind == ZONE_Z_SECONDS || kind == ZONE_Z_COLON_SECONDS || kind == ZONE_SECONDS ||
                   kind == ZONE_COLON_SECONDS;
    if (has_z && offset == 0) {
        *at++ = 'Z';
        return at;
    }
    unsigned s = (unsigned)(offset < 0 ? -offset : offset);
    *at++ = offset < 0 ? '-' : '+';
    at = put_number(at, s / 3600, 2, '0');
    if (hour_only)
        return at;
    if (colon)
        *at++ = ':';
    at = put_number(at, s / 60 % 60, 2, '0');
    if (!seconds)
        return at;
    if (colon)
        *at++ = ':';
    return put_number(at, s % 60, 2, '0');
}

static const struct tm *calendar(int64_t seconds, bool local)
{
    static _Thread_local struct {
        struct tm tm;
        int64_t seconds;
        bool known;
    } kept[2];
    if (!kept[local].known || kept[local].seconds != seconds) {
        time_t t = (time_t)seconds;
        if (local)
            localtime_r(&t, &kept[local].tm);
        else
            gmtime_r(&t, &kept[local].tm);
        if (!local)
            kept[local].tm.tm_zone = "UTC"; /* the C library says GMT */
        kept[local].seconds = seconds;
        kept[local].known = true;
    }
    return &kept[local].tm;
}

static char *put_hour(char *at, const struct tm *tm, unsigned width)
{
    unsigned h = (unsigned)tm->tm_hour % 12;
    return put_number(at, h == 0 ? 12 : h, width, '0');
}

static char *put_name(char *at, const char *name, bool whole)
{
    return put_text(at, name, whole ? strlen(name) : 3);
}

static char *put_clock(char *at, const struct time_part *p, const struct tm *tm)
{
    switch ((enum time_token)p->kind) {
    case HOUR_24:
        return put_number(at, (unsigned)tm->tm_hour, 2, '0');
    case HOUR_12:
        return put_hour(at, tm, 1);
    case HOUR_12_2:
        return put_hour(at, tm, 2);
    case MINUTE:
    case MINUTE_2:
        return put_number(at, (unsigned)tm->tm_min, p->kind == MINUTE_2 ? 2 : 1, '0');
    case SECOND:
    case SECOND_2:
        return put_number(at, (unsigned)tm->tm_sec, p->kind == SECOND_2 ? 2 : 1, '0');
    case PM_UPPER:
        return put_text(at, tm->tm_hour < 12 ? "AM" : "PM", 2);
    case PM_LOWER:
        return put_text(at, tm->tm_hour < 12 ? "am" : "pm", 2);
    case ZONE_NAME:
        return put_text(at, tm->tm_zone, strnlen(tm->tm_zone, 16));
    default:
        return put_zone(at, (enum time_token)p->kind, tm->tm_gmtoff);
    }
}

static char *put_part(char *at, const struct time_part *p, const struct tm *tm)
{
    switch ((enum time_token)p->kind) {
    case MONTH_NAME:
    case MONTH_ABBR:
        return put_name(at, month_names[tm->tm_mon], p->kind == MONTH_NAME);
    case WEEKDAY_NAME:
    case WEEKDAY_ABBR:
        return put_name(at, day_names[tm->tm_wday], p->kind == WEEKDAY_NAME);
    case MONTH:
    case MONTH_2:
        return put_number(at, (unsigned)tm->tm_mon + 1, p->kind == MONTH_2 ? 2 : 1, '0');
    case DAY:
        return put_number(at, (unsigned)tm->tm_mday, 1, '0');
    case DAY_SPACE:
        return put_number(at, (unsigned)tm->tm_mday, 2, ' ');
    case DAY_2:
        return put_number(at, (unsigned)tm->tm_mday, 2, '0');
    case YEARDAY_SPACE:
    case YEARDAY_3:
        return put_number(at, (unsigned)tm->tm_yday + 1, 3, p->kind == YEARDAY_3 ? '0' : ' ');
    case YEAR:
        return put_number(at, (unsigned)tm->tm_year + 1900, 4, '0');
    case YEAR_2:
        return put_number(at, ((unsigned)tm->tm_year + 1900) % 100, 2, '0');
    default:
        return put_clock(at, p, tm);
    }
}

size_t time_layout_put(const struct time_layout *l, int64_t wall_ns, bool local,
                       char out[TIME_TEXT_MAX])
{
    char *at = out, *end = out + TIME_TEXT_MAX - 24;
    int64_t seconds = wall_ns / 1000000000, ns = wall_ns % 1000000000;
    if (ns < 0) {
        ns += 1000000000;
        seconds--;
    }
    const struct tm *tm = calendar(seconds, local);
    for (unsigned i = 0; i < l->count && at < end; i++) {
        const struct time_part *p = &l->parts[i];
        if (p->kind == TEXT || p->kind == FRACTION_0 || p->kind == FRACTION_9) {
            if (p->len > end - at)
                break;
            at = p->kind == TEXT ? put_text(at, l->layout + p->from, p->len)
                                 : put_fraction(at, p, l->layout[p->from], (unsigned)ns);
        } else {
            at = put_part(at, p, tm);
        }
    }
    return (size_t)(at - out);
}

/* --- reading --- */

static bool take_number(struct slice *s, size_t min, size_t max, int *out)
{
    size_t n = 0;
    while (n < max && is_digit(*s, n))
        n++;
    if (n < min)
        return false;
    *out = 0;
    for (size_t i = 0; i < n; i++)
        *out = *out * 10 + (s->ptr[i] - '0');
    *s = slice_skip(*s, n);
    return true;
}

static bool take_month(struct slice *s, bool whole, struct tm *tm)
{
    for (int m = 0; m < 12; m++) {
        size_t len = whole ? strlen(month_names[m]) : 3;
        if (!slice_starts(*s, slice_of(month_names[m], len)))
            continue;
        tm->tm_mon = m;
        *s = slice_skip(*s, len);
        return true;
    }
    return false;
}

static bool take_fraction(struct slice *s, const struct time_part *p, const char *layout,
                          int64_t *ns)
{
    int digits = 0;
    int64_t scale = 100000000;
    if (s->len == 0 || s->ptr[0] != layout[p->from])
        return p->kind == FRACTION_9;
    *s = slice_skip(*s, 1);
    while (digits < p->digits && is_digit(*s, 0)) {
        *ns += (s->ptr[0] - '0') * scale;
        scale /= 10;
        digits++;
        *s = slice_skip(*s, 1);
    }
    return p->kind == FRACTION_9 || digits == p->digits;
}

static bool take_part(struct slice *s, const struct time_layout *l, const struct time_part *p,
                      struct tm *tm, int64_t *ns)
{
    int n;
    switch ((enum time_token)p->kind) {
    case TEXT:
        if (!slice_starts(*s, slice_of(l->layout + p->from, p->len)))
            return false;
        *s = slice_skip(*s, p->len);
        return true;
    case YEAR:
        return take_number(s, 4, 4, &n) && (tm->tm_year = n - 1900, true);
    case YEAR_2:
        return take_number(s, 2, 2, &n) && (tm->tm_year = n < 69 ? n + 100 : n, true);
    case MONTH:
    case MONTH_2:
        return take_number(s, p->kind == MONTH_2 ? 2 : 1, 2, &n) && n >= 1 && n <= 12 &&
               (tm->tm_mon = n - 1, true);
    case MONTH_NAME:
    case MONTH_ABBR:
        return take_month(s, p->kind == MONTH_NAME, tm);
    case DAY:
    case DAY_2:
        return take_number(s, p->kind == DAY_2 ? 2 : 1, 2, &tm->tm_mday) && tm->tm_mday <= 31;
    case HOUR_24:
        return take_number(s, 2, 2, &tm->tm_hour) && tm->tm_hour < 24;
    case MINUTE:
    case MINUTE_2:
        return take_number(s, p->kind == MINUTE_2 ? 2 : 1, 2, &tm->tm_min) && tm->tm_min < 60;
    case SECOND:
    case SECOND_2:
        return take_number(s, p->kind == SECOND_2 ? 2 : 1, 2, &tm->tm_sec) && tm->tm_sec < 61;
    case FRACTION_0:
    case FRACTION_9:
        return take_fraction(s, p, l->layout, ns);
    default:
        return false;
    }
}

enum err time_layout_read(const struct time_layout *l, struct slice text, bool local,
                          int64_t *wall_ns)
{
    struct tm tm = {.tm_year = -1, .tm_mon = -1, .tm_isdst = -1};
    int64_t ns = 0;
    for (unsigned i = 0; i < l->count; i++) {
        if (!take_part(&text, l, &l->parts[i], &tm, &ns))
            return ERR_INVALID;
    }
    if (text.len > 0 || tm.tm_year < 0 || tm.tm_mon < 0 || tm.tm_mday == 0)
        return ERR_INVALID;
    time_t t = local ? mktime(&tm) : timegm(&tm);
    *wall_ns = (int64_t)t * 1000000000 + ns;
    return OK;
}
