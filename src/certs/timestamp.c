/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields are read by their places; the zone is 'Z' or an offset.
 */
#include "certs/timestamp.h"

#include <time.h>

#include "base/clock.h"

static bool number(struct slice s, size_t at, size_t len, int *out)
{
    int n = 0;
    if (s.len < at + len)
        return false;
    for (size_t i = at; i < at + len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        n = n * 10 + (s.ptr[i] - '0');
    }
    *out = n;
    return true;
}

static bool zone(struct slice s, int64_t *offset_s)
{
    int hours, minutes;
    *offset_s = 0;
    if (slice_eq_nocase(s, SLICE("Z")))
        return true;
    if (s.len != 6 || (s.ptr[0] != '+' && s.ptr[0] != '-') || s.ptr[3] != ':' ||
        !number(s, 1, 2, &hours) || !number(s, 4, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *offset_s = (hours * 3600 + minutes * 60) * (s.ptr[0] == '-' ? -1 : 1);
    return true;
}

bool timestamp_read(struct slice s, int64_t *seconds)
{
    struct tm tm = {0};
    int64_t offset;
    if (s.len < 20 || s.ptr[4] != '-' || s.ptr[7] != '-' || ascii_lower(s.ptr[10]) != 't' ||
        s.ptr[13] != ':' || s.ptr[16] != ':' || !number(s, 0, 4, &tm.tm_year) ||
        !number(s, 5, 2, &tm.tm_mon) || !number(s, 8, 2, &tm.tm_mday) ||
        !number(s, 11, 2, &tm.tm_hour) || !number(s, 14, 2, &tm.tm_min) ||
        !number(s, 17, 2, &tm.tm_sec))
        return false;
    if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
        tm.tm_min > 59 || tm.tm_sec > 60)
        return false;
    size_t at = 19;
    if (s.ptr[at] == '.') {
        at++;
        while (at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9')
            at++;
    }
    if (!zone(slice_skip(s, at), &offset))
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    *seconds = (int64_t)timegm(&tm) - offset;
    if (*seconds < 0)
        *seconds = 0;
    return true;
}

static struct slice text(struct arena *arena, int64_t seconds, int64_t ns)
{
    struct tm tm;
    time_t t = (time_t)seconds;
    char date[32];
    if (seconds == 0 || gmtime_r(&t, &tm) == NULL)
        return SLICE("0001-01-01T00:00:00Z");
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    if (ns == 0)
        return arena_printf(arena, "%sZ", date);
    return arena_printf(arena, "%s.%09lldZ", date, (long long)ns);
}

struct slice timestamp_text(struct arena *arena, int64_t seconds)
{
    return text(arena, seconds, 0);
}

struct slice timestamp_text_ns(struct arena *arena, int64_t ns)
{
    return text(arena, ns / (int64_t)NS_PER_S, ns % (int64_t)NS_PER_S);
}
