/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two sorted lists are walked side by side. Ranges that touch are joined, so that two equal sets have
 * equal arrays and a text is as short as it can be. Family and bytes stand side by side in an address
 * (net/ip_set.h): IPv4 comes before IPv6, and no range spans both.
 */
#include "ports/ranges.h"

#include "base/buffer.h"

enum { TEXT_MAX = 1 << 20 };

static const struct ip_range whole[2] = {
    {{0, {0}}, {0, {255, 255, 255, 255}}},
    {{1, {0}},
     {1, {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}}}};

static int order(const struct ip_address *a, const struct ip_address *b)
{
    return memcmp(a, b, sizeof *a);
}

static int width(const struct ip_address *a)
{
    return a->is_six ? 16 : 4;
}

/* False: it was the last of its family. */
static bool step_up(struct ip_address *a)
{
    for (int i = width(a) - 1; i >= 0; i--) {
        if (++a->bytes[i] != 0)
            return true;
    }
    return false;
}

static bool step_down(struct ip_address *a)
{
    for (int i = width(a) - 1; i >= 0; i--) {
        if (a->bytes[i]-- != 0)
            return true;
    }
    return false;
}

struct ranges ranges_all(bool six)
{
    return (struct ranges){&whole[six], 1};
}

/* Whether `next` begins in `last` or right behind it. */
static bool joins(const struct ip_range *last, const struct ip_range *next)
{
    struct ip_address behind = last->last;
    if (last->last.is_six != next->first.is_six)
        return false;
    return order(&next->first, &last->last) <= 0 ||
           (step_up(&behind) && order(&next->first, &behind) == 0);
}

static void add(struct ip_range *out, size_t *n, const struct ip_range *r)
{
    if (*n == 0 || !joins(&out[*n - 1], r))
        out[(*n)++] = *r;
    else if (order(&r->last, &out[*n - 1].last) > 0)
        out[*n - 1].last = r->last;
}

struct ranges ranges_of(struct arena *a, const struct ip_range *items, size_t count)
{
    struct ip_range *copy = ARENA_ARRAY(a, struct ip_range, count);
    size_t n = 0;
    if (count > 0)
        memcpy(copy, items, count * sizeof *copy);
    struct ip_set set = ip_set_build(copy, count);
    for (size_t i = 0; i < set.count; i++) {
        struct ip_range r = set.ranges[i];
        add(copy, &n, &r);
    }
    return (struct ranges){copy, n};
}

struct ranges ranges_or(struct arena *arena, struct ranges a, struct ranges b)
{
    size_t i = 0, j = 0, n = 0;
    if (a.count == 0 || b.count == 0)
        return a.count == 0 ? b : a;
    struct ip_range *out = ARENA_ARRAY(arena, struct ip_range, a.count + b.count);
    while (i < a.count || j < b.count) {
        bool left = j == b.count ||
                    (i < a.count && order(&a.items[i].first, &b.items[j].first) <= 0);
        add(out, &n, left ? &a.items[i++] : &b.items[j++]);
    }
    return (struct ranges){out, n};
}

struct ranges ranges_and(struct arena *arena, struct ranges a, struct ranges b)
{
    size_t i = 0, j = 0, n = 0;
    if (a.count == 0 || b.count == 0)
        return RANGES_NONE;
    struct ip_range *out = ARENA_ARRAY(arena, struct ip_range, a.count + b.count);
    while (i < a.count && j < b.count) {
        const struct ip_range *x = &a.items[i], *y = &b.items[j];
        struct ip_range both = {order(&x->first, &y->first) >= 0 ? x->first : y->first,
                                order(&x->last, &y->last) <= 0 ? x->last : y->last};
        if (order(&both.first, &both.last) <= 0)
            add(out, &n, &both);
        if (order(&x->last, &y->last) <= 0)
            i++;
        else
            j++;
    }
    return (struct ranges){out, n};
}

struct ranges ranges_minus(struct arena *arena, struct ranges a, struct ranges b)
{
    size_t j = 0, n = 0;
    if (a.count == 0 || b.count == 0)
        return a;
    struct ip_range *out = ARENA_ARRAY(arena, struct ip_range, a.count + b.count);
    for (size_t i = 0; i < a.count; i++) {
        struct ip_range rest = a.items[i];
        bool any = true;
        while (j < b.count && order(&b.items[j].last, &rest.first) < 0)
            j++;
        for (size_t k = j; any && k < b.count && order(&b.items[k].first, &rest.last) <= 0; k++) {
            struct ip_range before = {rest.first, b.items[k].first};
            if (order(&before.first, &before.last) < 0 && step_down(&before.last))
                add(out, &n, &before);
            any = order(&b.items[k].last, &rest.last) < 0;
            rest.first = b.items[k].last;
            any = any && step_up(&rest.first);
        }
        if (any)
            add(out, &n, &rest);
    }
    return (struct ranges){out, n};
}

bool ranges_equal(struct ranges a, struct ranges b)
{
    return a.count == b.count &&
           (a.count == 0 || memcmp(a.items, b.items, a.count * sizeof *a.items) == 0);
}

struct ranges ranges_family(struct arena *a, struct ranges r, bool six)
{
    return ranges_and(a, r, ranges_all(six));
}

static double position(const struct ip_address *a)
{
    double at = 0;
    for (int i = width(a) - 1; i >= 0; i--)
        at = (at + a->bytes[i]) / 256;
    return at;
}

double ranges_share(struct ranges r, bool six)
{
    double sum = 0;
    for (size_t i = 0; i < r.count; i++) {
        if (r.items[i].first.is_six == six)
            sum += position(&r.items[i].last) - position(&r.items[i].first);
    }
    return sum;
}

/* The longest prefix that begins at `at` and ends no later than `last`: how many bits are free. */
static unsigned free_bits(const struct ip_address *at, const struct ip_address *last)
{
    unsigned size = (unsigned)width(at) * 8, bits = 0;
    struct ip_address end = *at;
    while (bits < size) {
        unsigned byte = size / 8 - 1 - bits / 8;
        uint8_t bit = (uint8_t)(1u << bits % 8);
        if (at->bytes[byte] & bit)
            break;
        end.bytes[byte] |= bit;
        if (order(&end, last) > 0)
            break;
        bits++;
    }
    return bits;
}

void range_prefixes(const struct ip_range *r,
                    void (*each)(void *, const struct ip_address *, unsigned), void *context)
{
    struct ip_address at = r->first;
    unsigned size = (unsigned)width(&at) * 8;
    for (;;) {
        unsigned bits = free_bits(&at, &r->last);
        each(context, &at, size - bits);
        for (unsigned i = 0; i < bits; i++)
            at.bytes[size / 8 - 1 - i / 8] |= (uint8_t)(1u << i % 8);
        if (order(&at, &r->last) >= 0 || !step_up(&at))
            return;
    }
}

struct text_out {
    struct buffer text;
    size_t count, most;
};

static void put_prefix(void *context, const struct ip_address *a, unsigned length)
{
    struct text_out *o = context;
    char text[IP_TEXT_MAX];
    if (o->count++ >= o->most)
        return;
    struct slice address = slice_of(text, ip_text(a, text));
    buffer_append_f(&o->text, "%s" SLICE_FMT, o->count > 1 ? ", " : "", SLICE_ARG(address));
    if (length < (unsigned)width(a) * 8)
        buffer_append_f(&o->text, "/%u", length);
}

struct slice ranges_text(struct ranges r, size_t most, struct arena *a)
{
    struct text_out o = {.most = most};
    buffer_init(&o.text, TEXT_MAX);
    for (size_t i = 0; i < r.count; i++)
        range_prefixes(&r.items[i], put_prefix, &o);
    if (o.count > most)
        buffer_append_f(&o.text, " and %zu more", o.count - most);
    struct slice text = arena_copy(a, buffer_slice(&o.text));
    buffer_deinit(&o.text);
    return text;
}
