/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The formatter owns white space and braces, and copies all else as it stands: words, quotes,
 * comments, heredocs. One character of input at a time; what a character does hangs on a few flags
 * of what came before, whose exact interplay is the standard form and is kept as it is published.
 */
#include "config/format.h"

#include "base/text.h"
#include "config/token.h"

enum heredoc { HEREDOC_CLOSED, HEREDOC_OPENING, HEREDOC_OPENED };

/* Which quotes are open, the outer one first. */
enum quotes { NO_QUOTES, QUOTE, BACKQUOTE, BACKQUOTE_IN_QUOTE };

/* Deeper blocks are not indented any further (nor counted). */
enum { MAX_NESTING = 10 };

struct word { /* as much of a word as tells "import" from all others */
    char text[8];
    size_t len;
};

struct formatter {
    struct buffer *out;
    uint32_t last; /* written */
    unsigned new_lines;
    unsigned nesting;
    enum quotes quotes;
    enum heredoc heredoc;
    struct buffer marker;  /* of the heredoc */
    struct buffer closing; /* the end of its current line, as long as the marker */
    struct word word, first_word;
    bool space, beginning_of_line;
    bool open_brace, open_brace_written, open_brace_space, open_brace_own_line;
    bool comment, escaped, heredoc_escaped;
    bool after_import; /* the line before was an import outside of all blocks */
};

static void put(struct formatter *f, uint32_t rune)
{
    char utf8[4];
    (void)buffer_append(f->out, slice_of(utf8, utf8_encode(rune, utf8)));
    f->last = rune;
}

static void indent(struct formatter *f)
{
    for (unsigned i = 0; i < f->nesting; i++)
        put(f, '\t');
}

static void next_line(struct formatter *f)
{
    put(f, '\n');
    f->beginning_of_line = true;
}

static void finish_word(struct formatter *f)
{
    if (f->word.len == 0)
        return;
    if (f->first_word.len == 0)
        f->first_word = f->word;
    f->word.len = 0;
}

static void finish_line(struct formatter *f)
{
    finish_word(f);
    struct slice first = {f->first_word.text, f->first_word.len};
    if (first.len > 0)
        f->after_import = f->nesting == 0 && first.len == 6 && slice_is(first, "import");
    else if (!f->open_brace || !f->open_brace_own_line || f->open_brace_written)
        f->after_import = false;
    f->first_word.len = 0;
}

static void word_add(struct word *w, uint32_t rune)
{
    char utf8[4];
    size_t n = utf8_encode(rune, utf8);
    if (w->len + n <= sizeof w->text)
        memcpy(w->text + w->len, utf8, n);
    w->len = w->len + n <= sizeof w->text ? w->len + n : sizeof w->text;
}

/* True when the character is done with. */
static bool heredoc_opening(struct formatter *f, uint32_t ch)
{
    if (ch == '\n') {
        if (heredoc_marker_ok(buffer_slice(&f->marker))) {
            f->heredoc = HEREDOC_OPENED;
            put(f, ch);
        } else {
            buffer_clear(&f->marker);
            f->heredoc = HEREDOC_CLOSED;
            next_line(f);
        }
        return true;
    }
    if (rune_is_space(ch)) {
        buffer_clear(&f->marker);
        f->heredoc = HEREDOC_CLOSED;
        return false;
    }
    char utf8[4];
    (void)buffer_append(&f->marker, slice_of(utf8, utf8_encode(ch, utf8)));
    put(f, ch);
    return true;
}

/* The marker ends the heredoc where white space follows it. */
static bool heredoc_opened(struct formatter *f, uint32_t ch)
{
    if (rune_is_space(ch) && slice_eq(buffer_slice(&f->closing), buffer_slice(&f->marker))) {
        buffer_clear(&f->marker);
        buffer_clear(&f->closing);
        f->heredoc = HEREDOC_CLOSED;
        return false;
    }
    put(f, ch);
    if (ch == '\n') {
        buffer_clear(&f->closing);
        return true;
    }
    /* The marker is ASCII: a wider character can be any byte that it does not hold. */
    if (f->closing.len == f->marker.len)
        buffer_consume(&f->closing, 1);
    (void)buffer_append_byte(&f->closing, ch < 0x80 ? (char)ch : ' ');
    return true;
}

static void backquote(struct formatter *f)
{
    static const enum quotes next[] = {[NO_QUOTES] = BACKQUOTE, [QUOTE] = BACKQUOTE_IN_QUOTE,
                                       [BACKQUOTE] = NO_QUOTES, [BACKQUOTE_IN_QUOTE] = QUOTE};
    f->quotes = next[f->quotes];
}

/* Comments, escapes, quotes: true when the character is done with. */
static bool literal(struct formatter *f, uint32_t ch)
{
    if (f->comment) {
        if (ch == '\n') {
            f->comment = false;
            f->space = true;
            next_line(f);
        } else {
            put(f, ch);
        }
        return true;
    }
    if (!f->escaped && ch == '\\') {
        if (f->space) {
            put(f, ' ');
            f->space = false;
        }
        put(f, ch);
        f->escaped = true;
        return true;
    }
    if (f->escaped) {
        if (ch == '<')
            f->heredoc_escaped = true;
        put(f, ch);
        f->escaped = false;
        return true;
    }
    if (ch == '`')
        backquote(f);
    if (f->quotes == QUOTE) {
        if (ch == '"')
            f->quotes = NO_QUOTES;
        put(f, ch);
        return true;
    }
    if (ch == '"') {
        if (f->quotes == NO_QUOTES && f->space)
            f->quotes = QUOTE;
        else if (f->quotes == BACKQUOTE_IN_QUOTE)
            f->quotes = NO_QUOTES;
    }
    if (f->quotes == BACKQUOTE || f->quotes == BACKQUOTE_IN_QUOTE) {
        if (ch == '`' && f->space && !f->beginning_of_line)
            put(f, ' ');
        put(f, ch);
        f->space = false;
        return true;
    }
    return false;
}

/* The brace that was read before this character opens a block. */
static void write_open_brace(struct formatter *f)
{
    if (f->nesting == 0 && f->last == '}') {
        next_line(f);
        next_line(f);
    }
    f->open_brace = false;
    if (f->open_brace_own_line && f->after_import) {
        if (f->last != '\n')
            next_line(f);
        indent(f);
    } else if (f->beginning_of_line) {
        indent(f);
    } else if (!f->open_brace_space || !rune_is_space(f->last)) {
        put(f, ' ');
    }
    put(f, '{');
    f->open_brace_written = true;
    f->open_brace_own_line = false;
    next_line(f);
    f->new_lines = 0;
    if (f->nesting < MAX_NESTING)
        f->nesting++;
}

static void open_brace(struct formatter *f, bool space_prior)
{
    finish_word(f);
    f->open_brace = true;
    f->open_brace_space = space_prior && !f->beginning_of_line;
    f->open_brace_own_line = f->new_lines > 0;
    if (f->open_brace_space && f->new_lines == 0)
        put(f, ' ');
    f->open_brace_written = false;
}

static void close_brace(struct formatter *f)
{
    finish_word(f);
    if (f->last != '\n')
        next_line(f);
    if (f->nesting > 0)
        f->nesting--;
    indent(f);
    put(f, '}');
    f->new_lines = 0;
}

static void word_char(struct formatter *f, uint32_t ch, bool space_prior)
{
    for (unsigned i = 0; i < f->new_lines && i < 2; i++)
        next_line(f);
    f->new_lines = 0;
    if (f->beginning_of_line)
        indent(f);
    if (f->nesting == 0 && f->last == '}' && f->beginning_of_line) {
        next_line(f);
        next_line(f);
    }
    if (!f->beginning_of_line && space_prior)
        put(f, ' ');
    if (f->open_brace && !f->open_brace_written) {
        put(f, '{');
        f->open_brace_written = true;
    }
    if (space_prior && ch == '<')
        f->space = true;
    word_add(&f->word, ch);
    put(f, ch);
    f->beginning_of_line = false;
}

static void take(struct formatter *f, uint32_t ch)
{
    if (f->quotes == NO_QUOTES && f->heredoc == HEREDOC_CLOSED && !f->heredoc_escaped && f->space &&
        f->last == '<' && ch == '<') {
        put(f, ch);
        f->heredoc = HEREDOC_OPENING;
        f->space = false;
        return;
    }
    if (f->heredoc == HEREDOC_OPENING && heredoc_opening(f, ch))
        return;
    if (f->heredoc == HEREDOC_OPENED && heredoc_opened(f, ch))
        return;
    if (f->last == '<' && f->space)
        f->space = false;
    if (literal(f, ch))
        return;
    if (rune_is_space(ch)) {
        finish_word(f);
        f->space = true;
        f->heredoc_escaped = false;
        if (ch == '\n') {
            finish_line(f);
            f->new_lines++;
        }
        return;
    }
    bool space_prior = f->space;
    f->space = false;
    if (ch == '#')
        f->comment = true;
    if (f->open_brace && space_prior && !f->open_brace_written)
        write_open_brace(f);
    if (ch == '{')
        open_brace(f, space_prior);
    else if (ch == '}' && (space_prior || !f->open_brace))
        close_brace(f);
    else
        word_char(f, ch, space_prior);
}

static struct slice trim_space(struct slice s)
{
    uint32_t rune;
    size_t n;
    while (s.len > 0 && (n = rune_next(s, &rune), rune_is_space(rune)))
        s = slice_skip(s, n);
    while (s.len > 0) {
        size_t at = s.len - 1;
        while (at > 0 && s.len - at < 4 && ((unsigned char)s.ptr[at] & 0xc0) == 0x80)
            at--;
        if (rune_next(slice_skip(s, at), &rune) != s.len - at || !rune_is_space(rune))
            break;
        s.len = at;
    }
    return s;
}

enum err caddyfile_format(struct slice body, struct buffer *out)
{
    struct buffer text;
    struct formatter f = {.out = &text, .space = true, .beginning_of_line = true};
    buffer_init(&text, 13 * CADDYFILE_MAX_SIZE);
    buffer_init(&f.marker, CADDYFILE_MAX_SIZE);
    buffer_init(&f.closing, CADDYFILE_MAX_SIZE);
    body = trim_space(body);
    while (body.len > 0) {
        uint32_t rune;
        size_t n = rune_next(body, &rune);
        body = slice_skip(body, n);
        take(&f, rune);
    }
    (void)buffer_append(out, trim_space(buffer_slice(&text)));
    (void)buffer_append_byte(out, '\n');
    bool full = text.full || out->full;
    buffer_deinit(&text);
    buffer_deinit(&f.marker);
    buffer_deinit(&f.closing);
    return full ? ERR_LIMIT : OK;
}

static void without_crlf(struct slice body, struct buffer *out)
{
    for (size_t i = 0; i < body.len; i++)
        if (body.ptr[i] != '\r' || i + 1 == body.len || body.ptr[i + 1] != '\n')
            (void)buffer_append_byte(out, body.ptr[i]);
}

bool caddyfile_format_differs(struct slice body, unsigned *line)
{
    struct buffer plain, formatted;
    buffer_init(&plain, CADDYFILE_MAX_SIZE);
    buffer_init(&formatted, 13 * CADDYFILE_MAX_SIZE);
    without_crlf(body, &plain);
    enum err e = caddyfile_format(buffer_slice(&plain), &formatted);
    bool differs = e == OK && !slice_eq(buffer_slice(&plain), buffer_slice(&formatted));
    *line = 1;
    for (size_t i = 0; differs && i < plain.len; i++) {
        if (i >= formatted.len || plain.ptr[i] != formatted.ptr[i])
            break;
        *line += plain.ptr[i] == '\n';
    }
    buffer_deinit(&plain);
    buffer_deinit(&formatted);
    return differs;
}
