/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State shared by the two halves of the Caddyfile parser: blocks (parse.c) and imports (import.c).
 */
#pragma once

#include "base/map.h"
#include "config/caddyfile.h"

struct snippet {
    struct slice name;
    struct tokens tokens;
    struct snippet *next;
};

struct parser {
    struct dispenser d; /* over `tokens` of its own, on the heap */
    struct arena *arena;
    struct diag *diag;
    struct server_block block; /* being read */
    size_t key_cap, segment_cap;
    int nesting; /* of the directive being read */
    bool eof;    /* the file ended behind a line of addresses */
    bool closed; /* the last list of directives ended with a '}' */
    bool alone;  /* open no file */
    struct snippet *snippets;
    struct map graph; /* who imports whom: name to struct import_node */
    unsigned imports; /* done so far */
    size_t cap;       /* of d.tokens */
};

/* The parser reads a copy of the list. */
void parser_tokens(struct parser *, const struct tokens *);
void parser_finish(struct parser *);

struct snippet *parser_snippet(const struct parser *, struct slice name);

/* The cursor is on the word "import": replaces it and what belongs to it by what it brings; the
 * cursor is on the first word of that, or on what followed. `nesting`: 0 where snippets may be
 * defined, 1 inside of a block. */
MUST_USE enum err parser_import(struct parser *, int nesting);

/* Parts of an import, on their own for tests. Whether `t` is "{args[from:to]}" within `count`
 * arguments; the text of a token with its "{args[N]}" replaced. */
bool import_variadic(const struct token *, size_t count, size_t *from, size_t *to);
struct slice import_args(struct arena *, struct slice text, const struct slice *args, size_t count);
