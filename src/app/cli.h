/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: a table of commands, each with its flags, as Caddy has them. A long-running
 * command has two halves: the process that a person starts becomes the keeper; the server process
 * that it starts runs `serve` of the same command with the same arguments.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

enum flag_list {
    FLAG_ONE,    /* the last one counts */
    FLAG_REPEAT, /* may come several times */
    FLAG_COMMAS, /* likewise, and one may hold several values with commas between them */
};

struct flag {
    const char *name; /* without dashes */
    char letter;      /* 0: none */
    bool takes_value;
    const char *value_name, *help;
    const char *fallback; /* default value, or NULL */
    enum flag_list list;
    bool hidden; /* not in the help */
};

enum { FLAG_VALUES_MAX = 256, ARGS_MAX = 64, FLAGS_MAX = 32 };

struct command_line {
    const struct command *command;
    const char *values[FLAGS_MAX]; /* by the flag's place in the table; NULL: not given */
    struct {
        const char *flag, *value;
    } all[FLAG_VALUES_MAX];        /* in order, for flags that may come several times */
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
    const char *about; /* more than one line, or NULL; "%s" is the program's name */
    const struct command *const *subs; /* ends with NULL; their names are whole: "ports check" */
};

extern const struct command *const commands[]; /* ends with NULL */

/* The last word of a subcommand's name. */
const char *command_word(const struct command *);

/* The flag's value, its default, or NULL; for a switch "true" or NULL. */
const char *flag_value(const struct command_line *, const char *name);
bool flag_given(const struct command_line *, const char *name);
/* True for a switch that is on ("--x", "--x=true"). */
bool flag_on(const struct command_line *, const char *name);
/* All values of a flag that may come several times, cut at commas where it says so. Slices point
 * into the arguments; at most FLAG_VALUES_MAX. */
size_t flag_values(const struct command_line *, const char *name, struct slice *out);
/* A number flag; prints a sentence and returns false when its value is none, or out of range. */
bool flag_number(const struct command_line *, const char *name, int64_t min, int64_t max,
                 int64_t *out);

/* Exit statuses, as Caddy's. */
enum { EXIT_OK = 0, EXIT_STARTUP = 1, EXIT_FORCED = 2, EXIT_QUIT_FAILED = 3 };

int cli_main(int argc, char **argv);

/* Prints `Error: text` on stderr; returns EXIT_STARTUP. */
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Common `run` of the long-running commands: become the keeper. */
int cli_keep(const struct command_line *);

/* "caddy" when the program was called by that name, else "portico"; for people "Caddy". */
const char *cli_program(void);
const char *cli_program_title(void);
bool cli_called_caddy(const struct command_line *);
