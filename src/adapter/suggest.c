/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Distance in single edits (insert, drop, replace, swap of neighbours); at most one for each three
 * letters, so that what is only alike by chance is not offered.
 */
#include "adapter/suggest.h"

enum { WORD_MAX = 40 };

static size_t least(size_t a, size_t b, size_t c)
{
    a = a < b ? a : b;
    return a < c ? a : c;
}

static size_t edits(struct slice a, struct slice b)
{
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t k = 0; k <= b.len; k++)
        last[k] = before[k] = k;
    for (size_t i = 1; i <= a.len; i++) {
        now[0] = i;
        for (size_t k = 1; k <= b.len; k++) {
            bool same = ascii_lower(a.ptr[i - 1]) == ascii_lower(b.ptr[k - 1]);
            now[k] = least(last[k] + 1, now[k - 1] + 1, last[k - 1] + !same);
            if (i > 1 && k > 1 && a.ptr[i - 1] == b.ptr[k - 2] && a.ptr[i - 2] == b.ptr[k - 1] &&
                before[k - 2] + 1 < now[k])
                now[k] = before[k - 2] + 1;
        }
        size_t *free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return last[b.len];
}

void suggest(struct suggestion *s, struct slice unknown, const char *known)
{
    struct slice word = slice_from(known);
    if (unknown.len == 0 || unknown.len > WORD_MAX || word.len > WORD_MAX)
        return;
    size_t distance = edits(unknown, word);
    size_t allowed = (unknown.len > word.len ? unknown.len : word.len) / 3;
    if (distance <= allowed && (s->word == NULL || distance < s->distance))
        *s = (struct suggestion){known, distance};
}
