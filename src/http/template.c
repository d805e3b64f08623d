/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compiling and expanding text with placeholders. Compiling cuts the text at braces by the rules of
 * Caddy's replacer: "{" to the next "}" that no backslash escapes; an escaped brace is text without
 * its backslash; what never closes is text. A part is either text or a name. Which function knows a
 * name is settled when it is compiled; variables are looked for at each expansion, since handlers
 * and matchers bring forth new names while a request runs.
 */
#include "http/template.h"

#include "base/check.h"

struct template_part {
    struct slice text; /* literal, or "{name}" with its braces */
    bool is_name;
    struct placeholder name;
};

enum { UNCLOSED_MAX = 100, PARTS_MAX = UINT16_MAX };

struct compiler {
    struct template *t;
    struct arena *arena;
    uint32_t cap;
};

static void add_part(struct compiler *c, struct slice text, bool is_name)
{
    struct template *t = c->t;
    if (text.len == 0 || t->count == PARTS_MAX)
        return;
    if (t->count == c->cap) {
        uint32_t cap = c->cap > 0 ? c->cap * 2 : 4;
        struct template_part *parts = arena_alloc(c->arena, cap * sizeof *parts);
        if (t->count > 0)
            memcpy(parts, t->parts, t->count * sizeof *parts);
        t->parts = parts;
        c->cap = cap;
    }
    struct template_part *p = &t->parts[t->count++];
    *p = (struct template_part){.text = text, .is_name = is_name};
    if (is_name)
        placeholder_resolve(&p->name, slice_of(text.ptr + 1, text.len - 2));
}

/* Position of the brace that closes the one at `open`, or SIZE_MAX. */
static size_t closing(struct slice s, size_t open)
{
    for (size_t i = open + 1; i < s.len; i++) {
        if (s.ptr[i] == '}' && (s.ptr[i - 1] != '\\' || i == s.len - 1))
            return i;
    }
    return SIZE_MAX;
}

static bool is_escaped_brace(struct slice s, size_t i)
{
    return i > 0 && s.ptr[i - 1] == '\\' && (s.ptr[i] == '{' || s.ptr[i] == '}');
}

static void cut_parts(struct compiler *c, struct slice s)
{
    size_t from = 0, unclosed = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (is_escaped_brace(s, i)) {
            add_part(c, slice_of(s.ptr + from, i - 1 - from), false);
            from = i;
            continue;
        }
        if (s.ptr[i] != '{' || unclosed > UNCLOSED_MAX)
            continue;
        size_t end = closing(s, i);
        if (end == SIZE_MAX) {
            unclosed++;
            continue;
        }
        add_part(c, slice_of(s.ptr + from, i - from), false);
        add_part(c, slice_of(s.ptr + i, end + 1 - i), true);
        i = end;
        from = end + 1;
    }
    add_part(c, slice_skip(s, from), false);
}

void template_compile(struct template *t, struct slice text, struct arena *arena)
{
    struct compiler c = {t, arena, 0};
    *t = (struct template){.text = arena_copy(arena, text)};
    t->constant = slice_find(text, '{') == SIZE_MAX && slice_find(text, '}') == SIZE_MAX;
    if (t->constant) /* as most are: they need no parts */
        return;
    cut_parts(&c, t->text);
    bool names = false;
    for (unsigned i = 0; i < t->count; i++)
        names |= t->parts[i].is_name;
    t->constant = !names;
    if (!t->constant)
        return;
    struct slice *pieces = ARENA_ARRAY(arena, struct slice, t->count); /* escaped braces were cut */
    for (unsigned i = 0; i < t->count; i++)
        pieces[i] = t->parts[i].text;
    t->text = arena_join(arena, pieces, t->count);
}

enum unknown { UNKNOWN_EMPTY, UNKNOWN_KEPT };

static struct slice expand(const struct template *t, struct exchange *x, struct slice empty,
                           enum unknown unknown);

/* An unknown name is kept as text; one that holds a further "{" is looked at again from there, as
 * in "{te{known}". Rare, and only of the configuration's own text. */
static struct slice keep_unknown(struct slice text, struct exchange *x, struct slice empty)
{
    struct template inner;
    struct slice rest = slice_skip(text, 1);
    if (slice_find(rest, '{') == SIZE_MAX)
        return text;
    template_compile(&inner, rest, x->arena);
    return arena_join(x->arena,
                      (struct slice[]){SLICE("{"), expand(&inner, x, empty, UNKNOWN_KEPT)}, 2);
}

static struct slice value_of(const struct template_part *p, struct exchange *x, struct slice empty,
                             enum unknown unknown)
{
    struct slice value;
    if (!p->is_name)
        return p->text;
    if (!placeholder_value(&p->name, x, &value)) {
        if (unknown == UNKNOWN_KEPT)
            return keep_unknown(p->text, x, empty);
        value = SLICE_NONE;
    }
    return value.len > 0 ? value : empty;
}

static struct slice expand(const struct template *t, struct exchange *x, struct slice empty,
                           enum unknown unknown)
{
    struct slice few[8], *values = few;
    if (t->constant)
        return t->text;
    if (t->count == 1)
        return value_of(&t->parts[0], x, empty, unknown);
    if (t->count > sizeof few / sizeof few[0])
        values = ARENA_ARRAY(x->arena, struct slice, t->count);
    for (unsigned i = 0; i < t->count; i++)
        values[i] = value_of(&t->parts[i], x, empty, unknown);
    return arena_join(x->arena, values, t->count);
}

struct slice template_expand_or(const struct template *t, struct exchange *x, struct slice empty)
{
    return expand(t, x, empty, UNKNOWN_EMPTY);
}

struct slice template_expand(const struct template *t, struct exchange *x)
{
    return expand(t, x, SLICE_NONE, UNKNOWN_EMPTY);
}

struct slice template_expand_known(const struct template *t, struct exchange *x)
{
    return expand(t, x, SLICE_NONE, UNKNOWN_KEPT);
}

struct slice template_expand_encoded(const struct template *t, struct exchange *x,
                                     template_encoder *encode)
{
    if (t->constant)
        return t->text;
    struct slice *values = arena_alloc(x->arena, (t->count + 1U) * sizeof *values);
    for (uint16_t i = 0; i < t->count; i++) {
        const struct template_part *p = &t->parts[i];
        values[i] = value_of(p, x, SLICE_NONE, UNKNOWN_EMPTY);
        if (p->is_name)
            values[i] = encode(x, p->name.name, values[i]);
    }
    return arena_join(x->arena, values, t->count);
}

static struct slice expand_now(struct slice text, struct arena *arena, enum unknown unknown)
{
    struct exchange none = {.arena = arena};
    struct template t;
    template_compile(&t, text, arena);
    if (t.constant)
        return t.text;
    struct slice *values = ARENA_ARRAY(arena, struct slice, t.count);
    for (uint16_t i = 0; i < t.count; i++) {
        if (!t.parts[i].is_name || !slice_starts(t.parts[i].text, SLICE("{http.")))
            values[i] = value_of(&t.parts[i], &none, SLICE_NONE, unknown);
        else if (unknown == UNKNOWN_KEPT)
            values[i] = t.parts[i].text;
    }
    return arena_join(arena, values, t.count);
}

struct slice template_expand_now(struct slice text, struct arena *arena)
{
    return expand_now(text, arena, UNKNOWN_EMPTY);
}

struct slice template_expand_known_now(struct slice text, struct arena *arena)
{
    return expand_now(text, arena, UNKNOWN_KEPT);
}

bool template_status(const struct template *t, struct exchange *x, int *status)
{
    uint64_t n;
    if (!slice_to_u64(template_expand(t, x), 999, &n) || n < 100)
        return false;
    *status = (int)n;
    return true;
}
