/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building JSON with an owner, and reading the one-line options that most directives consist of.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "adapter/adapt.h"
#include "base/check.h"
#include "base/mem.h"
#include "base/text.h"
#include "config/jsonx.h"

void adapt_origin(struct adapt *a, struct slice path, struct slice name, struct slice file,
                  unsigned line)
{
    if (a->origins != NULL)
        origins_add(a->origins, path, name, file, line);
}

json_t *keep(struct adapt *a, json_t *value)
{
    if (value == NULL)
        fatal("out of memory");
    struct kept *k = ARENA_NEW(a->arena, struct kept);
    k->value = value;
    k->next = a->kept;
    a->kept = k;
    return value;
}

json_t *j_object(struct adapt *a)
{
    return keep(a, json_object());
}

json_t *j_array(struct adapt *a)
{
    return keep(a, json_array());
}

json_t *j_text(struct adapt *a, struct slice s)
{
    return keep(a, jsonx_string(s));
}

json_t *j_int(struct adapt *a, int64_t value)
{
    return keep(a, json_integer(value));
}

json_t *j_strings(struct adapt *a, const struct slice *list, size_t count)
{
    json_t *array = j_array(a);
    for (size_t i = 0; i < count; i++)
        j_append_text(a, array, list[i]);
    return array;
}

void j_set(struct adapt *a, json_t *object, const char *key, json_t *value)
{
    j_set_key(a, object, slice_from(key), value);
}

void j_set_key(struct adapt *a, json_t *object, struct slice key, json_t *value)
{
    if (json_object_set(object, arena_str(a->arena, key), value) != 0)
        fatal("a JSON member cannot be set");
}

json_t *j_get(const json_t *object, struct slice key)
{
    char small[256], *text = small;
    if (key.len >= sizeof small)
        text = slice_dup(key);
    else if (key.len > 0)
        memcpy(small, key.ptr, key.len);
    if (text == small)
        small[key.len] = '\0';
    json_t *value = json_object_get(object, text);
    if (text != small)
        free(text);
    return value;
}

void j_put_text(struct adapt *a, json_t *object, const char *key, struct slice value)
{
    if (value.len > 0)
        j_set(a, object, key, j_text(a, value));
}

void j_put_weak(struct adapt *a, json_t *object, const char *key, struct slice s)
{
    int64_t number;
    if (slice_is(s, "true") || slice_is(s, "false"))
        j_set(a, object, key, slice_is(s, "true") ? json_true() : json_false());
    else if (slice_to_i64(s, &number))
        j_set(a, object, key, j_int(a, number));
    else
        j_put_text(a, object, key, s);
}

void j_put_int(struct adapt *a, json_t *object, const char *key, int64_t value)
{
    if (value != 0)
        j_set(a, object, key, j_int(a, value));
}

void j_put_bool(struct adapt *a, json_t *object, const char *key, bool value)
{
    if (value)
        j_set(a, object, key, json_true());
}

void j_put_strings(struct adapt *a, json_t *object, const char *key, const struct slice *list,
                   size_t count)
{
    if (count > 0)
        j_set(a, object, key, j_strings(a, list, count));
}

void j_append(json_t *array, json_t *value)
{
    if (json_array_append(array, value) != 0)
        fatal("out of memory");
}

void j_append_text(struct adapt *a, json_t *array, struct slice s)
{
    j_append(array, j_text(a, s));
}

json_t *j_at(struct adapt *a, json_t *object, const char *path)
{
    struct slice rest = slice_from(path), part;
    while (rest.len > 0) {
        slice_cut(rest, '.', &part, &rest);
        json_t *inner = j_get(object, part);
        if (inner == NULL) {
            inner = j_object(a);
            j_set_key(a, object, part, inner);
        }
        object = inner;
    }
    return object;
}

json_t *j_module(struct adapt *a, const char *key, const char *name, json_t *object)
{
    json_t *copy = keep(a, json_copy(object));
    j_set(a, copy, key, j_text(a, slice_from(name)));
    return keep(a, jsonx_sorted(copy));
}

json_t *j_ordered(struct adapt *a, json_t *object, const char *const *keys)
{
    json_t *out = j_object(a), *value;
    const char *key;
    for (; *keys != NULL; keys++)
        if ((value = json_object_get(object, *keys)) != NULL)
            j_set(a, out, *keys, value);
    json_object_foreach(object, key, value)
        if (json_object_get(out, key) == NULL)
            j_set(a, out, key, value);
    return out;
}

json_t *j_sorted(struct adapt *a, json_t *value)
{
    return keep(a, jsonx_sorted(value));
}

static int by_key(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

json_t *j_by_name(struct adapt *a, json_t *object)
{
    size_t count = 0;
    const char *key, **keys = ARENA_ARRAY(a->arena, const char *, json_object_size(object) + 1);
    json_t *value;
    json_object_foreach(object, key, value)
        keys[count++] = key;
    qsort(keys, count, sizeof *keys, by_key);
    return j_ordered(a, object, keys);
}

static void swap_bytes(char *x, char *y, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char t = x[i];
        x[i] = y[i];
        y[i] = t;
    }
}

static void insertion_sort(char *items, size_t count, size_t size,
                           bool (*before)(const void *, const void *, const void *),
                           const void *context)
{
    for (size_t i = 1; i < count; i++)
        for (char *at = items + i * size; at > items && before(at, at - size, context); at -= size)
            swap_bytes(at, at - size, size);
}

void sort_stable(void *base, size_t count, size_t size,
                 bool (*before)(const void *, const void *, const void *), const void *context)
{
    enum { BLOCK = 20 };
    char *items = base;
    for (size_t from = 0; from < count; from += BLOCK)
        insertion_sort(items + from * size, count - from < BLOCK ? count - from : BLOCK, size,
                       before, context);
    if (count <= BLOCK)
        return;
    char *merged = mem_alloc(count * size);
    for (size_t width = BLOCK; width < count; width *= 2) {
        size_t n = 0;
        for (size_t from = 0; from < count; from += 2 * width) {
            size_t middle = from + width < count ? from + width : count, x = from, y = middle;
            size_t end = from + 2 * width < count ? from + 2 * width : count;
            while (x < middle || y < end) {
                bool right = x == middle ||
                             (y < end && before(items + y * size, items + x * size, context));
                memcpy(merged + n++ * size, items + (right ? y++ : x++) * size, size);
            }
        }
        memcpy(items, merged, count * size);
    }
    mem_free(merged);
}

void j_add_to_list(struct adapt *a, json_t *object, struct slice key, json_t *value)
{
    json_t *list = j_get(object, key);
    if (!json_is_array(list)) {
        list = j_array(a);
        j_set_key(a, object, key, list);
    }
    j_append(list, value);
}

static bool is_token_char(char c)
{
    char lower = ascii_lower(c);
    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

struct slice canonical_field(struct arena *arena, struct slice name)
{
    bool upper = true;
    for (size_t i = 0; i < name.len; i++)
        if (!is_token_char(name.ptr[i]))
            return name;
    char *out = arena_alloc(arena, name.len + 1);
    for (size_t i = 0; i < name.len; i++) {
        char c = ascii_lower(name.ptr[i]);
        out[i] = upper && c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
        upper = c == '-';
    }
    return slice_of(out, name.len);
}

void add_ranges(struct adapt *a, json_t *array, struct slice word)
{
    static const char *const private_ranges[] = {"192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8",
                                                 "127.0.0.1/8", "fd00::/8", "::1"};
    if (!slice_is(word, "private_ranges")) {
        j_append_text(a, array, word);
        return;
    }
    for (size_t i = 0; i < sizeof private_ranges / sizeof *private_ranges; i++)
        j_append_text(a, array, slice_from(private_ranges[i]));
}

void adapt_warn(struct adapt *a, const struct token *t, struct slice directive, const char *message)
{
    json_t *w = j_object(a);
    j_put_text(a, w, "file", t->file);
    j_put_int(a, w, "line", t->line);
    j_put_text(a, w, "directive", directive);
    j_put_text(a, w, "message", slice_from(message));
    j_append(a->warnings, w);
}

void diag_prefix(struct adapt *a, const char *format, ...)
{
    char text[512], *old = arena_str(a->arena, slice_from(a->diag->text));
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    diag_say(a->diag, "%s: %s", text, old);
}

enum err no_module(const struct dispenser *d, const char *space, struct slice name)
{
    return dispenser_err_f(d,
                           "getting module named '%s." SLICE_FMT "': module not registered: %s."
                           SLICE_FMT, space, SLICE_ARG(name), space, SLICE_ARG(name));
}

/* --- numbers --- */

enum err read_int(struct dispenser *d, struct slice s, const char *what, int64_t *out)
{
    if (slice_to_i64(s, out))
        return OK;
    return dispenser_err_f(d, "%s '" SLICE_FMT "': strconv.Atoi: parsing \"" SLICE_FMT
                           "\": invalid syntax", what, SLICE_ARG(s), SLICE_ARG(s));
}

static bool is_bare_number(struct slice s)
{
    bool digits = false;
    for (size_t i = 0; i < s.len; i++) {
        bool digit = s.ptr[i] >= '0' && s.ptr[i] <= '9';
        if (!digit && s.ptr[i] != '.' && (i > 0 || (s.ptr[i] != '-' && s.ptr[i] != '+')))
            return false;
        digits |= digit;
    }
    return digits;
}

/* As Go says it, and what is to be done about it behind the place. */
enum err read_duration(struct dispenser *d, struct slice s, const char *what, int64_t *ns)
{
    if (duration_parse(s, ns) == OK)
        return OK;
    bool bare = is_bare_number(s);
    enum err e = dispenser_err_f(d, "%s '" SLICE_FMT "': time: %s duration \"" SLICE_FMT "\"", what,
                                 SLICE_ARG(s), bare ? "missing unit in" : "invalid", SLICE_ARG(s));
    if (bare)
        diag_append(d->diag, " - a duration has a unit, as in " SLICE_FMT "s", SLICE_ARG(s));
    else
        diag_append(d->diag, " - a duration is written as 500ms, 30s, 1m30s or 12h");
    return e;
}

enum err bare_duration(struct adapt *a, struct dispenser *d, int64_t *ns)
{
    if (duration_parse(dispenser_val(d), ns) == OK)
        return OK;
    return diag_fail(a->diag, "time: invalid duration \"" SLICE_FMT "\"",
                     SLICE_ARG(dispenser_val(d)));
}

enum err more_words(struct adapt *a, struct dispenser *d, json_t *object, const char *key)
{
    struct slice *args;
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 0)
        return dispenser_arg_err(d);
    for (size_t i = 0; i < count; i++)
        j_add_to_list(a, object, slice_from(key), j_text(a, args[i]));
    return OK;
}

enum err read_size(struct dispenser *d, struct slice s, const char *what, int64_t *out)
{
    uint64_t bytes;
    if (size_parse(s, &bytes) == OK && bytes <= INT64_MAX) {
        *out = (int64_t)bytes;
        return OK;
    }
    return dispenser_err_f(d, "%s '" SLICE_FMT "': not a size such as 10MB or 512KiB", what,
                           SLICE_ARG(s));
}

static enum err option_number(struct adapt *a, struct dispenser *d, const struct option *o,
                              int64_t *value)
{
    const char *what = o->what != NULL ? o->what : "bad value";
    (void)a;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice s = dispenser_val(d);
    switch (o->kind) {
    case OPTION_INT:
        return read_int(d, s, what, value);
    case OPTION_DURATION:
        return read_duration(d, s, what, value);
    case OPTION_BYTES:
        *value = -1;
        return slice_is(s, "unlimited") ? OK : read_size(d, s, what, value);
    default:
        return read_size(d, s, what, value);
    }
}

static enum err option_value(struct adapt *a, struct dispenser *d, const struct option *o,
                             json_t *parent, const char *key)
{
    int64_t number;
    struct slice *list;
    switch (o->kind) {
    case OPTION_TEXT:
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_put_text(a, parent, key, dispenser_val(d));
        return OK;
    case OPTION_TEXTS: {
        size_t count = dispenser_remaining_args(d, &list);
        if (count == 0)
            return dispenser_arg_err(d);
        j_put_strings(a, parent, key, list, count);
        return OK;
    }
    case OPTION_FLAG:
    case OPTION_OFF:
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_set(a, parent, key, o->kind == OPTION_FLAG ? json_true() : json_false());
        return OK;
    default:
        TRY(option_number(a, d, o, &number));
        j_put_int(a, parent, key, number);
        return OK;
    }
}

enum err option_read(struct adapt *a, struct dispenser *d, const struct option *table,
                     json_t *object, bool *known)
{
    *known = false;
    for (const struct option *o = table; o->name != NULL; o++) {
        if (!dispenser_val_is(d, o->name))
            continue;
        const char *dot = strrchr(o->path, '.');
        json_t *parent = object;
        if (dot != NULL)
            parent = j_at(a, object,
                          arena_str(a->arena, slice_of(o->path, (size_t)(dot - o->path))));
        *known = true;
        return option_value(a, d, o, parent, dot != NULL ? dot + 1 : o->path);
    }
    return OK;
}
