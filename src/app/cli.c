/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flags are read as the pflag library reads them, which Caddy uses: --name value, --name=value,
 * -n value, -nvalue, -n=value, switches without a value, several of them behind one dash; "--" ends
 * them; flags and arguments may be mixed.
 */
#include "app/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "app/cli_help.h"
#include "app/program_name.h"
#include "base/log_stream.h"
#include "base/mem.h"
#include "keeper/keeper.h"
#include "version.h"

static bool called_caddy; /* set once, by cli_main */

int cli_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("Error: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return EXIT_STARTUP;
}

const char *cli_program(void)
{
    return program_name();
}

const char *cli_program_title(void)
{
    return called_caddy ? "Caddy" : "portico";
}

bool cli_called_caddy(const struct command_line *l)
{
    (void)l;
    return called_caddy;
}

/* --- what was given --- */

static size_t find_flag(const struct command *c, const char *name, size_t len, char letter)
{
    for (size_t i = 0; c->flags != NULL && c->flags[i].name != NULL; i++) {
        const struct flag *f = &c->flags[i];
        if (letter != '\0' ? f->letter == letter
                           : strlen(f->name) == len && memcmp(f->name, name, len) == 0)
            return i;
    }
    return SIZE_MAX;
}

const char *flag_value(const struct command_line *l, const char *name)
{
    size_t i = find_flag(l->command, name, strlen(name), '\0');
    if (i == SIZE_MAX)
        return NULL;
    return l->values[i] != NULL ? l->values[i] : l->command->flags[i].fallback;
}

bool flag_given(const struct command_line *l, const char *name)
{
    size_t i = find_flag(l->command, name, strlen(name), '\0');
    return i != SIZE_MAX && l->values[i] != NULL;
}

/* Go's words for a truth: 1 true, 0 false, -1 none of them. */
static int truth(const char *v)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcmp(v, yes[i]) == 0 || strcmp(v, no[i]) == 0)
            return strcmp(v, yes[i]) == 0;
    }
    return -1;
}

bool flag_on(const struct command_line *l, const char *name)
{
    const char *v = flag_value(l, name);
    return v != NULL && truth(v) == 1;
}

size_t flag_values(const struct command_line *l, const char *name, struct slice *out)
{
    size_t n = 0, at = find_flag(l->command, name, strlen(name), '\0');
    bool cut = at != SIZE_MAX && l->command->flags[at].list == FLAG_COMMAS;
    for (size_t i = 0; i < l->all_count; i++) {
        struct slice rest = slice_from(l->all[i].value), part = rest;
        if (strcmp(l->all[i].flag, name) != 0)
            continue;
        for (bool more = true; more && n < FLAG_VALUES_MAX; n++) {
            more = cut && slice_cut(rest, ',', &part, &rest);
            out[n] = part;
        }
    }
    return n;
}

bool flag_number(const struct command_line *l, const char *name, int64_t min, int64_t max,
                 int64_t *out)
{
    const char *v = flag_value(l, name);
    if (v != NULL && slice_to_i64(slice_from(v), out) && *out >= min && *out <= max)
        return true;
    cli_fail("invalid argument \"%s\" for \"--%s\" flag: a number from %lld to %lld is wanted",
             v != NULL ? v : "", name, (long long)min, (long long)max);
    return false;
}

/* --- reading --- */

static enum err keep_value(struct command_line *l, size_t flag, const char *value)
{
    const struct flag *f = &l->command->flags[flag];
    if (!f->takes_value && truth(value) < 0) {
        cli_fail("invalid argument \"%s\" for \"--%s\" flag: true or false is wanted", value,
                 f->name);
        return ERR_INVALID;
    }
    if (l->all_count == FLAG_VALUES_MAX) {
        cli_fail("more than %d flags", FLAG_VALUES_MAX);
        return ERR_LIMIT;
    }
    l->values[flag] = value;
    l->all[l->all_count].flag = f->name;
    l->all[l->all_count++].value = value;
    return OK;
}

/* "--name", "--name=value"; *i may move on to its value. */
static enum err read_long(struct command_line *l, int argc, char **argv, int *i)
{
    const char *text = argv[*i] + 2;
    size_t len = strcspn(text, "=");
    size_t flag = find_flag(l->command, text, len, '\0');
    if (flag == SIZE_MAX) {
        cli_fail("unknown flag: --%.*s", (int)len, text);
        return ERR_INVALID;
    }
    if (text[len] == '=')
        return keep_value(l, flag, text + len + 1);
    if (!l->command->flags[flag].takes_value)
        return keep_value(l, flag, "true");
    if (*i + 1 == argc) {
        cli_fail("flag needs an argument: --%s", text);
        return ERR_INVALID;
    }
    return keep_value(l, flag, argv[++*i]);
}

/* "-abc": switches, of which the last may be a flag with a value. */
static enum err read_short(struct command_line *l, int argc, char **argv, int *i)
{
    for (const char *at = argv[*i] + 1; *at != '\0'; at++) {
        size_t flag = find_flag(l->command, NULL, 0, *at);
        if (flag == SIZE_MAX) {
            cli_fail("unknown shorthand flag: '%c' in %s", *at, argv[*i]);
            return ERR_INVALID;
        }
        if (at[1] == '=')
            return keep_value(l, flag, at + 2);
        if (l->command->flags[flag].takes_value) {
            if (at[1] != '\0')
                return keep_value(l, flag, at + 1);
            if (*i + 1 < argc)
                return keep_value(l, flag, argv[++*i]);
            cli_fail("flag needs an argument: '%c' in %s", *at, argv[*i]);
            return ERR_INVALID;
        }
        TRY(keep_value(l, flag, "true"));
    }
    return OK;
}

const char *command_word(const struct command *c)
{
    const char *space = strrchr(c->name, ' ');
    return space != NULL ? space + 1 : c->name;
}

static const struct command *find_in(const struct command *const *list, const char *name)
{
    for (; list != NULL && *list != NULL; list++) {
        if (strcmp(command_word(*list), name) == 0)
            return *list;
    }
    return NULL;
}

/* The command that argv[at] and, where it has subcommands, the next word name; `at` moves on to the
 * last of these words. */
static const struct command *find_command(int argc, char **argv, int *at)
{
    const struct command *c = find_in(commands, argv[*at]);
    const struct command *sub = c != NULL && *at + 1 < argc ? find_in(c->subs, argv[*at + 1]) : NULL;
    *at += sub != NULL;
    return sub != NULL ? sub : c;
}

static int unknown_command(const char *name)
{
    return cli_fail("unknown command \"%s\" for \"%s\"\nRun '%s --help' for usage.", name,
                    cli_program(), cli_program());
}

static int help(int argc, char **argv)
{
    int at = 2;
    const struct command *c = argc > 2 ? find_command(argc, argv, &at) : NULL;
    if (argc > 2 && c == NULL)
        return unknown_command(argv[2]);
    if (c != NULL)
        help_print_command(c);
    else
        help_print();
    return EXIT_OK;
}

/* The arguments from `first` on. `*helped` when help was asked for and given. */
static enum err read_arguments(struct command_line *l, int first, int argc, char **argv, bool *helped)
{
    bool flags_end = false;
    for (int i = first; i < argc && !*helped; i++) {
        bool is_flag = !flags_end && argv[i][0] == '-' && argv[i][1] != '\0';
        if (is_flag && strcmp(argv[i], "--") == 0) {
            flags_end = true;
        } else if (is_flag && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            help_print_command(l->command);
            *helped = true;
        } else if (is_flag) {
            TRY(argv[i][1] == '-' ? read_long(l, argc, argv, &i) : read_short(l, argc, argv, &i));
        } else if (l->args_count == l->command->max_args || l->args_count == ARGS_MAX) {
            cli_fail("unexpected argument \"%s\" for \"%s %s\"", argv[i], cli_program(),
                     l->command->name);
            return ERR_INVALID;
        } else {
            l->args[l->args_count++] = argv[i];
        }
    }
    return OK;
}

int cli_keep(const struct command_line *l)
{
    return keeper_run(l->argv);
}

static int dispatch(struct command_line *l)
{
    if (getenv(KEEPER_ENV) != NULL && l->command->serve != NULL) {
        log_hold(); /* what it tells before it knows its logs */
        int status = l->command->serve(l);
        log_publish(NULL);
        return status;
    }
    return l->command->run(l);
}

int cli_main(int argc, char **argv)
{
    static struct command_line l;
    bool helped = false;
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    called_caddy = argc > 0 && strcmp(slash != NULL ? slash + 1 : argv[0], "caddy") == 0;
    program_name_set(called_caddy);
    if (argc < 2 || strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "-h") == 0)
        return help(argc, argv);
    bool wants_version = strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-v") == 0;
    int at = 1;
    l.argv = argv;
    l.command = wants_version ? find_in(commands, "version") : find_command(argc, argv, &at);
    if (l.command == NULL && argv[1][0] == '-')
        return cli_fail("unknown flag: %s", argv[1]);
    if (l.command == NULL)
        return unknown_command(argv[1]);
    if (read_arguments(&l, at + 1, argc, argv, &helped) != OK)
        return EXIT_STARTUP;
    return helped ? EXIT_OK : dispatch(&l);
}
