/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clocks and HTTP dates. Dates are computed from the civil calendar, without the C library's time
 * zone code: no lock, no environment, the same on every machine. Parsing accepts the one form that
 * is sent and the two obsolete ones that must still be understood (RFC 9110 §5.6.7).
 */
#include "base/clock.h"

#include <time.h>

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char days[] = "SunMonTueWedThuFriSat";

#ifdef LOOP_FAULTS
_Atomic int64_t clock_shift_ns;
#define SHIFT atomic_load_explicit(&clock_shift_ns, memory_order_relaxed)
#else
#define SHIFT 0
#endif

uint64_t clock_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

int64_t clock_file_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * (int64_t)NS_PER_S + t.tv_nsec;
}

int64_t clock_wall_ns(void)
{
    return clock_file_ns() + SHIFT;
}

struct civil {
    int64_t year;
    int month, day; /* from 1 */
};

/* Days since 1970-01-01 of a date in the proleptic Gregorian calendar; years begin in March. */
static int64_t days_from_civil(struct civil c)
{
    int64_t y = c.month <= 2 ? c.year - 1 : c.year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (c.month + (c.month > 2 ? -3 : 9)) + 2) / 5 + c.day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static struct civil civil_from_days(int64_t z)
{
    z += 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    struct civil c = {
        .year = yoe + era * 400,
        .month = (int)(mp < 10 ? mp + 3 : mp - 9),
        .day = (int)(doy - (153 * mp + 2) / 5 + 1),
    };
    c.year += c.month <= 2;
    return c;
}

static void put_digits(char *at, int width, int64_t n)
{
    while (width-- > 0) {
        at[width] = (char)('0' + n % 10);
        n /= 10;
    }
}

void clock_http_date(int64_t seconds, char out[HTTP_DATE_LEN])
{
    if (seconds < -INT64_C(62167219200))
        seconds = -INT64_C(62167219200);
    if (seconds > INT64_C(253402300799))
        seconds = INT64_C(253402300799);
    int64_t day = seconds / 86400 - (seconds % 86400 < 0);
    int64_t second = seconds - day * 86400;
    struct civil c = civil_from_days(day);
    int64_t weekday = ((day + 4) % 7 + 7) % 7;
    memcpy(out, "Sun, 06 Nov 1994 08:49:37 GMT", HTTP_DATE_LEN);
    memcpy(out, days + weekday * 3, 3);
    put_digits(out + 5, 2, c.day);
    memcpy(out + 8, months + (c.month - 1) * 3, 3);
    put_digits(out + 12, 4, c.year);
    put_digits(out + 17, 2, second / 3600);
    put_digits(out + 20, 2, second / 60 % 60);
    put_digits(out + 23, 2, second % 60);
}

struct stamp {
    struct civil date;
    uint64_t hour, minute, second;
};

static bool take_number(struct slice *s, size_t width, uint64_t *out)
{
    struct slice digits = slice_take(*s, width);
    *s = slice_skip(*s, width);
    return digits.len == width && slice_to_u64(digits, UINT64_MAX, out);
}

static bool take_text(struct slice *s, struct slice text)
{
    if (!slice_starts(*s, text))
        return false;
    *s = slice_skip(*s, text.len);
    return true;
}

static bool take_month(struct slice *s, int *month)
{
    for (int i = 0; i < 12; i++) {
        if (take_text(s, slice_of(months + i * 3, 3))) {
            *month = i + 1;
            return true;
        }
    }
    return false;
}

static bool take_time(struct slice *s, struct stamp *t)
{
    return take_number(s, 2, &t->hour) && take_text(s, SLICE(":")) &&
           take_number(s, 2, &t->minute) && take_text(s, SLICE(":")) &&
           take_number(s, 2, &t->second);
}

/* `06 Nov 1994 08:49:37 GMT`, behind the day's name. */
static bool parse_fixdate(struct slice s, struct stamp *t)
{
    uint64_t day, year;
    if (!take_number(&s, 2, &day) || !take_text(&s, SLICE(" ")) ||
        !take_month(&s, &t->date.month) || !take_text(&s, SLICE(" ")) ||
        !take_number(&s, 4, &year) || !take_text(&s, SLICE(" ")) || !take_time(&s, t))
        return false;
    t->date.day = (int)day;
    t->date.year = (int64_t)year;
    return slice_is(s, " GMT");
}

/* `06-Nov-94 08:49:37 GMT`; two-digit years are in 1970 … 2069. */
static bool parse_rfc850(struct slice s, struct stamp *t)
{
    uint64_t day, year;
    if (!take_number(&s, 2, &day) || !take_text(&s, SLICE("-")) ||
        !take_month(&s, &t->date.month) || !take_text(&s, SLICE("-")) ||
        !take_number(&s, 2, &year) || !take_text(&s, SLICE(" ")) || !take_time(&s, t))
        return false;
    t->date.day = (int)day;
    t->date.year = (int64_t)(year < 70 ? year + 2000 : year + 1900);
    return slice_is(s, " GMT");
}

/* `Nov  6 08:49:37 1994`, behind the day's name. */
static bool parse_asctime(struct slice s, struct stamp *t)
{
    uint64_t day, year;
    if (!take_month(&s, &t->date.month) || !take_text(&s, SLICE(" ")) ||
        !(take_text(&s, SLICE(" ")) ? take_number(&s, 1, &day) : take_number(&s, 2, &day)) ||
        !take_text(&s, SLICE(" ")) || !take_time(&s, t) || !take_text(&s, SLICE(" ")) ||
        !take_number(&s, 4, &year))
        return false;
    t->date.day = (int)day;
    t->date.year = (int64_t)year;
    return s.len == 0;
}

bool clock_parse_http_date(struct slice s, int64_t *seconds)
{
    struct slice day, rest;
    struct stamp t;
    bool parsed = slice_cut(s, ',', &day, &rest)
                      ? take_text(&rest, SLICE(" ")) &&
                            (parse_fixdate(rest, &t) || parse_rfc850(rest, &t))
                      : slice_cut(s, ' ', &day, &rest) && parse_asctime(rest, &t);
    if (!parsed || day.len < 3 || t.date.day < 1 || t.date.day > 31 || t.hour > 23 ||
        t.minute > 59 || t.second > 60)
        return false;
    *seconds = days_from_civil(t.date) * 86400 + (int64_t)(t.hour * 3600 + t.minute * 60 + t.second);
    return true;
}
