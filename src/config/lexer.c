/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to words: one pass over the characters with a state of a few flags, as the language is
 * defined by what its users' files rely on. A word ends at white space; one that begins with " or
 * ` ends at the same sign; `<<MARK` at a line's end begins a heredoc. A backslash keeps the next
 * line end, " or heredoc sign from its meaning, and stands for itself before all else.
 */
#include "config/token.h"

#include "base/buffer.h"
#include "base/text.h"

struct lexer {
    struct arena *arena;
    struct diag *diag;
    struct slice file;
    struct slice rest; /* not read yet */
    size_t line_start; /* where in the body the current line begins */
    size_t at;         /* bytes read */
    struct token token;
    struct slice marker;
    struct buffer val;
    unsigned line;
    unsigned skipped_lines;
    bool comment, quoted, bt_quoted, in_heredoc, heredoc_escaped, escaped;
};

enum step { STEP_MORE, STEP_TOKEN, STEP_FAILED };

static void put_rune(struct lexer *l, uint32_t rune)
{
    char utf8[4];
    size_t n = utf8_encode(rune, utf8);
    (void)buffer_append(&l->val, slice_of(utf8, n));
}

static enum step made(struct lexer *l, char quote)
{
    l->token.text = arena_copy(l->arena, buffer_slice(&l->val));
    l->token.quote = quote;
    l->token.heredoc_marker = l->marker;
    return STEP_TOKEN;
}

static enum step failed_at(struct lexer *l, unsigned line)
{
    diag_place(l->diag, l->file, line, 0);
    return STEP_FAILED;
}

/* Behind "<<…", which may become a heredoc when the line ends. */
static enum step heredoc_opening(struct lexer *l, uint32_t rune)
{
    struct slice val = buffer_slice(&l->val);
    if (rune == ' ')
        return made(l, 0);
    if (rune == '\r')
        return STEP_MORE;
    if (rune != '\n') {
        put_rune(l, rune);
        return STEP_MORE;
    }
    if (val.len == 2) {
        diag_say(l->diag,
                 "missing opening heredoc marker on line #%u; must contain only alphanumeric "
                 "characters, dashes and underscores; got empty string",
                 l->line);
        return failed_at(l, l->line);
    }
    if (val.ptr[2] == '<') {
        diag_say(l->diag,
                 "too many '<' for heredoc on line #%u; only use two, for example <<END", l->line);
        return failed_at(l, l->line);
    }
    if (!heredoc_marker_ok(slice_skip(val, 2))) {
        diag_say(l->diag,
                 "heredoc marker on line #%u must contain only alphanumeric characters, dashes "
                 "and underscores; got '" SLICE_FMT "'",
                 l->line, SLICE_ARG(slice_skip(val, 2)));
        return failed_at(l, l->line);
    }
    l->marker = arena_copy(l->arena, slice_skip(val, 2));
    l->in_heredoc = true;
    l->skipped_lines++;
    buffer_clear(&l->val);
    return STEP_MORE;
}

/* The indentation before the closing marker comes off every line. */
static enum step heredoc_close(struct lexer *l)
{
    struct slice all = buffer_slice(&l->val), line;
    size_t last = slice_find_last(all, '\n');
    size_t body_len = last == SIZE_MAX ? 0 : last + 1;
    struct slice body = slice_take(all, body_len);
    struct slice padding = slice_skip(slice_take(all, all.len - l->marker.len), body_len);
    struct buffer out;
    unsigned number = 0;
    buffer_init(&out, CADDYFILE_MAX_SIZE);
    while (body.len > 0) {
        slice_cut(body, '\n', &line, &body);
        if (line.len > 0 && !slice_is(line, "\r")) {
            if (!slice_starts(line, padding)) {
                while (line.len > 0 && line.ptr[line.len - 1] == '\r')
                    line.len--;
                diag_say(l->diag,
                         "mismatched leading whitespace in heredoc <<" SLICE_FMT
                         " on line #%u [" SLICE_FMT "], expected whitespace [" SLICE_FMT
                         "] to match the closing marker",
                         SLICE_ARG(l->marker), l->line + number + 1, SLICE_ARG(line),
                         SLICE_ARG(padding));
                buffer_deinit(&out);
                return failed_at(l, l->line + number + 1);
            }
            line = slice_skip(line, padding.len);
            for (size_t i = 0; i < line.len; i++)
                if (line.ptr[i] != '\r')
                    (void)buffer_append_byte(&out, line.ptr[i]);
        }
        (void)buffer_append_byte(&out, '\n');
        number++;
    }
    if (out.len > 0)
        out.len--;
    buffer_deinit(&l->val);
    l->val = out;
    l->line += l->skipped_lines;
    l->skipped_lines = 0;
    return made(l, '<');
}

static enum step heredoc_text(struct lexer *l, uint32_t rune)
{
    put_rune(l, rune);
    if (rune == '\n')
        l->skipped_lines++;
    return slice_ends(buffer_slice(&l->val), l->marker) ? heredoc_close(l) : STEP_MORE;
}

static enum step quoted_text(struct lexer *l, uint32_t rune)
{
    if (l->quoted && l->escaped) {
        if (rune != '"')
            put_rune(l, '\\');
        l->escaped = false;
    } else if ((l->quoted && rune == '"') || (l->bt_quoted && rune == '`')) {
        return made(l, (char)rune);
    }
    if (rune == '\n') {
        l->line += 1 + l->skipped_lines;
        l->skipped_lines = 0;
    }
    put_rune(l, rune);
    return STEP_MORE;
}

static enum step white_space(struct lexer *l, uint32_t rune)
{
    if (rune == '\r')
        return STEP_MORE;
    if (rune == '\n') {
        if (l->escaped) {
            l->skipped_lines++;
            l->escaped = false;
        } else {
            l->line += 1 + l->skipped_lines;
            l->skipped_lines = 0;
        }
        l->comment = false;
    }
    return l->val.len > 0 ? made(l, 0) : STEP_MORE;
}

static enum step bare_text(struct lexer *l, uint32_t rune)
{
    if (rune == '#' && l->val.len == 0)
        l->comment = true;
    if (l->comment)
        return STEP_MORE;
    if (l->val.len == 0) {
        l->token = (struct token){.file = l->file, .line = l->line,
                                  .column = (unsigned)(l->at - l->line_start)};
        if (rune == '"' || rune == '`') {
            *(rune == '"' ? &l->quoted : &l->bt_quoted) = true;
            return STEP_MORE;
        }
    }
    if (l->escaped) {
        if (rune == '<')
            l->heredoc_escaped = true;
        else
            put_rune(l, '\\');
        l->escaped = false;
    }
    put_rune(l, rune);
    return STEP_MORE;
}

static enum step take(struct lexer *l, uint32_t rune)
{
    bool in_quotes = l->quoted || l->bt_quoted;
    if (!in_quotes && !l->in_heredoc && !l->heredoc_escaped &&
        slice_starts(buffer_slice(&l->val), SLICE("<<")))
        return heredoc_opening(l, rune);
    if (l->in_heredoc)
        return heredoc_text(l, rune);
    if (!l->escaped && !l->bt_quoted && rune == '\\') {
        l->escaped = true;
        return STEP_MORE;
    }
    if (in_quotes)
        return quoted_text(l, rune);
    return rune_is_space(rune) ? white_space(l, rune) : bare_text(l, rune);
}

static enum step at_end(struct lexer *l)
{
    if (l->val.len == 0)
        return STEP_MORE;
    if (!l->in_heredoc)
        return made(l, 0);
    diag_say(l->diag,
             "incomplete heredoc <<" SLICE_FMT " on line #%u, expected ending marker " SLICE_FMT,
             SLICE_ARG(l->marker), l->line + l->skipped_lines, SLICE_ARG(l->marker));
    return failed_at(l, l->line + l->skipped_lines);
}

/* STEP_MORE: the text is at its end. */
static enum step next_token(struct lexer *l)
{
    buffer_clear(&l->val);
    l->marker = SLICE_NONE;
    l->comment = l->quoted = l->bt_quoted = l->in_heredoc = false;
    l->heredoc_escaped = l->escaped = false;
    while (l->rest.len > 0) {
        uint32_t rune;
        size_t n = rune_next(l->rest, &rune);
        l->rest = slice_skip(l->rest, n);
        l->at++;
        enum step s = take(l, rune);
        l->at += n - 1;
        if (rune == '\n')
            l->line_start = l->at;
        if (s != STEP_MORE)
            return s;
    }
    return at_end(l);
}

enum err caddyfile_lex(struct arena *arena, struct slice file, struct slice body,
                       struct tokens *out, struct diag *diag)
{
    struct lexer l = {.arena = arena, .diag = diag, .file = file, .rest = body, .line = 1};
    enum step s;
    enum err e = OK;
    if (body.len == 0) {
        diag_place(diag, file, 0, 0);
        return diag_fail(diag, "EOF");
    }
    if (body.len > CADDYFILE_MAX_SIZE)
        return ERR_LIMIT;
    if (slice_starts(l.rest, SLICE("\xef\xbb\xbf"))) {
        l.rest = slice_skip(l.rest, 3);
        l.at = l.line_start = 3;
    }
    buffer_init(&l.val, 3 * CADDYFILE_MAX_SIZE);
    while (e == OK && (s = next_token(&l)) == STEP_TOKEN) {
        e = tokens_add(arena, out, l.token);
        if (e == ERR_LIMIT) {
            diag_place(diag, file, l.token.line, l.token.column);
            diag_say(diag, "too many words: more than %zu", CADDYFILE_MAX_TOKENS);
        }
    }
    buffer_deinit(&l.val);
    return e != OK ? e : s == STEP_FAILED ? ERR_INVALID : OK;
}
