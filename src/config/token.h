/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words of a Caddyfile. Memory of every token is the arena's that lexed it; tokens are copied by
 * value and never changed in place, but by whoever owns the array they stand in.
 */
#pragma once

#include "base/arena.h"
#include "config/diag.h"

/* One `import` that a token came through; the newest is at the head of a chain. */
struct import_chain {
    const struct import_chain *outer; /* the import before it; NULL for the first one */
    struct slice text;                /* "Caddyfile:3 (import name)" */
    unsigned depth;                   /* 1 for the first one */
};

struct token {
    struct slice file;
    struct slice text;           /* valid UTF-8: bytes that were not are U+FFFD */
    struct slice heredoc_marker; /* of quote '<' */
    struct slice snippet;        /* name of the snippet whose definition holds it, or empty */
    const struct import_chain *imports;
    unsigned line;   /* where it begins, from 1 */
    unsigned column; /* in bytes, from 1; of a word that came by import, that in its own file */
    char quote;    /* '"', '`', '<' for a heredoc, 0 when bare */
};

struct tokens {
    struct token *items;
    size_t count, cap;
};

/* A word list, a file and an import may not be larger. */
#define CADDYFILE_MAX_TOKENS ((size_t)1 << 21)
#define CADDYFILE_MAX_SIZE ((size_t)64 << 20)

/* Appends every token of `body`, whose "{$NAME}" are replaced already. An empty body is an error
 * ("EOF"), as in Caddy. `body` may go away afterwards, `file` must stay. */
MUST_USE enum err caddyfile_lex(struct arena *, struct slice file, struct slice body,
                                struct tokens *out, struct diag *);

/* "{$NAME}" and "{$NAME:default}" replaced from the environment, once. Result in the arena, or
 * `body` itself when it holds none. ERR_LIMIT beyond CADDYFILE_MAX_SIZE. */
MUST_USE enum err caddyfile_replace_env(struct arena *, struct slice body, struct slice *out);

/* Grows by doubling in the arena; ERR_LIMIT at CADDYFILE_MAX_TOKENS. */
MUST_USE enum err tokens_add(struct arena *, struct tokens *, struct token);
MUST_USE enum err tokens_add_all(struct arena *, struct tokens *, const struct token *, size_t);

/* A bare "{" or "}": structure, not text. */
bool token_opens(const struct token *);
bool token_closes(const struct token *);

/* Whether `b` stands on another line than the end of `a`, another file or another import. */
bool token_on_new_line(const struct token *a, const struct token *b);

/* Line breaks from the token's beginning to its end. */
unsigned token_line_breaks(const struct token *);

/* Go's unicode.IsSpace. */
bool rune_is_space(uint32_t);

/* What may stand behind the sign that opens a heredoc. */
bool heredoc_marker_ok(struct slice);

/* Go's view of bytes that should be UTF-8: the next rune, U+FFFD for one byte that is none.
 * Returns how many bytes it takes; `in` must not be empty. */
size_t rune_next(struct slice in, uint32_t *rune);
