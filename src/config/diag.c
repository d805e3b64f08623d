/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sentences of bounded length. What does not fit is cut where a character ends, so that a log line
 * or a terminal never gets half of one.
 */
#include "config/diag.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/text.h"

void diag_clear(struct diag *d)
{
    if (d != NULL) {
        d->text[0] = d->file[0] = '\0';
        d->line = d->column = 0;
    }
}

/* What the cap cut in its middle goes. */
static void trim_partial(char *text, size_t len)
{
    text[utf8_whole(slice_of(text, len)).len] = '\0';
}

void diag_place(struct diag *d, struct slice file, unsigned line, unsigned column)
{
    if (d == NULL)
        return;
    size_t len = file.len < sizeof d->file - 1 ? file.len : sizeof d->file - 1;
    memcpy(d->file, file.ptr != NULL ? file.ptr : "", len);
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
