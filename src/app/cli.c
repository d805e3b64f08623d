/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flags are read as the pflag library reads them, which Caddy uses: --name value, --name=value,
 * -n value, -nvalue, switches without a value, "--" ends them; flags and arguments may be mixed.
 */
#include "app/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "keeper/keeper.h"
#include "version.h"

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

bool flag_on(const struct command_line *l, const char *name)
{
    const char *v = flag_value(l, name);
    return v != NULL && strcmp(v, "false") != 0 && strcmp(v, "0") != 0;
}

static enum err keep_value(struct command_line *l, size_t flag, const char *value)
{
    if (l->all_count == FLAG_VALUES_MAX)
        return ERR_LIMIT;
    l->values[flag] = value;
    l->all[l->all_count].flag = l->command->flags[flag].name;
    l->all[l->all_count++].value = value;
    return OK;
}

/* One argument that begins with a dash; *i may move on to its value. */
static enum err read_flag(struct command_line *l, int argc, char **argv, int *i)
{
    const char *text = argv[*i] + (argv[*i][1] == '-' ? 2 : 1), *value = NULL;
    bool is_long = argv[*i][1] == '-';
    size_t len = strcspn(text, "=");
    size_t flag = is_long ? find_flag(l->command, text, len, '\0')
                          : find_flag(l->command, NULL, 0, text[0]);
    if (flag == SIZE_MAX) {
        cli_fail("unknown flag: %s", argv[*i]);
        return ERR_INVALID;
    }
    if (is_long && text[len] == '=')
        value = text + len + 1;
    else if (!is_long && text[1] != '\0')
        value = text[1] == '=' ? text + 2 : text + 1;
    if (value == NULL && !l->command->flags[flag].takes_value)
        value = "true";
    if (value == NULL && *i + 1 < argc)
        value = argv[++*i];
    if (value == NULL) {
        cli_fail("flag needs an argument: %s", argv[*i]);
        return ERR_INVALID;
    }
    return keep_value(l, flag, value);
}

static void print_usage(const struct command *c)
{
    printf("%s\n\nUsage:\n  portico %s %s\n", c->help, c->name, c->usage);
    if (c->flags == NULL || c->flags[0].name == NULL)
        return;
    puts("\nFlags:");
    for (const struct flag *f = c->flags; f->name != NULL; f++) {
        char left[64];
        snprintf(left, sizeof left, "%c%c%s --%s%s%s", f->letter != '\0' ? '-' : ' ',
                 f->letter != '\0' ? f->letter : ' ', f->letter != '\0' ? "," : " ", f->name,
                 f->takes_value ? " " : "", f->takes_value ? f->value_name : "");
        printf("  %-32s %s%s%s%s\n", left, f->help, f->fallback != NULL ? " (default " : "",
               f->fallback != NULL ? f->fallback : "", f->fallback != NULL ? ")" : "");
    }
}

static void print_help(void)
{
    puts("portico is a web server and gateway; its Caddyfile, JSON and commands are Caddy's.\n\n"
         "Usage:\n  portico COMMAND [flags]\n\nCommands:");
    for (const struct command *const *c = commands; *c != NULL; c++)
        printf("  %-15s %s\n", (*c)->name, (*c)->help);
    puts("\nportico COMMAND --help tells more about one.");
}

static const struct command *find_command(const char *name)
{
    for (const struct command *const *c = commands; *c != NULL; c++) {
        if (strcmp((*c)->name, name) == 0)
            return *c;
    }
    return NULL;
}

bool cli_called_caddy(const struct command_line *l)
{
    const char *slash = strrchr(l->argv[0], '/');
    return strcmp(slash != NULL ? slash + 1 : l->argv[0], "caddy") == 0;
}

int cli_keep(const struct command_line *l)
{
    return keeper_run(l->argv);
}

static int dispatch(struct command_line *l)
{
    if (getenv(KEEPER_ENV) != NULL && l->command->serve != NULL)
        return l->command->serve(l);
    return l->command->run(l);
}

int cli_main(int argc, char **argv)
{
    static struct command_line l;
    bool flags_end = false;
    if (argc < 2 || strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "-h") == 0) {
        const struct command *c = argc > 2 ? find_command(argv[2]) : NULL;
        if (c != NULL)
            print_usage(c);
        else
            print_help();
        return EXIT_OK;
    }
    bool wants_version = strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-v") == 0;
    l.argv = argv;
    l.command = find_command(wants_version ? "version" : argv[1]);
    if (l.command == NULL)
        return cli_fail("unknown command \"%s\" for \"portico\"; portico help lists them", argv[1]);
    for (int i = 2; i < argc; i++) {
        if (!flags_end && strcmp(argv[i], "--") == 0) {
            flags_end = true;
        } else if (!flags_end && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            print_usage(l.command);
            return EXIT_OK;
        } else if (!flags_end && argv[i][0] == '-' && argv[i][1] != '\0') {
            if (read_flag(&l, argc, argv, &i) != OK)
                return EXIT_STARTUP;
        } else if (l.args_count == l.command->max_args || l.args_count == ARGS_MAX) {
            return cli_fail("unexpected argument \"%s\" for \"portico %s\"", argv[i],
                            l.command->name);
        } else {
            l.args[l.args_count++] = argv[i];
        }
    }
    return dispatch(&l);
}
