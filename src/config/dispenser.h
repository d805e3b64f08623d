/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cursor over tokens which knows lines and blocks. It begins before the first token. What is
 * documented as an error writes the dispenser's diag in Caddy's words and returns ERR_INVALID:
 *
 *     while (dispenser_next(d)) {                  // the directive's name
 *         if (!dispenser_next_arg(d))
 *             return dispenser_arg_err(d);
 *         int nesting = dispenser_nesting(d);
 *         while (dispenser_next_block(d, nesting)) // each word that begins a line of its block
 *             …
 *     }
 */
#pragma once

#include <jansson.h>

#include "config/token.h"

struct dispenser {
    struct token *tokens;
    size_t count;
    ptrdiff_t cursor; /* -1: before the first token */
    int nesting;
    struct arena *arena;
    struct diag *diag;         /* may be NULL */
    struct slice matcher_name; /* context for matchers: the "@name" being defined */
    void *user;                /* context of the caller, handed on to segments */
};

void dispenser_init(struct dispenser *, struct token *, size_t count, struct arena *,
                    struct diag *);

/* Before the first token again. */
void dispenser_reset(struct dispenser *);

bool dispenser_next(struct dispenser *);
bool dispenser_prev(struct dispenser *);

/* The next token if it is on this line and does not open a block. */
bool dispenser_next_arg(struct dispenser *);

/* The next token if it is on another line. */
bool dispenser_next_line(struct dispenser *);

/* Steps over the tokens of the block that opens behind the cursor (or is open since nesting was
 * `initial`): its braces are left out, those of inner blocks are not. False behind its end. */
bool dispenser_next_block(struct dispenser *, int initial);
int dispenser_nesting(const struct dispenser *);

/* The token at the cursor; an empty one, not NULL, when there is none. */
const struct token *dispenser_token(const struct dispenser *);
struct slice dispenser_val(const struct dispenser *);
struct slice dispenser_val_raw(const struct dispenser *); /* with its " or ` */
struct slice dispenser_file(const struct dispenser *);
unsigned dispenser_line(const struct dispenser *);
bool dispenser_val_is(const struct dispenser *, const char *);

/* The value as the nearest JSON type: quoted text is a string, else integer, number, boolean,
 * string. A new reference; null when there is no token. */
json_t *dispenser_scalar(const struct dispenser *);

/* Fill the targets from the arguments that follow; false when there are too few, and for
 * all_args when there are more. dispenser_args(d, &a, &b). */
#define dispenser_args(d, ...) DISPENSER_ARGS(dispenser_args_n, d, __VA_ARGS__)
#define dispenser_all_args(d, ...) DISPENSER_ARGS(dispenser_all_args_n, d, __VA_ARGS__)
#define DISPENSER_ARGS(f, d, ...)                                                                  \
    f((d), (struct slice *[]){__VA_ARGS__},                                                        \
      sizeof((struct slice *[]){__VA_ARGS__}) / sizeof(struct slice *))
bool dispenser_args_n(struct dispenser *, struct slice **targets, size_t count);
bool dispenser_all_args_n(struct dispenser *, struct slice **targets, size_t count);

size_t dispenser_count_remaining_args(struct dispenser *);

/* The arguments that follow on this line, in the arena; how many. NULL when there are none. */
size_t dispenser_remaining_args(struct dispenser *, struct slice **out);
size_t dispenser_remaining_args_raw(struct dispenser *, struct slice **out);
size_t dispenser_remaining_args_tokens(struct dispenser *, struct token **out);

/* The tokens from the cursor to the end of its line, or of the block that the line opens; the
 * cursor stays on the last one. Copies, in the arena. */
struct tokens dispenser_next_segment(struct dispenser *);
struct dispenser dispenser_new_from_next_segment(struct dispenser *);

/* Takes the current token, or the last n, out of the array; the cursor goes back by as many. */
void dispenser_delete(struct dispenser *);
void dispenser_delete_n(struct dispenser *, size_t n);

/* Whether the current token begins a line; whether the one behind it does. */
bool dispenser_is_new_line(const struct dispenser *);
bool dispenser_is_next_on_new_line(const struct dispenser *);

/* "wrong argument count or unexpected line ending after 'x', at Caddyfile:3" */
MUST_USE enum err dispenser_arg_err(const struct dispenser *);
/* "syntax error: unexpected token 'x', expecting 'y', at Caddyfile:3 import chain: ['']" */
MUST_USE enum err dispenser_syntax_err(const struct dispenser *, const char *expected);
/* "unexpected EOF, at Caddyfile:3" */
MUST_USE enum err dispenser_eof_err(const struct dispenser *);
/* "unrecognized subdirective x, at Caddyfile:3" */
MUST_USE enum err dispenser_unrecognized(const struct dispenser *);
/* The message, then ", at Caddyfile:3" and the import chain. */
MUST_USE enum err dispenser_err_f(const struct dispenser *, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same around what the diag says already (an error of a lower function); its err is kept. */
MUST_USE enum err dispenser_wrap_err(const struct dispenser *, enum err);
