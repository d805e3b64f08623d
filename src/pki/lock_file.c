/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small JSON, read with the library and forgiving: members that are not known are somebody else's.
 */
#include "pki/lock_file.h"

#include <jansson.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"

static int put_time(int64_t wall_ns, char *out, size_t cap)
{
    time_t seconds = (time_t)(wall_ns / (int64_t)NS_PER_S);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    return snprintf(out, cap, "%04d-%02d-%02dT%02d:%02d:%02d.%09dZ", tm.tm_year + 1900,
                    tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                    (int)(wall_ns % (int64_t)NS_PER_S));
}

size_t lock_file_write(int64_t created_ns, int64_t updated_ns, char out[LOCK_FILE_MAX])
{
    char created[64], updated[64];
    put_time(created_ns, created, sizeof created);
    put_time(updated_ns, updated, sizeof updated);
    return (size_t)snprintf(out, LOCK_FILE_MAX, "{\"created\":\"%s\",\"updated\":\"%s\"}\n", created,
                            updated);
}

/* Digits of a fixed form ("dddd-dd-dd…"): each 'd' a digit, other bytes themselves. */
static bool has_form(struct slice text, const char *form)
{
    for (size_t i = 0; form[i] != '\0'; i++) {
        if (i == text.len)
            return false;
        bool digit = text.ptr[i] >= '0' && text.ptr[i] <= '9';
        if (form[i] == 'd' ? !digit : text.ptr[i] != form[i])
            return false;
    }
    return true;
}

static int number(struct slice text, size_t at, size_t len)
{
    int n = 0;
    for (size_t i = 0; i < len; i++)
        n = n * 10 + text.ptr[at + i] - '0';
    return n;
}

/* Takes a fraction off the front. */
static int64_t fraction(struct slice *rest)
{
    int64_t ns = 0, unit = (int64_t)NS_PER_S;
    if (rest->len == 0 || rest->ptr[0] != '.')
        return 0;
    *rest = slice_skip(*rest, 1);
    while (rest->len > 0 && rest->ptr[0] >= '0' && rest->ptr[0] <= '9') {
        unit /= 10;
        ns += (rest->ptr[0] - '0') * unit;
        *rest = slice_skip(*rest, 1);
    }
    return ns;
}

static bool zone(struct slice text, int64_t *seconds)
{
    *seconds = 0;
    if (slice_is(text, "Z") || slice_is(text, "z"))
        return true;
    if (text.len != 6 || (!has_form(text, "+dd:dd") && !has_form(text, "-dd:dd")))
        return false;
    *seconds = number(text, 1, 2) * 3600 + number(text, 4, 2) * 60;
    if (text.ptr[0] == '-')
        *seconds = -*seconds;
    return true;
}

bool rfc3339_read(struct slice text, int64_t *wall_ns)
{
    if (!has_form(text, "dddd-dd-ddTdd:dd:dd"))
        return false;
    struct tm tm = {.tm_year = number(text, 0, 4) - 1900, .tm_mon = number(text, 5, 2) - 1,
                    .tm_mday = number(text, 8, 2), .tm_hour = number(text, 11, 2),
                    .tm_min = number(text, 14, 2), .tm_sec = number(text, 17, 2)};
    struct slice rest = slice_skip(text, 19);
    int64_t ns = fraction(&rest), away, seconds;
    if (tm.tm_mon < 0 || tm.tm_mon > 11 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
        tm.tm_min > 59 || tm.tm_sec > 60 || !zone(rest, &away))
        return false;
    seconds = timegm(&tm) - away;
    int64_t limit = INT64_MAX / (int64_t)NS_PER_S - 1;
    if (seconds > limit || seconds < -limit)
        *wall_ns = (seconds > 0 ? limit : -limit) * (int64_t)NS_PER_S;
    else
        *wall_ns = seconds * (int64_t)NS_PER_S + ns;
    return true;
}

static bool member(const json_t *object, const char *key, int64_t *wall_ns)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL && rfc3339_read(slice_from(text), wall_ns) &&
           *wall_ns > 0; /* Go writes the year 1 for a time that is not set */
}

bool lock_file_read(struct slice text, int64_t *updated_ns)
{
    json_t *object = json_loadb(text.ptr, text.len, JSON_DISABLE_EOF_CHECK, NULL);
    bool said = member(object, "updated", updated_ns) || member(object, "created", updated_ns);
    json_decref(object);
    return said;
}
