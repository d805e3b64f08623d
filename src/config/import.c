/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `import NAME|FILE|GLOB [ARGS…] [{ BLOCK }]`: the words of a snippet or of files take the place of
 * the line. Arguments go to {args[N]} and {args[N:M]}, the block to {block} and {blocks.name}. What
 * brings itself in again is refused, by a graph of who imports whom, before it is read twice.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/glob.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/parser.h"

struct import_node {
    struct slice name;
    struct import_node **to;
    size_t count, cap;
    unsigned seen; /* the last search that came by */
};

/* An entry of the block behind an import: "name words… { words }". */
struct block_part {
    struct slice name;
    struct tokens tokens;
    struct block_part *next;
};

struct import {
    struct slice pattern;
    struct slice *args;
    size_t arg_count;
    struct tokens block;
    struct block_part *parts;
    struct tokens brought;
    struct slice *sources; /* names in the graph */
    size_t source_count;
};

void parser_tokens(struct parser *p, const struct tokens *list)
{
    p->cap = list->count + 16;
    struct token *copy = mem_resize(NULL, p->cap, sizeof *copy);
    if (list->count > 0)
        memcpy(copy, list->items, list->count * sizeof *copy);
    dispenser_init(&p->d, copy, list->count, p->arena, p->diag);
}

void parser_finish(struct parser *p)
{
    struct map_entry *entry;
    size_t at = 0;
    while ((entry = map_next(&p->graph, &at)) != NULL) {
        struct import_node *n = entry->value;
        mem_free(n->to);
    }
    map_deinit(&p->graph);
    mem_free(p->d.tokens);
    p->d.tokens = NULL;
    p->d.count = 0;
}

struct snippet *parser_snippet(const struct parser *p, struct slice name)
{
    for (struct snippet *s = p->snippets; s != NULL; s = s->next)
        if (slice_eq(s->name, name))
            return s;
    return NULL;
}

/* --- who imports whom --- */

static struct import_node *node_of(struct parser *p, struct slice name)
{
    struct import_node *n = map_get(&p->graph, name);
    if (n == NULL) {
        n = ARENA_NEW(p->arena, struct import_node);
        n->name = arena_copy(p->arena, name);
        map_put(&p->graph, n->name, n);
    }
    return n;
}

/* Whether one or more steps lead from `from` to `to`. */
static bool leads_to(struct import_node *from, const struct import_node *to, unsigned search)
{
    if (from->seen == search)
        return false;
    from->seen = search;
    for (size_t i = 0; i < from->count; i++)
        if (from->to[i] == to || leads_to(from->to[i], to, search))
            return true;
    return false;
}

static enum err add_edge(struct parser *p, struct import_node *from, struct import_node *to)
{
    static _Thread_local unsigned search;
    for (size_t i = 0; i < from->count; i++)
        if (from->to[i] == to)
            return OK;
    if (from == to || leads_to(to, from, ++search)) {
        diag_place(p->diag, dispenser_file(&p->d), dispenser_line(&p->d), 0);
        return diag_fail(p->diag, "a cycle of imports exists between " SLICE_FMT " and " SLICE_FMT,
                         SLICE_ARG(from->name), SLICE_ARG(to->name));
    }
    if (from->count == from->cap) {
        from->cap = from->cap * 2 + 4;
        from->to = mem_resize(from->to, from->cap, sizeof(struct import_node *));
    }
    from->to[from->count++] = to;
    return OK;
}

/* --- arguments --- */

static void warn_placeholder(const struct token *t, const char *why)
{
    char text[512];
    snprintf(text, sizeof text, "Placeholder " SLICE_FMT " %s", SLICE_ARG(slice_take(t->text, 200)),
             why);
    struct log_field fields[] = {LOG_STR("file", t->file), LOG_NUM("line", t->line)};
    log_emit(LOG_WARN, "caddyfile", slice_from(text), fields, 2);
}

bool import_variadic(const struct token *t, size_t count, size_t *from, size_t *to)
{
    struct slice head, tail;
    int64_t first = 0, last = (int64_t)count;
    if (!slice_starts(t->text, SLICE("{args[")) || !slice_ends(t->text, SLICE("]}")) ||
        t->text.len < 8)
        return false;
    struct slice range = slice_take(slice_skip(t->text, 6), t->text.len - 8);
    if (range.len == 0) {
        warn_placeholder(t, "cannot have an empty index");
        return false;
    }
    if (!slice_cut(range, ':', &head, &tail) || slice_find(head, '}') != SIZE_MAX ||
        slice_find(tail, '{') != SIZE_MAX)
        return false;
    if ((head.len > 0 && !slice_to_i64(head, &first)) ||
        (tail.len > 0 && !slice_to_i64(tail, &last))) {
        warn_placeholder(t, "has an invalid index");
        return false;
    }
    if (first < 0 || first > last || last > (int64_t)count) {
        warn_placeholder(t, "indices are out of bounds of the arguments of this import");
        return false;
    }
    *from = (size_t)first;
    *to = (size_t)last;
    return true;
}

/* "args[N]" or the older "args.N" to its argument. */
static bool arg_value(struct slice key, const struct slice *args, size_t count, struct slice *out)
{
    struct slice number;
    int64_t index;
    bool old = slice_starts(key, SLICE("args.")) && key.len > 5;
    if (old)
        number = slice_skip(key, 5);
    else if (slice_starts(key, SLICE("args[")) && slice_ends(key, SLICE("]")) && key.len > 6)
        number = slice_take(slice_skip(key, 5), key.len - 6);
    else
        return false;
    struct token t = {.text = key};
    if (!slice_to_i64(number, &index) || index < 0) {
        warn_placeholder(&t, slice_find(number, ':') != SIZE_MAX
                                 ? "is variadic: it must be a token on its own"
                                 : "has an invalid index");
        return false;
    }
    if ((uint64_t)index >= count) {
        warn_placeholder(&t, "is out of bounds of the arguments of this import");
        return false;
    }
    if (old)
        warn_placeholder(&t, "is deprecated, use {args[N]} instead");
    *out = args[index];
    return true;
}

/* Where the placeholder that opens at `at` closes; SIZE_MAX when it does not. */
static size_t placeholder_end(struct slice s, size_t at)
{
    size_t end = slice_find(slice_skip(s, at), '}');
    if (end == SIZE_MAX)
        return SIZE_MAX;
    end += at;
    while (end > 0 && end + 1 < s.len && s.ptr[end - 1] == '\\') {
        size_t next = slice_find(slice_skip(s, end + 1), '}');
        if (next == SIZE_MAX)
            return SIZE_MAX;
        end += next + 1;
    }
    return end;
}

struct slice import_args(struct arena *arena, struct slice s, const struct slice *args, size_t count)
{
    struct buffer out;
    size_t written = 0;
    unsigned unclosed = 0;
    if (slice_find(s, '{') == SIZE_MAX && slice_find(s, '}') == SIZE_MAX)
        return s;
    buffer_init(&out, CADDYFILE_MAX_SIZE);
    for (size_t i = 0; i < s.len; i++) {
        struct slice value;
        if (i > 0 && s.ptr[i - 1] == '\\' && (s.ptr[i] == '}' || s.ptr[i] == '{')) {
            (void)buffer_append(&out, slice_of(s.ptr + written, i - 1 - written));
            written = i;
            continue;
        }
        if (s.ptr[i] != '{')
            continue;
        if (unclosed > 100) {
            buffer_deinit(&out);
            return SLICE_NONE;
        }
        size_t end = placeholder_end(s, i);
        if (end == SIZE_MAX) {
            unclosed++;
            continue;
        }
        (void)buffer_append(&out, slice_of(s.ptr + written, i - written));
        written = i;
        if (!arg_value(slice_of(s.ptr + i + 1, end - i - 1), args, count, &value))
            continue;
        (void)buffer_append(&out, value);
        i = end;
        written = i + 1;
    }
    (void)buffer_append(&out, slice_skip(s, written));
    s = arena_copy(arena, buffer_slice(&out));
    buffer_deinit(&out);
    return s;
}

/* --- the line itself --- */

static enum err read_block_parts(struct parser *p, struct import *im)
{
    struct dispenser d;
    dispenser_init(&d, im->block.items, im->block.count, p->arena, p->diag);
    while (dispenser_next(&d)) {
        struct block_part *part = ARENA_NEW(p->arena, struct block_part);
        int nesting;
        if (token_opens(dispenser_token(&d)))
            return dispenser_err_f(&p->d, "anonymous blocks are not supported");
        part->name = dispenser_val(&d);
        while (dispenser_next_arg(&d))
            TRY(tokens_add(p->arena, &part->tokens, *dispenser_token(&d)));
        nesting = dispenser_nesting(&d);
        while (dispenser_next_block(&d, nesting))
            TRY(tokens_add(p->arena, &part->tokens, *dispenser_token(&d)));
        part->next = im->parts; /* of one name twice, the later counts */
        im->parts = part;
    }
    return OK;
}

static enum err read_import(struct parser *p, struct import *im)
{
    struct dispenser *d = &p->d;
    int nesting;
    if (++p->imports > CADDYFILE_MAX_IMPORTS)
        return dispenser_err_f(d, "too many imports: more than %d", CADDYFILE_MAX_IMPORTS);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    im->pattern = dispenser_val(d);
    if (im->pattern.len == 0)
        return dispenser_err_f(d, "Import requires a non-empty filepath");
    im->arg_count = dispenser_remaining_args(d, &im->args);
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting))
        TRY(tokens_add(p->arena, &im->block, *dispenser_token(d)));
    return read_block_parts(p, im);
}

/* --- files --- */

static const char *absolute(struct parser *p, struct slice path)
{
    char cwd[PATH_MAX];
    if (slice_starts(path, SLICE("/")))
        return arena_str(p->arena, path);
    if (getcwd(cwd, sizeof cwd) == NULL)
        return NULL;
    return arena_str(p->arena, arena_printf(p->arena, "%s/" SLICE_FMT, cwd, SLICE_ARG(path)));
}

/* Go's filepath.Clean for an absolute path. */
static struct slice clean(struct arena *arena, struct slice path)
{
    char *out = arena_alloc(arena, path.len + 2);
    size_t n = 0;
    struct slice part;
    while (path.len > 0) {
        slice_cut(path, '/', &part, &path);
        if (part.len == 0 || slice_is(part, "."))
            continue;
        if (slice_is(part, "..")) {
            while (n > 0 && out[--n] != '/')
                ;
            continue;
        }
        out[n++] = '/';
        memcpy(out + n, part.ptr, part.len);
        n += part.len;
    }
    if (n == 0)
        out[n++] = '/';
    return slice_of(out, n);
}

static bool has_meta(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (memchr("*?[\\", s.ptr[i], 4) != NULL)
            return true;
    return false;
}

static void add_name(struct parser *p, struct import *im, struct slice name)
{
    size_t n = im->source_count;
    if ((n & (n + 1)) == 0) {
        struct slice *grown = ARENA_ARRAY(p->arena, struct slice, n * 2 + 1);
        if (n > 0)
            memcpy(grown, im->sources, n * sizeof *grown);
        im->sources = grown;
    }
    im->sources[im->source_count++] = arena_copy(p->arena, name);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void glob_in(struct parser *p, struct import *im, struct slice dir, struct slice pattern)
{
    struct dirent **list;
    int n = scandir(arena_str(p->arena, dir.len > 0 ? dir : SLICE("/")), &list, NULL, by_name);
    for (int i = 0; i < n; i++) {
        struct slice name = slice_from(list[i]->d_name);
        if (!slice_is(name, ".") && !slice_is(name, "..") && glob_match(pattern, name))
            add_name(p, im, arena_join(p->arena, (struct slice[]){dir, SLICE("/"), name}, 3));
        free(list[i]);
    }
    if (n >= 0)
        free(list);
}

/* filepath.Glob: every path that the pattern means, folders and names in order. */
static void glob_paths(struct parser *p, struct import *im, struct slice pattern)
{
    struct stat st;
    size_t slash = slice_find_last(pattern, '/');
    if (!has_meta(pattern) || slash == SIZE_MAX) {
        if (lstat(arena_str(p->arena, pattern), &st) == 0)
            add_name(p, im, pattern);
        return;
    }
    struct slice dir = slice_take(pattern, slash), file = slice_skip(pattern, slash + 1);
    if (!has_meta(dir)) {
        glob_in(p, im, dir, file);
        return;
    }
    struct import dirs = {0};
    glob_paths(p, &dirs, dir);
    for (size_t i = 0; i < dirs.source_count; i++)
        glob_in(p, im, dirs.sources[i], file);
}

static size_t count_of(struct slice s, char c)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += s.ptr[i] == c;
    return n;
}

static void drop_hidden(struct import *im)
{
    size_t kept = 0;
    for (size_t i = 0; i < im->source_count; i++) {
        struct slice s = im->sources[i];
        size_t slash = slice_find_last(s, '/');
        if (slash == SIZE_MAX || slash + 1 >= s.len || s.ptr[slash + 1] != '.')
            im->sources[kept++] = s;
    }
    im->source_count = kept;
}

static enum err find_files(struct parser *p, struct import *im)
{
    struct dispenser *d = &p->d;
    struct slice path = im->pattern;
    if (p->alone)
        return dispenser_err_f(d, "File to import not found: " SLICE_FMT, SLICE_ARG(path));
    if (memchr(path.ptr, '\0', path.len) != NULL || path.len >= PATH_MAX)
        return dispenser_err_f(d, "Failed to use import pattern " SLICE_FMT ": not a path",
                               SLICE_ARG(path));
    if (path.ptr[0] != '/') {
        const char *self = absolute(p, dispenser_file(d));
        if (self == NULL)
            return dispenser_err_f(d, "Failed to get absolute path of file: " SLICE_FMT ": %s",
                                   SLICE_ARG(dispenser_file(d)), strerror(errno));
        struct slice dir = slice_take(slice_from(self), slice_find_last(slice_from(self), '/'));
        path = clean(p->arena, arena_join(p->arena, (struct slice[]){dir, SLICE("/"), path}, 3));
    }
    bool brackets = count_of(path, '[') > 0 && count_of(path, ']') > 0;
    if (count_of(path, '*') > 1 || count_of(path, '?') > 1 || brackets)
        return dispenser_err_f(d,
                               "Glob pattern may only contain one wildcard (*), but has others: "
                               SLICE_FMT,
                               SLICE_ARG(path));
    if (has_meta(path) && !glob_valid(path))
        return dispenser_err_f(d, "Failed to use import pattern " SLICE_FMT ": syntax error in pattern",
                               SLICE_ARG(im->pattern));
    glob_paths(p, im, path);
    if (im->source_count == 0) {
        if (!has_meta(path) && count_of(path, ']') == 0)
            return dispenser_err_f(d, "File to import not found: " SLICE_FMT, SLICE_ARG(im->pattern));
        LOG(LOG_WARN, "", "No files matching import glob pattern", LOG_STR("pattern", im->pattern));
        return OK;
    }
    size_t slash = slice_find_last(path, '/');
    if (slice_starts(slice_skip(path, slash + 1), SLICE("*")))
        drop_hidden(im);
    return OK;
}

static enum err read_all(struct parser *p, FILE *f, struct buffer *b)
{
    size_t n;
    do {
        if (buffer_reserve(b, 65536) != OK)
            return ERR_LIMIT;
        n = fread(b->ptr + b->len, 1, 65536, f);
        b->len += n;
    } while (n > 0);
    return ferror(f) ? ERR_IO : OK;
}

static enum err lex_file(struct parser *p, struct slice name, struct slice body, struct tokens *out)
{
    struct slice text;
    struct diag inner;
    bool blank = true;
    for (size_t i = 0; blank && i < body.len; i++)
        blank = rune_is_space((unsigned char)body.ptr[i]);
    if (blank) {
        LOG(LOG_WARN, "", "Import file is empty", LOG_STR("file", name));
        return OK;
    }
    diag_clear(&inner);
    if (caddyfile_replace_env(p->arena, body, &text) != OK)
        return dispenser_err_f(&p->d, "Could not read tokens while importing " SLICE_FMT
                               ": larger than 64 MiB", SLICE_ARG(name));
    enum err e = caddyfile_lex(p->arena, name, text, out, &inner);
    if (e == OK || inner.text[0] == '\0')
        return e;
    return dispenser_err_f(&p->d, "Could not read tokens while importing " SLICE_FMT ": %s",
                           SLICE_ARG(name), inner.text);
}

static enum err import_file(struct parser *p, struct slice name, struct tokens *out)
{
    struct stat st;
    struct buffer b;
    FILE *f = fopen(arena_str(p->arena, name), "re");
    if (f == NULL)
        return dispenser_err_f(&p->d, "Could not import " SLICE_FMT ": open " SLICE_FMT ": %s",
                               SLICE_ARG(name), SLICE_ARG(name), strerror(errno));
    if (fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode)) {
        fclose(f);
        return dispenser_err_f(&p->d, "Could not import " SLICE_FMT ": is a directory",
                               SLICE_ARG(name));
    }
    buffer_init(&b, CADDYFILE_MAX_SIZE);
    enum err e = read_all(p, f, &b);
    fclose(f);
    if (e != OK)
        e = dispenser_err_f(&p->d, "Could not read imported file " SLICE_FMT ": %s", SLICE_ARG(name),
                            e == ERR_LIMIT ? "larger than 64 MiB" : "input/output error");
    else
        e = lex_file(p, name, buffer_slice(&b), out);
    buffer_deinit(&b);
    return e;
}

/* --- what is brought, and where it goes --- */

static enum err bring(struct parser *p, struct import *im)
{
    struct snippet *s = parser_snippet(p, im->pattern);
    if (s != NULL) {
        im->brought = s->tokens;
        if (s->tokens.count > 0)
            add_name(p, im, arena_printf(p->arena, SLICE_FMT ":" SLICE_FMT,
                                         SLICE_ARG(s->tokens.items[0].file), SLICE_ARG(s->name)));
        return OK;
    }
    TRY(find_files(p, im));
    for (size_t i = 0; i < im->source_count; i++)
        TRY(import_file(p, im->sources[i], &im->brought));
    return OK;
}

static enum err note_edges(struct parser *p, const struct import *im)
{
    const struct token *t = dispenser_token(&p->d);
    struct slice self = t->file;
    if (t->snippet.len > 0)
        self = arena_printf(p->arena, SLICE_FMT ":" SLICE_FMT, SLICE_ARG(t->file),
                            SLICE_ARG(t->snippet));
    struct import_node *from = node_of(p, self);
    for (size_t i = 0; i < im->source_count; i++)
        TRY(add_edge(p, from, node_of(p, im->sources[i])));
    return OK;
}

static const struct tokens *part_of(const struct import *im, struct slice name)
{
    for (const struct block_part *b = im->parts; b != NULL; b = b->next)
        if (slice_eq(b->name, name))
            return &b->tokens;
    return NULL;
}

/* Where snippets may be defined, their definitions are passed on as they stand: what is in them is
 * replaced when they are imported themselves. */
struct snippet_watch {
    int nesting;
    unsigned index; /* of the word in its line */
    bool maybe_name, inside;
};

static void watch(struct snippet_watch *w, const struct token *before, const struct token *t)
{
    if (!w->inside && w->nesting == 0) {
        w->index = before == NULL || token_on_new_line(before, t) ? 0 : w->index + 1;
        if (w->index == 0 && t->text.len >= 3 && slice_starts(t->text, SLICE("(")) &&
            slice_ends(t->text, SLICE(")")))
            w->maybe_name = true;
    }
    if (token_opens(t)) {
        w->nesting++;
        if (w->index == 1 && w->maybe_name && w->nesting == 1) {
            w->inside = true;
            w->maybe_name = false;
        }
    } else if (token_closes(t)) {
        w->nesting--;
        if (w->nesting == 0 && w->inside)
            w->inside = false;
    }
}

static enum err add_replaced(struct parser *p, const struct import *im, struct token t,
                             struct tokens *out)
{
    size_t from, to;
    if (slice_is(t.text, "{block}"))
        return tokens_add_all(p->arena, out, im->block.items, im->block.count);
    if (slice_starts(t.text, SLICE("{blocks.")) && slice_ends(t.text, SLICE("}"))) {
        const struct tokens *part = part_of(im, slice_take(slice_skip(t.text, 8), t.text.len - 9));
        return part != NULL ? tokens_add_all(p->arena, out, part->items, part->count) : OK;
    }
    if (!import_variadic(&t, im->arg_count, &from, &to)) {
        t.text = import_args(p->arena, t.text, im->args, im->arg_count);
        return tokens_add(p->arena, out, t);
    }
    for (size_t i = from; i < to; i++) {
        t.text = im->args[i];
        TRY(tokens_add(p->arena, out, t));
    }
    return OK;
}

static const struct import_chain *chain_on(struct parser *p, const struct token *t)
{
    struct import_chain *c = ARENA_NEW(p->arena, struct import_chain);
    c->outer = t->imports;
    c->depth = t->imports != NULL ? t->imports->depth + 1 : 1;
    if (t->snippet.len > 0)
        c->text = arena_printf(p->arena, SLICE_FMT ":%u (import " SLICE_FMT ")",
                               SLICE_ARG(dispenser_file(&p->d)), dispenser_line(&p->d),
                               SLICE_ARG(t->snippet));
    else
        c->text = arena_printf(p->arena, SLICE_FMT ":%u (import)", SLICE_ARG(dispenser_file(&p->d)),
                               dispenser_line(&p->d));
    return c;
}

static enum err replace_all(struct parser *p, const struct import *im, int nesting,
                            struct tokens *out)
{
    struct snippet_watch w = {.nesting = nesting};
    const struct import_chain *chain = NULL, *chain_of = NULL;
    struct slice chain_snippet = SLICE_NONE;
    for (size_t i = 0; i < im->brought.count; i++) {
        struct token t = im->brought.items[i];
        if (chain == NULL || chain_of != t.imports || !slice_eq(chain_snippet, t.snippet)) {
            chain_of = t.imports;
            chain_snippet = t.snippet;
            chain = chain_on(p, &t);
        }
        t.imports = chain;
        watch(&w, out->count > 0 ? &out->items[out->count - 1] : NULL, &t);
        TRY(w.inside ? tokens_add(p->arena, out, t) : add_replaced(p, im, t, out));
    }
    return OK;
}

/* tokens = tokens[:before] + brought + tokens[cursor + 1:] */
static enum err splice(struct parser *p, const struct tokens *brought, size_t back)
{
    struct dispenser *d = &p->d;
    size_t before = (size_t)d->cursor - back, after = (size_t)d->cursor + 1;
    size_t tail = d->count - after, count = before + brought->count + tail;
    if (count > CADDYFILE_MAX_TOKENS)
        return ERR_LIMIT;
    if (count > p->cap) {
        p->cap = count * 2;
        d->tokens = mem_resize(d->tokens, p->cap, sizeof *d->tokens);
    }
    memmove(d->tokens + before + brought->count, d->tokens + after, tail * sizeof *d->tokens);
    if (brought->count > 0)
        memcpy(d->tokens + before, brought->items, brought->count * sizeof *d->tokens);
    d->count = count;
    d->cursor -= (ptrdiff_t)back;
    return OK;
}

enum err parser_import(struct parser *p, int nesting)
{
    struct import im = {0};
    struct tokens replaced = {0};
    TRY(read_import(p, &im));
    TRY(bring(p, &im));
    TRY(note_edges(p, &im));
    TRY(replace_all(p, &im, nesting, &replaced));
    return splice(p, &replaced, im.arg_count + im.block.count + 1);
}
