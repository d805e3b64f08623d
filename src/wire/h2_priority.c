/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The priority of a request, "u=1, i", as its field and PRIORITY_UPDATE frames say it (RFC 9218 §4):
 * a dictionary of RFC 8941, of which two members are known. Others are skipped whatever their form;
 * one of the two that has another type or range is as if it were not there (RFC 9218 §4).
 */
#include "wire/h2_message.h"

struct member {
    struct slice key, value; /* value: bare, "" when only the key stands there */
};

static bool is_key_char(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || c == '*' ||
           (!first && ((c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.'));
}

static bool take_key(struct slice *in, struct slice *key)
{
    size_t n = 0;
    while (n < in->len && is_key_char(in->ptr[n], n == 0))
        n++;
    *key = slice_take(*in, n);
    *in = slice_skip(*in, n);
    return n > 0;
}

/* A string: its end behind the closing quote, or 0. */
static size_t quoted(struct slice in)
{
    for (size_t i = 1; i < in.len; i++) {
        if (in.ptr[i] == '\\')
            i++;
        else if (in.ptr[i] == '"')
            return i + 1;
    }
    return 0;
}

/* A bare item or an inner list, whatever is in it. */
static bool take_value(struct slice *in, struct slice *value)
{
    size_t n = 0;
    if (in->len == 0)
        return false;
    if (in->ptr[0] == '"') {
        n = quoted(*in);
    } else if (in->ptr[0] == '(') {
        n = slice_find(*in, ')');
        n = n == SIZE_MAX ? 0 : n + 1;
    } else {
        while (n < in->len && memchr(",; \t\"()", in->ptr[n], 7) == NULL)
            n++;
    }
    *value = slice_take(*in, n);
    *in = slice_skip(*in, n);
    return n > 0;
}

static void skip_blanks(struct slice *in)
{
    while (in->len > 0 && (in->ptr[0] == ' ' || in->ptr[0] == '\t'))
        *in = slice_skip(*in, 1);
}

static bool take_char(struct slice *in, char c)
{
    bool there = in->len > 0 && in->ptr[0] == c;
    if (there)
        *in = slice_skip(*in, 1);
    return there;
}

static bool take_member(struct slice *in, struct member *m)
{
    struct slice key, value;
    *m = (struct member){0};
    if (!take_key(in, &m->key) || (take_char(in, '=') && !take_value(in, &m->value)))
        return false;
    while (take_char(in, ';')) { /* parameters: none is known */
        skip_blanks(in);
        if (!take_key(in, &key) || (take_char(in, '=') && !take_value(in, &value)))
            return false;
    }
    return true;
}

struct priority {
    uint8_t urgency;
    bool incremental;
};

static void use_member(const struct member *m, struct priority *p)
{
    if (slice_is(m->key, "u") && m->value.len == 1 && m->value.ptr[0] >= '0' &&
        m->value.ptr[0] <= '7')
        p->urgency = (uint8_t)(m->value.ptr[0] - '0');
    else if (slice_is(m->key, "i") && (m->value.len == 0 || slice_is(m->value, "?1")))
        p->incremental = true;
    else if (slice_is(m->key, "i") && slice_is(m->value, "?0"))
        p->incremental = false;
}

void h2_priority_parse(struct slice in, uint8_t *urgency, bool *incremental)
{
    struct priority p = {*urgency, *incremental};
    struct member m;
    in = slice_trim(in);
    while (in.len > 0) {
        if (!take_member(&in, &m))
            return;
        use_member(&m, &p);
        skip_blanks(&in);
        if (in.len > 0 && (!take_char(&in, ',') || in.len == 0))
            return;
        skip_blanks(&in);
    }
    *urgency = p.urgency;
    *incremental = p.incremental;
}
