/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and values are templates, expanded as they are applied. A value that would take too long to
 * match, or grow too long, stays as it is.
 */
#include "http/field_ops.h"

#include "base/buffer.h"
#include "http/regexp.h"
#include "loop/await.h"

enum { PATTERN_MAX = 4096 };

struct op_values {
    struct template name;
    struct template *values;
    size_t count;
};

struct replacement {
    struct template name, search, replace;
    struct regexp *regexp; /* NULL: a plain search, or: */
    struct template pattern;
    bool is_late; /* the pattern has placeholders */
};

static const char *const replace_members[] = {"search", "search_regexp", "replace", NULL};

static enum err read_values(struct op_values **out, size_t *count, const json_t *json,
                            struct provision *p)
{
    const char *name;
    json_t *values;
    if (json == NULL)
        return OK;
    if (!json_is_object(json))
        return provision_fail(p, "header fields must be an object of arrays");
    *out = ARENA_ARRAY(p->arena, struct op_values, json_object_size(json));
    json_object_foreach((json_t *)(uintptr_t)json, name, values)
    {
        struct op_values *o = &(*out)[(*count)++];
        template_compile(&o->name, slice_from(name), p->arena);
        if (o->name.constant)
            o->name.text = field_canonical(o->name.text, p->arena);
        o->count = json_array_size(values);
        o->values = ARENA_ARRAY(p->arena, struct template, o->count);
        for (size_t i = 0; i < o->count; i++) {
            const json_t *v = json_array_get(values, i);
            if (!json_is_string(v))
                return provision_fail(p, "field \"%s\": a value must be a string", name);
            template_compile(&o->values[i],
                             slice_of(json_string_value(v), json_string_length(v)), p->arena);
        }
    }
    return OK;
}

/* Braces around a name; those of a repetition, "{2,3}", are none. */
static bool has_placeholders(struct slice pattern)
{
    struct slice before, rest = pattern, inner, behind;
    while (slice_cut(rest, '{', &before, &rest)) {
        if (!slice_cut(rest, '}', &inner, &behind))
            return false;
        for (size_t i = 0; i < inner.len; i++) {
            if (memchr("0123456789,", inner.ptr[i], 11) == NULL)
                return true;
        }
    }
    return false;
}

static enum err read_replacement(struct replacement *r, const char *name, const json_t *json,
                                 struct provision *p)
{
    struct slice pattern;
    TRY(provision_members(p, json, replace_members));
    template_compile(&r->name, slice_from(name), p->arena);
    TRY(provision_template(p, json, "search", SLICE(""), &r->search));
    TRY(provision_template(p, json, "replace", SLICE(""), &r->replace));
    TRY(provision_text(p, json, "search_regexp", SLICE(""), &pattern));
    if (pattern.len == 0)
        return OK;
    if (r->search.text.len > 0)
        return provision_fail(p, "cannot specify both a substring search and a regular expression "
                                 "search for field '%s'", name);
    template_compile(&r->pattern, pattern, p->arena);
    r->is_late = has_placeholders(pattern);
    return r->is_late ? OK : regexp_compile(p, pattern, &r->regexp);
}

static enum err read_replacements(struct field_ops *o, const json_t *json, struct provision *p)
{
    const char *name;
    json_t *list;
    size_t total = 0;
    if (json == NULL)
        return OK;
    json_object_foreach((json_t *)(uintptr_t)json, name, list)
        total += json_array_size(list);
    o->replace = ARENA_ARRAY(p->arena, struct replacement, total);
    json_object_foreach((json_t *)(uintptr_t)json, name, list)
    {
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(read_replacement(&o->replace[o->replace_count++], name, json_array_get(list, i),
                                 p));
    }
    return OK;
}

enum err field_ops_provision(struct field_ops *o, const json_t *json, struct provision *p)
{
    struct slice *names;
    TRY(read_values(&o->add, &o->add_count, json_object_get(json, "add"), p));
    TRY(read_values(&o->set, &o->set_count, json_object_get(json, "set"), p));
    TRY(provision_texts(p, json, "delete", &names, &o->remove_count));
    o->remove = ARENA_ARRAY(p->arena, struct template, o->remove_count);
    for (size_t i = 0; i < o->remove_count; i++)
        template_compile(&o->remove[i], names[i], p->arena);
    return read_replacements(o, json_object_get(json, "replace"), p);
}

void field_ops_release(struct field_ops *o)
{
    for (size_t i = 0; i < o->replace_count; i++)
        regexp_free(o->replace[i].regexp);
}

/* "name", "prefix*", "*suffix", "*part*", without ASCII case. */
static bool name_matches(struct slice pattern, struct slice name)
{
    bool head = slice_ends(pattern, SLICE("*"));
    bool tail = slice_starts(pattern, SLICE("*"));
    if (!head && !tail)
        return slice_eq_nocase(pattern, name);
    struct slice part = slice_skip(pattern, tail);
    part.len -= head && part.len > 0;
    if (part.len > name.len)
        return false;
    if (!tail)
        return slice_starts_nocase(name, part);
    if (!head)
        return slice_eq_nocase(slice_skip(name, name.len - part.len), part);
    for (size_t i = 0; i + part.len <= name.len; i++) {
        if (slice_starts_nocase(slice_skip(name, i), part))
            return true;
    }
    return false;
}

static void remove_matching(struct fields *fs, struct slice pattern)
{
    for (uint32_t i = fs->count; i-- > 0;) {
        if (name_matches(pattern, fs->items[i].name))
            fields_remove_at(fs, i);
    }
}

static struct slice replace_all(struct slice in, struct slice search, struct slice with,
                                struct arena *arena)
{
    struct buffer out;
    size_t at;
    if (search.len == 0 || slice_find_slice(in, search) == SIZE_MAX)
        return in;
    buffer_init(&out, 1 << 20);
    while ((at = slice_find_slice(in, search)) != SIZE_MAX) {
        if (buffer_append(&out, slice_take(in, at)) != OK || buffer_append(&out, with) != OK)
            break;
        in = slice_skip(in, at + search.len);
    }
    (void)!buffer_append(&out, in);
    struct slice copy = arena_copy(arena, buffer_slice(&out));
    buffer_deinit(&out);
    return copy;
}

/* A value that takes too long to match, or grows too long, stays as it is. */
/* --- regular expressions with placeholders: compiled when the values are known --- */

struct late_regexp {
    struct exchange *x;
    struct slice pattern;
    struct regexp *regexp;
};

static void compile_late(void *arg)
{
    struct late_regexp *l = arg;
    struct provision p = {.arena = l->x->arena};
    if (regexp_compile(&p, l->pattern, &l->regexp) != OK)
        l->regexp = NULL;
}

/* Compiling recurses on what may come from a client, so it runs on a large stack. NULL, and nothing
 * is replaced, when it is no regular expression. */
static struct regexp *regexp_now(const struct replacement *r, struct exchange *x)
{
    struct late_regexp l = {.x = x, .pattern = template_expand_known(&r->pattern, x)};
    if (l.pattern.len > PATTERN_MAX)
        return NULL;
    if (fiber_self() != NULL)
        await_on_loop(compile_late, &l);
    else
        compile_late(&l);
    return l.regexp;
}

static struct slice replace_regexp(const struct regexp *re, struct slice in, struct slice with,
                                   struct arena *arena)
{
    struct slice out;
    return regexp_replace(re, in, with, arena, &out) == OK ? out : in;
}

static void replace_values(const struct replacement *r, struct fields *fs, struct exchange *x)
{
    struct slice name = template_expand_known(&r->name, x);
    struct slice search = template_expand_known(&r->search, x);
    struct slice with = template_expand_known(&r->replace, x);
    struct regexp *late = r->is_late ? regexp_now(r, x) : NULL;
    const struct regexp *re = r->is_late ? late : r->regexp;
    for (uint32_t i = 0; i < fs->count; i++) {
        struct field *f = &fs->items[i];
        if (!slice_is(name, "*") && !slice_eq_nocase(f->name, name))
            continue;
        if (re != NULL)
            f->value = replace_regexp(re, f->value, with, x->arena);
        else if (!r->is_late)
            f->value = replace_all(f->value, search, with, x->arena);
    }
    regexp_free(late);
}

/* Constant names were given their form at provision. What others turn out to be may be no name at
 * all: then nothing is added, so that neither a head nor a line of the log ends where it should not. */
static bool name_of(const struct template *name, struct exchange *x, struct slice *out)
{
    *out = name->constant ? name->text
                          : field_canonical(template_expand_known(name, x), x->arena);
    return name->constant || field_name_ok(*out);
}

static struct slice joined_values(const struct op_values *o, struct exchange *x)
{
    if (o->count == 0)
        return SLICE("");
    struct slice all = template_expand_known(&o->values[0], x);
    for (size_t i = 1; i < o->count; i++)
        all = arena_join(x->arena, (struct slice[]){all, SLICE(","),
                         template_expand_known(&o->values[i], x)}, 3);
    return all;
}

void field_ops_apply(const struct field_ops *o, struct fields *fs, struct exchange *x)
{
    for (size_t i = 0; i < o->remove_count; i++) {
        if (slice_is(template_expand_known(&o->remove[i], x), "*"))
            fs->count = 0;
    }
    struct slice name;
    for (size_t i = 0; i < o->add_count; i++) {
        for (size_t k = 0; k < o->add[i].count && name_of(&o->add[i].name, x, &name); k++)
            fields_add(fs, name, template_expand_known(&o->add[i].values[k], x));
    }
    for (size_t i = 0; i < o->set_count; i++) {
        if (name_of(&o->set[i].name, x, &name))
            fields_set(fs, name, joined_values(&o->set[i], x));
    }
    for (size_t i = 0; i < o->remove_count; i++) {
        struct slice pattern = template_expand_known(&o->remove[i], x);
        if (!slice_is(pattern, "*"))
            remove_matching(fs, pattern);
    }
    for (size_t i = 0; i < o->replace_count; i++)
        replace_values(&o->replace[i], fs, x);
}

void field_ops_apply_response(const struct field_ops *o, struct fields *fs, struct exchange *x)
{
    for (size_t i = 0; i < o->remove_count; i++) {
        if (name_matches(template_expand_known(&o->remove[i], x), SLICE("Date")))
            x->res.no_date = true; /* the wire adds it last, so it cannot be among the fields */
    }
    field_ops_apply(o, fs, x);
}
