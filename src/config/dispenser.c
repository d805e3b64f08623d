/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cursor that every directive reads its words with. What counts as the same line is decided in
 * one place (token_on_new_line), so that imported words behave as if they stood in their own file.
 */
#include "config/dispenser.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/text.h"
#include "config/jsonx.h"

void dispenser_init(struct dispenser *d, struct token *tokens, size_t count, struct arena *arena,
                    struct diag *diag)
{
    *d = (struct dispenser){.tokens = tokens, .count = count, .cursor = -1, .arena = arena,
                            .diag = diag};
}

void dispenser_reset(struct dispenser *d)
{
    d->cursor = -1;
    d->nesting = 0;
}

bool dispenser_next(struct dispenser *d)
{
    if (d->cursor + 1 >= (ptrdiff_t)d->count)
        return false;
    d->cursor++;
    return true;
}

bool dispenser_prev(struct dispenser *d)
{
    if (d->cursor < 0)
        return false;
    d->cursor--;
    return d->cursor > -1;
}

static bool step_if(struct dispenser *d, bool other_line)
{
    if (d->cursor < 0) {
        d->cursor++;
        return true;
    }
    if (d->cursor + 1 >= (ptrdiff_t)d->count ||
        token_on_new_line(&d->tokens[d->cursor], &d->tokens[d->cursor + 1]) != other_line)
        return false;
    d->cursor++;
    return true;
}

bool dispenser_next_arg(struct dispenser *d)
{
    if (!step_if(d, false))
        return false;
    if (token_opens(dispenser_token(d))) {
        d->cursor--;
        return false;
    }
    return true;
}

bool dispenser_next_line(struct dispenser *d)
{
    return step_if(d, true);
}

bool dispenser_next_block(struct dispenser *d, int initial)
{
    if (d->nesting > initial) {
        if (!dispenser_next(d))
            return false;
        if (token_closes(dispenser_token(d)) && !step_if(d, false))
            d->nesting--;
        else if (token_opens(dispenser_token(d)) && !step_if(d, false))
            d->nesting++;
        return d->nesting > initial;
    }
    if (!step_if(d, false))
        return false;
    if (!token_opens(dispenser_token(d))) {
        d->cursor--;
        return false;
    }
    dispenser_next(d);
    if (token_closes(dispenser_token(d)))
        return false;
    d->nesting++;
    return true;
}

int dispenser_nesting(const struct dispenser *d)
{
    return d->nesting;
}

const struct token *dispenser_token(const struct dispenser *d)
{
    static const struct token none;
    return d->cursor < 0 || d->cursor >= (ptrdiff_t)d->count ? &none : &d->tokens[d->cursor];
}

struct slice dispenser_val(const struct dispenser *d)
{
    return dispenser_token(d)->text;
}

struct slice dispenser_val_raw(const struct dispenser *d)
{
    const struct token *t = dispenser_token(d);
    if (t->quote == 0 || t->quote == '<')
        return t->text;
    struct slice quote = slice_of(&t->quote, 1);
    return arena_join(d->arena, (struct slice[]){quote, t->text, quote}, 3);
}

struct slice dispenser_file(const struct dispenser *d)
{
    return dispenser_token(d)->file;
}

unsigned dispenser_line(const struct dispenser *d)
{
    return dispenser_token(d)->line;
}

bool dispenser_val_is(const struct dispenser *d, const char *text)
{
    return slice_is(dispenser_val(d), text);
}

/* A float64 as Go's ParseFloat reads the decimal forms (no hexadecimal, no infinities: neither can
 * be written in JSON). */
static bool parse_float(struct arena *arena, struct slice s, double *out)
{
    if (s.len == 0 || s.len > 64)
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (strchr("0123456789+-.eE", s.ptr[i]) == NULL || s.ptr[i] == '\0')
            return false;
    char *end, *text = arena_str(arena, s);
    errno = 0;
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out);
}

json_t *dispenser_scalar(const struct dispenser *d)
{
    const struct token *t = dispenser_token(d);
    int64_t whole;
    double real;
    if (d->cursor < 0 || d->cursor >= (ptrdiff_t)d->count)
        return json_null();
    if (t->quote != 0)
        return jsonx_string(t->text);
    if (slice_to_i64(t->text, &whole))
        return json_integer(whole);
    if (parse_float(d->arena, t->text, &real))
        return json_real(real);
    static const char *const yes[] = {"t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"f", "F", "false", "FALSE", "False"};
    for (size_t i = 0; i < 5; i++) {
        if (slice_is(t->text, yes[i]))
            return json_true();
        if (slice_is(t->text, no[i]))
            return json_false();
    }
    return jsonx_string(t->text);
}

bool dispenser_args_n(struct dispenser *d, struct slice **targets, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!dispenser_next_arg(d))
            return false;
        *targets[i] = dispenser_val(d);
    }
    return true;
}

bool dispenser_all_args_n(struct dispenser *d, struct slice **targets, size_t count)
{
    if (!dispenser_args_n(d, targets, count))
        return false;
    if (!dispenser_next_arg(d))
        return true;
    dispenser_prev(d);
    return false;
}

size_t dispenser_count_remaining_args(struct dispenser *d)
{
    ptrdiff_t before = d->cursor;
    size_t count = 0;
    while (dispenser_next_arg(d))
        count++;
    d->cursor = before;
    return count;
}

size_t dispenser_remaining_args(struct dispenser *d, struct slice **out)
{
    size_t count = dispenser_count_remaining_args(d);
    *out = count > 0 ? ARENA_ARRAY(d->arena, struct slice, count) : NULL;
    for (size_t i = 0; i < count && dispenser_next_arg(d); i++)
        (*out)[i] = dispenser_val(d);
    return count;
}

size_t dispenser_remaining_args_raw(struct dispenser *d, struct slice **out)
{
    size_t count = dispenser_count_remaining_args(d);
    *out = count > 0 ? ARENA_ARRAY(d->arena, struct slice, count) : NULL;
    for (size_t i = 0; i < count && dispenser_next_arg(d); i++)
        (*out)[i] = dispenser_val_raw(d);
    return count;
}

size_t dispenser_remaining_args_tokens(struct dispenser *d, struct token **out)
{
    size_t count = dispenser_count_remaining_args(d);
    *out = count > 0 ? ARENA_ARRAY(d->arena, struct token, count) : NULL;
    for (size_t i = 0; i < count && dispenser_next_arg(d); i++)
        (*out)[i] = *dispenser_token(d);
    return count;
}

/* A list of copies is never longer than what it copies from, which kept the limit. */
static void keep(struct dispenser *d, struct tokens *list)
{
    enum err e = tokens_add(d->arena, list, *dispenser_token(d));
    ASSERT(e == OK);
}

struct tokens dispenser_next_segment(struct dispenser *d)
{
    struct tokens list = {0};
    bool opened = false;
    int nesting;
    keep(d, &list);
    while (dispenser_next_arg(d))
        keep(d, &list);
    nesting = d->nesting;
    while (dispenser_next_block(d, nesting)) {
        if (!opened) {
            dispenser_prev(d);
            keep(d, &list);
            dispenser_next(d);
            opened = true;
        }
        keep(d, &list);
    }
    if (opened)
        keep(d, &list);
    return list;
}

struct dispenser dispenser_new_from_next_segment(struct dispenser *d)
{
    struct tokens list = dispenser_next_segment(d);
    struct dispenser out;
    dispenser_init(&out, list.items, list.count, d->arena, d->diag);
    out.user = d->user;
    return out;
}

void dispenser_delete(struct dispenser *d)
{
    dispenser_delete_n(d, 1);
}

void dispenser_delete_n(struct dispenser *d, size_t n)
{
    if (n == 0 || d->cursor < (ptrdiff_t)n - 1 || d->cursor >= (ptrdiff_t)d->count)
        return;
    size_t from = (size_t)d->cursor + 1 - n;
    memmove(d->tokens + from, d->tokens + from + n, (d->count - from - n) * sizeof *d->tokens);
    d->count -= n;
    d->cursor -= (ptrdiff_t)n;
}

bool dispenser_is_new_line(const struct dispenser *d)
{
    if (d->cursor < 1)
        return true;
    if (d->cursor >= (ptrdiff_t)d->count)
        return false;
    return token_on_new_line(&d->tokens[d->cursor - 1], &d->tokens[d->cursor]);
}

bool dispenser_is_next_on_new_line(const struct dispenser *d)
{
    if (d->cursor < 0)
        return false;
    if (d->cursor + 1 >= (ptrdiff_t)d->count)
        return true;
    return token_on_new_line(&d->tokens[d->cursor], &d->tokens[d->cursor + 1]);
}

/* --- errors --- */

static void append_chain(struct diag *diag, const struct import_chain *chain, bool *first)
{
    if (chain == NULL)
        return;
    /* Outer ones first; a chain is as deep as imports nest, which the parser limits. */
    append_chain(diag, chain->outer, first);
    diag_append(diag, "%s" SLICE_FMT, *first ? "" : "','", SLICE_ARG(chain->text));
    *first = false;
}

static void place(const struct dispenser *d)
{
    const struct token *t = dispenser_token(d);
    diag_place(d->diag, t->file, t->line, t->column);
}

enum err dispenser_wrap_err(const struct dispenser *d, enum err e)
{
    const struct token *t = dispenser_token(d);
    bool first = true;
    place(d);
    diag_append(d->diag, ", at " SLICE_FMT ":%u", SLICE_ARG(t->file), t->line);
    if (t->imports != NULL) {
        diag_append(d->diag, " import chain ['");
        append_chain(d->diag, t->imports, &first);
        diag_append(d->diag, "']");
    }
    return e;
}

enum err dispenser_err_f(const struct dispenser *d, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    diag_say(d->diag, SLICE_FMT, SLICE_ARG(utf8_whole(slice_from(text)))); /* it may have been cut */
    return dispenser_wrap_err(d, ERR_INVALID);
}

enum err dispenser_arg_err(const struct dispenser *d)
{
    if (token_opens(dispenser_token(d)))
        return dispenser_err_f(d, "unexpected token '{', expecting argument");
    return dispenser_err_f(d, "wrong argument count or unexpected line ending after '" SLICE_FMT "'",
                           SLICE_ARG(dispenser_val(d)));
}

enum err dispenser_syntax_err(const struct dispenser *d, const char *expected)
{
    const struct token *t = dispenser_token(d);
    bool first = true;
    place(d);
    diag_say(d->diag,
             "syntax error: unexpected token '" SLICE_FMT "', expecting '%s', at " SLICE_FMT
             ":%u import chain: ['",
             SLICE_ARG(t->text), expected, SLICE_ARG(t->file), t->line);
    append_chain(d->diag, t->imports, &first);
    diag_append(d->diag, "']");
    return ERR_INVALID;
}

enum err dispenser_eof_err(const struct dispenser *d)
{
    return dispenser_err_f(d, "unexpected EOF");
}

enum err dispenser_unrecognized(const struct dispenser *d)
{
    return dispenser_err_f(d, "unrecognized subdirective " SLICE_FMT, SLICE_ARG(dispenser_val(d)));
}
