/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass with one point to come back to: a later star makes an earlier one superfluous, since
 * neither crosses a '/'.
 */
#include "base/glob.h"

#include "base/text.h"

/* One rune of a class, with its escape; false when malformed. */
static bool class_rune(struct slice *p, uint32_t *rune)
{
    if (p->len == 0 || p->ptr[0] == '-' || p->ptr[0] == ']')
        return false;
    if (p->ptr[0] == '\\') {
        *p = slice_skip(*p, 1);
        if (p->len == 0)
            return false;
    }
    size_t n = utf8_decode(*p, rune);
    if (n == 0) {
        *rune = (unsigned char)p->ptr[0];
        n = 1;
    }
    *p = slice_skip(*p, n);
    return p->len > 0;
}

/* `p` behind '['; moves it behind ']'. */
static bool match_class(struct slice *p, uint32_t rune, bool *matched)
{
    bool negated = p->len > 0 && p->ptr[0] == '^', found = false;
    if (negated)
        *p = slice_skip(*p, 1);
    for (int ranges = 0;; ranges++) {
        uint32_t low, high;
        if (p->len > 0 && p->ptr[0] == ']' && ranges > 0)
            break;
        if (!class_rune(p, &low))
            return false;
        high = low;
        if (p->ptr[0] == '-') {
            *p = slice_skip(*p, 1);
            if (!class_rune(p, &high))
                return false;
        }
        found = found || (low <= rune && rune <= high);
    }
    *p = slice_skip(*p, 1);
    *matched = found != negated;
    return true;
}

/* One item that is no star against the front of *name; moves both on. False: no match, or bad. */
static bool match_one(struct slice *p, struct slice *name)
{
    uint32_t rune;
    bool matched;
    if (name->len == 0)
        return false;
    size_t n = utf8_decode(*name, &rune);
    if (n == 0) {
        rune = (unsigned char)name->ptr[0];
        n = 1;
    }
    char c = p->ptr[0];
    if (c == '[') {
        *p = slice_skip(*p, 1);
        if (!match_class(p, rune, &matched) || !matched)
            return false;
        *name = slice_skip(*name, n);
        return true;
    }
    if (c == '?') {
        if (name->ptr[0] == '/')
            return false;
        *p = slice_skip(*p, 1);
        *name = slice_skip(*name, n);
        return true;
    }
    if (c == '\\') {
        *p = slice_skip(*p, 1);
        if (p->len == 0)
            return false;
    }
    if (p->ptr[0] != name->ptr[0])
        return false;
    *p = slice_skip(*p, 1);
    *name = slice_skip(*name, 1);
    return true;
}

bool glob_match(struct slice p, struct slice name)
{
    struct slice star_p = SLICE_NONE, star_name = SLICE_NONE;
    bool has_star = false;
    if (!glob_valid(p))
        return false;
    for (;;) {
        if (p.len > 0 && p.ptr[0] == '*') {
            p = slice_skip(p, 1);
            star_p = p;
            star_name = name;
            has_star = true;
            continue;
        }
        if (p.len == 0 && name.len == 0)
            return true;
        if (p.len > 0 && match_one(&p, &name))
            continue;
        if (!has_star || star_name.len == 0 || star_name.ptr[0] == '/')
            return false;
        star_name = slice_skip(star_name, 1);
        p = star_p;
        name = star_name;
    }
}

bool glob_valid(struct slice p)
{
    bool ignored;
    while (p.len > 0) {
        char c = p.ptr[0];
        p = slice_skip(p, 1);
        if (c == '[' && !match_class(&p, 0, &ignored))
            return false;
        if (c == '\\') {
            if (p.len == 0)
                return false;
            p = slice_skip(p, 1);
        }
    }
    return true;
}
