/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: a table of commands, each with its flags, as Caddy has them. A long-running
 * command has two halves: the process that a person starts becomes the keeper; the server process
 * that it starts runs `serve` of the same command with the same arguments.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

struct flag {
    const char *name; /* without dashes */
    char letter;      /* 0: none */
    bool takes_value;
    const char *value_name, *help;
    const char *fallback; /* default value, or NULL */
};

enum { FLAG_VALUES_MAX = 64, ARGS_MAX = 64 };

struct command_line {
    const struct command *command;
    const char *values[32];      /* by the flag's place in the table; NULL: not given */
    struct {
        const char *flag, *value;
    } all[FLAG_VALUES_MAX];      /* in order, for flags that may come several times */
    size_t all_count;
    const char *args[ARGS_MAX];
    size_t args_count;
    char **argv;
};

struct command {
    const char *name, *usage, *help;
    const struct flag *flags; /* ends with a NULL name */
    size_t max_args;
    int (*run)(const struct command_line *);   /* what the person's process does */
    int (*serve)(const struct command_line *); /* what the server process does; NULL: no such */
};

extern const struct command *const commands[]; /* ends with NULL */

/* The flag's value, its default, or NULL; for a switch "true" or NULL. */
const char *flag_value(const struct command_line *, const char *name);
bool flag_given(const struct command_line *, const char *name);
/* True for a switch that is on ("--x", "--x=true"). */
bool flag_on(const struct command_line *, const char *name);

/* Exit statuses, as Caddy's. */
enum { EXIT_OK = 0, EXIT_STARTUP = 1, EXIT_FORCED = 2, EXIT_QUIT_FAILED = 3 };

int cli_main(int argc, char **argv);

/* Prints `portico: text` on stderr; returns EXIT_STARTUP. */
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Common `run` of the long-running commands: become the keeper. */
int cli_keep(const struct command_line *);

/* True when the program was called by the name `caddy`. */
bool cli_called_caddy(const struct command_line *);
