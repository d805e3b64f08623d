/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands about ports share: the ledger of this machine, judged by a configuration. That
 * is the one of --config, else the one that a running server has (by its admin API), else the
 * Caddyfile that would be taken by default.
 */
#pragma once

#include "app/cli.h"
#include "app/config_file.h"
#include "ports/history.h"
#include "ports/ledger.h"

struct ports_view {
    struct arena arena;
    struct port_table table;
    struct loaded_config config; /* document NULL: there is none */
    bool running;                /* config is a running server's */
    json_t *services;            /* that it runs; NULL: none, or not known */
    bool conflict;               /* the configuration excludes itself; told already */
    struct history history;      /* of the looks before */
};

/* Flags that belong to all of these commands. */
#define PORTS_FLAGS                                                                                \
    {"config", 'c', true, "FILE", "judge by this configuration, which need not run", NULL},        \
    {"adapter", 'a', true, "NAME", "config adapter to apply (with --config)", NULL},               \
    {"address", 0, true, "ADDRESS", "address of the running server's admin API", NULL},            \
    {"this-namespace", 0, false, NULL, "only this network namespace's ports", NULL}

/* Fills the configuration only. Prints a sentence and returns an exit status when that fails. */
int ports_view_config(const struct command_line *, struct ports_view *);

/* And reads the ledger; the history is brought up to date. */
int ports_view_open(const struct command_line *, struct ports_view *);

/* Reads the ledger again. */
int ports_view_look(const struct command_line *, struct ports_view *);
void ports_view_close(struct ports_view *);

/* The sentences of what could not be seen, on stderr. */
void ports_view_tell_unseen(struct ports_view *);

/* The standard output: its width (0: no terminal), and whether colours are wanted there. */
unsigned output_columns(void);
bool output_colours(void);

/* Writes what there is so far, and empties the buffer; output_put tells whether that failed. */
void output_piece(struct buffer *);

/* Writes and forgets the buffer; an exit status. */
int output_put(struct buffer *, int status);
int output_json(json_t *, int status); /* steals the reference */
