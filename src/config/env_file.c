/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment on its way into a configuration: "{$NAME}" in a Caddyfile, and files of NAME=value
 * lines that are loaded before it.
 */
#include "config/env_file.h"

#include <stdlib.h>

#include "base/buffer.h"
#include "config/token.h"

/* NULL when it is not set, or cannot be a variable's name at all. */
static const char *look_up(struct arena *arena, struct slice name)
{
    if (memchr(name.ptr, '=', name.len) != NULL || memchr(name.ptr, '\0', name.len) != NULL)
        return NULL;
    return getenv(arena_str(arena, name));
}

enum err caddyfile_replace_env(struct arena *arena, struct slice body, struct slice *out)
{
    size_t open = slice_find_slice(body, SLICE("{$"));
    struct buffer b;
    *out = body;
    if (open == SIZE_MAX)
        return OK;
    buffer_init(&b, CADDYFILE_MAX_SIZE);
    while (open != SIZE_MAX) {
        struct slice inner = slice_skip(body, open + 2), name, fallback;
        size_t close = slice_find(inner, '}');
        if (close == SIZE_MAX)
            break;
        if (close == 0) {
            (void)buffer_append(&b, slice_take(body, open + 3));
        } else {
            slice_cut(slice_take(inner, close), ':', &name, &fallback);
            const char *value = name.len > 0 ? look_up(arena, name) : NULL;
            (void)buffer_append(&b, slice_take(body, open));
            (void)buffer_append(&b, value != NULL ? slice_from(value) : fallback);
        }
        body = slice_skip(inner, close + 1);
        open = slice_find_slice(body, SLICE("{$"));
    }
    (void)buffer_append(&b, body);
    enum err e = b.full ? ERR_LIMIT : OK;
    *out = arena_copy(arena, buffer_slice(&b));
    buffer_deinit(&b);
    return e;
}

/* --- files of variables --- */

struct env_reader {
    struct arena *arena;
    struct slice rest;
    unsigned line;
    struct diag *diag;
};

static bool next_line(struct env_reader *r, struct slice *line)
{
    if (r->rest.len == 0)
        return false;
    slice_cut(r->rest, '\n', line, &r->rest);
    if (line->len > 0 && line->ptr[line->len - 1] == '\r')
        line->len--;
    r->line++;
    return true;
}

static struct slice unescape_quote(struct arena *arena, struct slice s, char quote)
{
    char *out = arena_alloc(arena, s.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '\\' && i + 1 < s.len && s.ptr[i + 1] == quote)
            i++;
        out[n++] = s.ptr[i];
    }
    return slice_of(out, n);
}

/* A quoted value goes on until a line that ends in the quote. */
static struct slice quoted_value(struct env_reader *r, struct slice line, struct slice value)
{
    char quote = value.ptr[0], escaped[2] = {'\\', quote};
    struct slice sign = slice_of(&quote, 1);
    while (!slice_ends(line, sign) || slice_ends(line, slice_of(escaped, 2))) {
        value = unescape_quote(r->arena, value, quote);
        if (!next_line(r, &line))
            break;
        line = unescape_quote(r->arena, line, quote);
        value = arena_join(r->arena, (struct slice[]){value, SLICE("\n"), line}, 3);
    }
    if (slice_starts(value, sign))
        value = slice_skip(value, 1);
    if (slice_ends(value, sign))
        value.len--;
    return value;
}

static enum err read_variable(struct env_reader *r, struct slice line, struct env_var *v)
{
    if (!slice_cut(line, '=', &v->name, &v->value))
        return diag_fail(r->diag, "can't parse line %u; line should be in KEY=VALUE format", r->line);
    if (slice_starts(v->name, SLICE("export ")))
        v->name = slice_skip(v->name, 7);
    if (v->name.len == 0)
        return diag_fail(r->diag, "missing or empty key on line %u", r->line);
    if (slice_find(v->name, ' ') != SIZE_MAX)
        return diag_fail(r->diag, "invalid key on line %u: contains whitespace: " SLICE_FMT, r->line,
                         SLICE_ARG(v->name));
    if (v->value.len > 0 && (v->value.ptr[0] == ' ' || v->value.ptr[0] == '\t'))
        return diag_fail(r->diag, "invalid value on line %u: whitespace before value: '" SLICE_FMT "'",
                         r->line, SLICE_ARG(v->value));
    if (slice_cut(v->value, '#', &v->value, &(struct slice){0}))
        while (v->value.len > 0 && strchr(" \t", v->value.ptr[v->value.len - 1]) != NULL)
            v->value.len--;
    if (v->value.len > 0 && (v->value.ptr[0] == '"' || v->value.ptr[0] == '\''))
        v->value = quoted_value(r, line, v->value);
    return OK;
}

static void put_variable(struct arena *arena, struct env_var **out, size_t *count, struct env_var v)
{
    for (size_t i = 0; i < *count; i++)
        if (slice_eq((*out)[i].name, v.name)) {
            (*out)[i].value = v.value;
            return;
        }
    if ((*count & (*count + 1)) == 0) { /* 0, 1, 3, 7 …: room for twice as many */
        struct env_var *grown = ARENA_ARRAY(arena, struct env_var, *count * 2 + 1);
        if (*count > 0)
            memcpy(grown, *out, *count * sizeof *grown);
        *out = grown;
    }
    (*out)[(*count)++] = v;
}

enum err env_file_parse(struct arena *arena, struct slice text, struct env_var **out, size_t *count,
                        struct diag *diag)
{
    struct env_reader r = {.arena = arena, .rest = text, .diag = diag};
    struct slice line;
    struct env_var v;
    *out = NULL;
    *count = 0;
    while (next_line(&r, &line)) {
        line = slice_trim(line);
        if (line.len == 0 || line.ptr[0] == '#')
            continue;
        TRY(read_variable(&r, line, &v));
        put_variable(arena, out, count, v);
    }
    return OK;
}
