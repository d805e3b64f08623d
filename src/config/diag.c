/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sentences of bounded length. What does not fit is cut where a character ends, so that a log line
 * or a terminal never gets half of one.
 */
#include "config/diag.h"

#include <stdarg.h>
#include <stdio.h>

void diag_clear(struct diag *d)
{
    if (d != NULL) {
        d->text[0] = d->file[0] = '\0';
        d->line = d->column = 0;
    }
}

/* Bytes of a sequence that the cap cut in its middle go. */
static void trim_partial(char *text, size_t len)
{
    size_t at = len;
    while (at > 0 && len - at < 3 && ((unsigned char)text[at - 1] & 0xc0) == 0x80)
        at--;
    if (at == 0)
        return;
    unsigned char lead = (unsigned char)text[at - 1];
    size_t want = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (want > 1 && len - at + 1 < want)
        text[at - 1] = '\0';
}

void diag_place(struct diag *d, struct slice file, unsigned line, unsigned column)
{
    if (d == NULL)
        return;
    size_t len = file.len < sizeof d->file - 1 ? file.len : sizeof d->file - 1;
    memcpy(d->file, file.ptr != NULL ? file.ptr : "", len);
    d->file[len] = '\0';
    trim_partial(d->file, len);
    d->line = line;
    d->column = column;
}

static void say(struct diag *d, size_t from, const char *format, va_list args)
{
    int n = vsnprintf(d->text + from, sizeof d->text - from, format, args);
    if (n > 0 && (size_t)n >= sizeof d->text - from)
        trim_partial(d->text, sizeof d->text - 1);
}

void diag_say(struct diag *d, const char *format, ...)
{
    va_list args;
    if (d == NULL)
        return;
    va_start(args, format);
    say(d, 0, format, args);
    va_end(args);
}

void diag_append(struct diag *d, const char *format, ...)
{
    va_list args;
    if (d == NULL)
        return;
    va_start(args, format);
    say(d, strlen(d->text), format, args);
    va_end(args);
}

enum err diag_fail(struct diag *d, const char *format, ...)
{
    va_list args;
    if (d != NULL) {
        va_start(args, format);
        say(d, 0, format, args);
        va_end(args);
    }
    return ERR_INVALID;
}
