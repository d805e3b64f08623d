/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words to server blocks. The words are one array which imports are spliced into at the cursor
 * while it is read, since an import may bring anything: words of a line, directives, snippets, or
 * whole sites. Errors carry the place of the word at the cursor and the imports it came through.
 */
#include "base/check.h"
#include "base/log.h"
#include "config/caddyfile.h"
#include "config/parser.h"

static enum err parse_directives(struct parser *p);

/* --- keys --- */

static bool key_has(const struct parser *p, const char *prefix)
{
    return p->block.key_count == 1 && slice_starts(p->block.keys[0].text, slice_from(prefix)) &&
           slice_ends(p->block.keys[0].text, SLICE(")"));
}

/* "(name)" or "&(name)" without its signs. */
static struct slice key_name(const struct parser *p, size_t prefix)
{
    struct slice s = slice_skip(p->block.keys[0].text, prefix);
    if (slice_ends(s, SLICE(")")))
        s.len--;
    return s;
}

static enum err add_key(struct parser *p, struct token t)
{
    struct tokens list = {p->block.keys, p->block.key_count, p->key_cap};
    TRY(tokens_add(p->arena, &list, t));
    p->block.keys = list.items;
    p->block.key_count = list.count;
    p->key_cap = list.cap;
    return OK;
}

static enum err take_address(struct parser *p, bool *expecting)
{
    struct dispenser *d = &p->d;
    struct token t = *dispenser_token(d);
    if (t.text.len == 0)
        return OK;
    *expecting = t.text.ptr[t.text.len - 1] == ',';
    if (*expecting)
        t.text.len--;
    if (slice_find(t.text, ',') != SIZE_MAX)
        return dispenser_err_f(d,
                               "Site addresses cannot contain a comma ',': '" SLICE_FMT
                               "' - put a space after the comma to separate site addresses",
                               SLICE_ARG(t.text));
    return t.text.len > 0 ? add_key(p, t) : OK;
}

static enum err parse_addresses(struct parser *p)
{
    struct dispenser *d = &p->d;
    bool expecting = false;
    for (;;) {
        const struct token *t = dispenser_token(d);
        if (slice_starts(t->text, SLICE("@")))
            return dispenser_err_f(d,
                                   "request matchers may not be defined globally, they must be in "
                                   "a site block; found " SLICE_FMT,
                                   SLICE_ARG(t->text));
        if (slice_is(t->text, "import") && dispenser_is_new_line(d)) {
            TRY(parser_import(p, 0));
            continue;
        }
        if (token_opens(t)) {
            if (expecting)
                return dispenser_err_f(d,
                                       "Expected another address but had '" SLICE_FMT
                                       "' - check for extra comma",
                                       SLICE_ARG(t->text));
            p->block.has_braces = true;
            return OK;
        }
        if (slice_ends(t->text, SLICE("{")) && t->quote == 0)
            return dispenser_err_f(d,
                                   "Site addresses cannot end with a curly brace: '" SLICE_FMT
                                   "' - put a space between the token and the brace",
                                   SLICE_ARG(t->text));
        TRY(take_address(p, &expecting));
        bool has_next = dispenser_next(d);
        if (expecting && !has_next)
            return dispenser_eof_err(d);
        if (!has_next) {
            p->eof = true;
            return OK;
        }
        if (!expecting && dispenser_is_new_line(d))
            return OK;
    }
}

/* --- blocks --- */

static bool looks_like_late_global_options(const struct parser *p)
{
    if (!dispenser_val_is(&p->d, "import") || p->block.key_count == 0)
        return false;
    for (size_t i = 0; i < p->block.key_count; i++)
        if (!slice_starts(p->block.keys[i].text, SLICE("(")) ||
            !slice_ends(p->block.keys[i].text, SLICE(")")))
            return false;
    return true;
}

static enum err want_open_brace(struct parser *p)
{
    if (token_opens(dispenser_token(&p->d)))
        return OK;
    if (looks_like_late_global_options(p))
        return dispenser_err_f(&p->d, "global options block must appear before import directives; "
                                      "move the global options block to the top of the Caddyfile");
    return dispenser_syntax_err(&p->d, "{");
}

/* All words of a block, with its braces or without. */
static enum err block_tokens(struct parser *p, bool braces, struct tokens *out)
{
    struct dispenser *d = &p->d;
    int nesting = 1;
    TRY(want_open_brace(p));
    if (braces)
        TRY(tokens_add(p->arena, out, *dispenser_token(d)));
    while (dispenser_next(d)) {
        const struct token *t = dispenser_token(d);
        if (token_closes(t) && --nesting == 0) {
            if (braces)
                TRY(tokens_add(p->arena, out, *t));
            break;
        }
        if (token_opens(t))
            nesting++;
        TRY(tokens_add(p->arena, out, *t));
    }
    return nesting != 0 ? dispenser_syntax_err(d, "}") : OK;
}

static enum err add_segment(struct parser *p, struct tokens *s)
{
    if (p->block.segment_count == p->segment_cap) {
        size_t cap = p->segment_cap < 8 ? 8 : p->segment_cap * 2;
        struct segment *grown = ARENA_ARRAY(p->arena, struct segment, cap);
        if (p->segment_cap > 0)
            memcpy(grown, p->block.segments, p->segment_cap * sizeof *grown);
        p->block.segments = grown;
        p->segment_cap = cap;
    }
    p->block.segments[p->block.segment_count++] = (struct segment){s->items, s->count};
    return OK;
}

static enum err parse_named_route(struct parser *p)
{
    struct token name = *dispenser_token(&p->d);
    struct tokens all = {0};
    name.text = key_name(p, 2);
    p->block.keys[0] = name;
    p->block.is_named_route = true;
    TRY(tokens_add(p->arena, &all, name));
    TRY(block_tokens(p, true, &all));
    return add_segment(p, &all);
}

static enum err parse_snippet(struct parser *p)
{
    struct slice name = key_name(p, 1);
    if (parser_snippet(p, name) != NULL)
        return dispenser_err_f(&p->d, "redeclaration of previously declared snippet " SLICE_FMT,
                               SLICE_ARG(name));
    struct snippet *s = ARENA_NEW(p->arena, struct snippet);
    s->name = name;
    TRY(block_tokens(p, false, &s->tokens));
    for (size_t i = 0; i < s->tokens.count; i++)
        s->tokens.items[i].snippet = name;
    s->next = p->snippets;
    p->snippets = s;
    p->block.key_count = 0;
    return OK;
}

/* One line, and the block that it opens. */
static enum err parse_directive(struct parser *p)
{
    struct dispenser *d = &p->d;
    struct tokens segment = {0};
    TRY(tokens_add(p->arena, &segment, *dispenser_token(d)));
    while (dispenser_next(d)) {
        const struct token *t = dispenser_token(d);
        if (token_opens(t)) {
            p->nesting++;
            if (!dispenser_is_next_on_new_line(d))
                return dispenser_err_f(d, "Unexpected next token after '{' on same line");
            if (dispenser_is_new_line(d))
                return dispenser_err_f(d, "Unexpected '{' on a new line; did you mean to place the "
                                          "'{' on the previous line?");
        } else if (slice_is(t->text, "{}") && t->quote == 0) {
            if (dispenser_is_next_on_new_line(d))
                return dispenser_err_f(d, "Unexpected '{}' at end of line");
        } else if (dispenser_is_new_line(d) && p->nesting == 0) {
            d->cursor--;
            break;
        } else if (token_closes(t) && p->nesting > 0) {
            p->nesting--;
        } else if (token_closes(t)) {
            return dispenser_err_f(d, "Unexpected '}' because no matching opening brace");
        } else if (slice_is(t->text, "import") && dispenser_is_new_line(d)) {
            TRY(parser_import(p, 1));
            d->cursor--;
            continue;
        }
        TRY(tokens_add(p->arena, &segment, *dispenser_token(d)));
    }
    TRY(add_segment(p, &segment));
    return p->nesting > 0 ? dispenser_eof_err(d) : OK;
}

static enum err parse_directives(struct parser *p)
{
    struct dispenser *d = &p->d;
    p->closed = false;
    while (dispenser_next(d)) {
        if (token_closes(dispenser_token(d))) {
            p->closed = true;
            break;
        }
        if (dispenser_val_is(d, "import")) {
            TRY(parser_import(p, 1));
            d->cursor--;
            continue;
        }
        TRY(parse_directive(p));
    }
    return OK;
}

/* A '}' that closes an inner block is taken for the site's, as in Caddy. */
static void warn_unclosed(const struct token *open)
{
    LOG(LOG_WARN, "caddyfile", "the file ends without the '}' of the block that begins here",
        LOG_STR("file", open->file), LOG_NUM("line", (int64_t)open->line));
}

static enum err parse_contents(struct parser *p)
{
    bool braces = token_opens(dispenser_token(&p->d));
    struct token open = *dispenser_token(&p->d); /* what follows may move it */
    if (!braces) {
        TRY(looks_like_late_global_options(p) ? want_open_brace(p) : OK);
        p->d.cursor--; /* a single site needs no braces */
    }
    TRY(parse_directives(p));
    if (braces && !token_closes(dispenser_token(&p->d)))
        return dispenser_syntax_err(&p->d, "}");
    if (braces && !p->closed)
        warn_unclosed(&open);
    return OK;
}

static enum err parse_one(struct parser *p)
{
    p->block = (struct server_block){0};
    p->key_cap = p->segment_cap = 0;
    if (p->d.count == 0)
        return OK;
    TRY(parse_addresses(p));
    if (p->eof)
        return OK;
    if (key_has(p, "&("))
        return parse_named_route(p);
    if (key_has(p, "("))
        return parse_snippet(p);
    return parse_contents(p);
}

/* --- whole files --- */

static enum err start(struct parser *p, struct arena *arena, struct slice file, struct slice body,
                      struct diag *diag)
{
    struct tokens list = {0};
    struct slice text;
    diag_clear(diag);
    *p = (struct parser){.arena = arena, .diag = diag};
    map_init(&p->graph, false);
    if (caddyfile_replace_env(arena, body, &text) != OK)
        return diag_fail(diag, "larger than 64 MiB after its environment variables were replaced");
    TRY(caddyfile_lex(arena, file, text, &list, diag));
    parser_tokens(p, &list);
    return OK;
}

static enum err say_limit(struct parser *p, enum err e)
{
    if (e != ERR_LIMIT || (p->diag != NULL && p->diag->text[0] != '\0'))
        return e;
    return dispenser_err_f(&p->d, "too many words: more than %zu after imports",
                           CADDYFILE_MAX_TOKENS);
}

static enum err add_block(struct arena *arena, struct server_blocks *out, size_t *cap,
                          const struct server_block *b)
{
    if (out->count == *cap) {
        *cap = *cap < 8 ? 8 : *cap * 2;
        struct server_block *grown = ARENA_ARRAY(arena, struct server_block, *cap);
        if (out->count > 0)
            memcpy(grown, out->items, out->count * sizeof *grown);
        out->items = grown;
    }
    out->items[out->count++] = *b;
    return OK;
}

static enum err parse_all(struct parser *p, struct server_blocks *out)
{
    size_t cap = 0;
    while (dispenser_next(&p->d)) {
        TRY(say_limit(p, parse_one(p)));
        if (p->block.key_count > 0 || p->block.segment_count > 0)
            TRY(add_block(p->arena, out, &cap, &p->block));
        if (p->nesting > 0)
            return dispenser_eof_err(&p->d);
    }
    return OK;
}

static enum err parse(struct arena *arena, struct slice file, struct slice body, bool alone,
                      struct server_blocks *out, struct diag *diag)
{
    struct parser p;
    *out = (struct server_blocks){0};
    enum err e = start(&p, arena, file, body, diag);
    p.alone = alone;
    if (e == OK)
        e = parse_all(&p, out);
    parser_finish(&p);
    return e;
}

enum err caddyfile_parse(struct arena *arena, struct slice file, struct slice body,
                         struct server_blocks *out, struct diag *diag)
{
    return parse(arena, file, body, false, out, diag);
}

enum err caddyfile_parse_alone(struct arena *arena, struct slice file, struct slice body,
                               struct server_blocks *out, struct diag *diag)
{
    return parse(arena, file, body, true, out, diag);
}

enum err caddyfile_parse_first(struct arena *arena, struct slice file, struct slice body,
                               struct server_block *out, struct diag *diag)
{
    struct parser p;
    enum err e = start(&p, arena, file, body, diag);
    if (e == OK) {
        dispenser_next(&p.d);
        e = say_limit(&p, parse_one(&p));
    }
    *out = p.block;
    parser_finish(&p);
    return e;
}

struct slice segment_name(const struct segment *s)
{
    return s->count > 0 ? s->items[0].text : SLICE_NONE;
}

struct dispenser segment_dispenser(const struct segment *s, struct arena *arena, struct diag *diag)
{
    struct dispenser d;
    dispenser_init(&d, s->items, s->count, arena, diag);
    return d;
}

struct dispenser server_block_dispenser(const struct server_block *b, struct slice name,
                                        struct arena *arena, struct diag *diag)
{
    struct tokens all = {0};
    struct dispenser d;
    enum err e = OK;
    for (size_t i = 0; i < b->segment_count && e == OK; i++)
        if (slice_eq(segment_name(&b->segments[i]), name))
            e = tokens_add_all(arena, &all, b->segments[i].items, b->segments[i].count);
    ASSERT(e == OK); /* the segments kept the limit together */
    dispenser_init(&d, all.items, all.count, arena, diag);
    return d;
}
