/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the shape that people know from Caddy: what it is, Usage, Flags in the order of their names.
 * Texts are plain; "%s" in a command's text is the program's name.
 */
#include "app/cli_help.h"

#include <stdio.h>
#include <stdlib.h>

static const struct flag help_flag = {"help", 'h', false, NULL, "tells about this command", NULL};

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct flag *const *)a)->name, (*(const struct flag *const *)b)->name);
}

size_t help_flags(const struct command *c, const struct flag **sorted)
{
    size_t n = 0;
    for (size_t i = 0; c->flags != NULL && c->flags[i].name != NULL && n + 1 < FLAGS_MAX; i++) {
        if (!c->flags[i].hidden)
            sorted[n++] = &c->flags[i];
    }
    sorted[n++] = &help_flag;
    qsort(sorted, n, sizeof *sorted, by_name);
    return n;
}

const char *help_value_name(const struct flag *f)
{
    if (!f->takes_value)
        return "";
    return f->value_name != NULL ? f->value_name : "string";
}

/* Every "%s" becomes the program's name. */
static void print_text(const char *text)
{
    for (const char *at; (at = strstr(text, "%s")) != NULL; text = at + 2)
        printf("%.*s%s", (int)(at - text), text, cli_program());
    puts(text);
}

static void flag_left(const struct flag *f, char *out, size_t cap)
{
    char letter[8] = "    ";
    const char *value = help_value_name(f);
    if (f->letter != '\0')
        snprintf(letter, sizeof letter, "-%c, ", f->letter);
    snprintf(out, cap, "%s--%s%s%s", letter, f->name, value[0] != '\0' ? " " : "", value);
}

static void print_flags(const struct command *c)
{
    const struct flag *sorted[FLAGS_MAX];
    size_t n = help_flags(c, sorted), width = 0;
    char left[96];
    for (size_t i = 0; i < n; i++) {
        flag_left(sorted[i], left, sizeof left);
        width = strlen(left) > width ? strlen(left) : width;
    }
    puts("\nFlags:");
    for (size_t i = 0; i < n; i++) {
        const struct flag *f = sorted[i];
        flag_left(f, left, sizeof left);
        printf("  %-*s   %s", (int)width, left, f->help);
        if (f->fallback != NULL)
            printf(" (default %s)", f->fallback);
        putchar('\n');
    }
}

void help_print_command(const struct command *c)
{
    print_text(c->about != NULL ? c->about : c->help);
    printf("\nUsage:\n  %s %s %s%s[flags]\n", cli_program(), c->name, c->usage,
           c->usage[0] != '\0' ? " " : "");
    if (c->subs != NULL)
        puts("\nAvailable Commands:");
    for (const struct command *const *s = c->subs; s != NULL && *s != NULL; s++)
        printf("  %-15s %s\n", command_word(*s), (*s)->help);
    print_flags(c);
    if (c->subs != NULL)
        printf("\nUse \"%s %s [command] --help\" for more information about a command.\n",
               cli_program(), c->name);
}

void help_print(void)
{
    print_text("portico is a web server and gateway for Linux. Its Caddyfile, its JSON, its admin API\n"
               "and these commands are Caddy's.\n\n"
               "Usage:\n  %s [command]\n\n"
               "Examples:\n"
               "  $ %s run\n"
               "  $ %s run --config /etc/portico/Caddyfile\n"
               "  $ %s reload --config /etc/portico/Caddyfile\n"
               "  $ %s file-server --listen :8080 --browse\n"
               "  $ %s reverse-proxy --from :8080 --to localhost:3000\n"
               "  $ %s stop\n\n"
               "Available Commands:");
    for (const struct command *const *c = commands; *c != NULL; c++)
        printf("  %-15s %s\n", (*c)->name, (*c)->help);
    printf("\nFlags:\n  -h, --help      tells about %s\n  -v, --version   prints the version\n\n"
           "Use \"%s [command] --help\" for more information about a command.\n", cli_program(),
           cli_program());
}
