/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a broken assertion ends the process: one line built on the stack, one write, abort. No
 * stdio and no allocation, since the heap or a lock may be what is broken.
 */
#include "base/check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t put(char *line, size_t at, size_t cap, const char *text)
{
    size_t n = strnlen(text, cap - at);
    memcpy(line + at, text, n);
    return at + n;
}

static size_t put_number(char *line, size_t at, size_t cap, unsigned n)
{
    char digits[12];
    size_t i = sizeof digits;
    digits[--i] = '\0';
    do
        digits[--i] = (char)('0' + n % 10);
    while ((n /= 10) != 0);
    return put(line, at, cap, digits + i);
}

void check_failed(const char *file, int line, const char *condition)
{
    char text[512];
    size_t n = put(text, 0, sizeof text, "portico: assertion failed: ");
    n = put(text, n, sizeof text, file);
    n = put(text, n, sizeof text, ":");
    n = put_number(text, n, sizeof text, (unsigned)line);
    n = put(text, n, sizeof text, ": ");
    n = put(text, n, sizeof text, condition);
    n = put(text, n, sizeof text, "\n");
    (void)!write(STDERR_FILENO, text, n);
    abort();
}

void fatal(const char *what)
{
    char text[512];
    size_t n = put(text, 0, sizeof text, "portico: fatal: ");
    n = put(text, n, sizeof text, what);
    n = put(text, n, sizeof text, "\n");
    (void)!write(STDERR_FILENO, text, n);
    abort();
}
