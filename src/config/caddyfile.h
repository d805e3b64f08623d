/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Caddyfile as server blocks: environment replaced, words lexed, imports and snippets spliced
 * in, directives grouped. No directive is known here; adapter/ makes JSON of the blocks.
 */
#pragma once

#include "config/dispenser.h"

/* A directive with all that belongs to it: its line, and the block which the line opens. */
struct segment {
    struct token *items; /* the first is the directive's name */
    size_t count;
};

struct server_block {
    bool has_braces;
    bool is_named_route; /* key and first token of the one segment: the route's name */
    struct token *keys;  /* site addresses; none for the global options */
    size_t key_count;
    struct segment *segments;
    size_t segment_count;
};

struct server_blocks {
    struct server_block *items;
    size_t count;
};

/* Imports followed while parsing one file; beyond, a diag and ERR_LIMIT. */
#define CADDYFILE_MAX_IMPORTS 10000

/* `file_name` is told in errors and is what relative imports begin from. All results live in the
 * arena. On an error `out` holds the blocks before it. */
MUST_USE enum err caddyfile_parse(struct arena *, struct slice file_name, struct slice body,
                                  struct server_blocks *out, struct diag *);

/* The first block only; on an error, what was read of it. */
MUST_USE enum err caddyfile_parse_first(struct arena *, struct slice file_name, struct slice body,
                                        struct server_block *out, struct diag *);

/* As caddyfile_parse, with no file ever opened: an import finds snippets only. */
MUST_USE enum err caddyfile_parse_alone(struct arena *, struct slice file_name, struct slice body,
                                        struct server_blocks *out, struct diag *);

/* The directive's name; empty for an empty segment. */
struct slice segment_name(const struct segment *);

/* A cursor over one segment, or over all segments of a block that begin with `name`. */
struct dispenser segment_dispenser(const struct segment *, struct arena *, struct diag *);
struct dispenser server_block_dispenser(const struct server_block *, struct slice name,
                                        struct arena *, struct diag *);
