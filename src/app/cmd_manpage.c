/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico manpage: a manual page for each command, from the table of commands. The page about the
 * whole program is written by hand (docs/portico.8).
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "app/cli_help.h"
#include "app/commands.h"
#include "app/folders.h"
#include "version.h"

static const struct flag flags[] = {
    {"directory", 'o', true, NULL, "folder to write the pages to; made when it is not there", NULL},
    {0},
};

/* Text for roff: a dash is a dash, a backslash is one, no line begins with a command. "%s" in it is
 * the program's name. */
static void put_text(FILE *f, const char *text)
{
    bool at_start = true;
    for (; *text != '\0'; text++) {
        if (at_start && (*text == '.' || *text == '\''))
            fputs("\\&", f);
        at_start = *text == '\n';
        if (text[0] == '%' && text[1] == 's') {
            fputs(cli_program(), f);
            text++;
        } else if (*text == '-') {
            fputs("\\-", f);
        } else if (*text == '\\') {
            fputs("\\e", f);
        } else {
            fputc(*text, f);
        }
    }
}

/* Empty lines are paragraphs; lines that are indented stay as they are. */
static void put_paragraphs(FILE *f, const char *text)
{
    bool literal = false;
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        char line[512];
        snprintf(line, sizeof line, "%.*s", (int)len, text);
        bool indented = line[0] == ' ';
        if (indented != literal)
            fputs(indented ? ".nf\n" : ".fi\n", f);
        literal = indented;
        if (len == 0)
            fputs(".PP", f);
        else
            put_text(f, line);
        fputc('\n', f);
        text += len + (text[len] == '\n');
    }
    if (literal)
        fputs(".fi\n", f);
}

static void put_upper(FILE *f, const char *text)
{
    for (; *text != '\0'; text++)
        fputc(*text == ' ' ? '-' : toupper((unsigned char)*text), f);
}

/* "ports check" as pages are named: "ports-check". */
static void put_page_name(FILE *f, const char *command)
{
    for (; *command != '\0'; command++)
        fputs(*command == ' ' || *command == '-' ? "\\-" : (char[]){*command, '\0'}, f);
}

static void put_title(FILE *f, const char *command, const char *help)
{
    fputs(".TH \"", f);
    put_upper(f, cli_program());
    fputs(command[0] != '\0' ? "\\-" : "", f);
    put_upper(f, command);
    fprintf(f, "\" \"8\" \"\" \"portico " PORTICO_VERSION "\" \"\"\n.SH NAME\n%s%s", cli_program(),
            command[0] != '\0' ? "\\-" : "");
    put_page_name(f, command);
    fputs(" \\- ", f);
    put_text(f, help);
    fputs("\n", f);
}

static void put_commands(FILE *f, const struct command *const *list)
{
    fputs(".SH COMMANDS\n", f);
    for (; *list != NULL; list++) {
        fprintf(f, ".TP\n.BR %s\\- ", cli_program());
        put_page_name(f, (*list)->name);
        fputs(" (8)\n", f);
        put_text(f, (*list)->help);
        fputc('\n', f);
    }
}

static void write_command(FILE *f, const struct command *c)
{
    const struct flag *sorted[FLAGS_MAX];
    size_t n = help_flags(c, sorted);
    put_title(f, c->name, c->help);
    fprintf(f, ".SH SYNOPSIS\n.B %s ", cli_program());
    put_text(f, c->name);
    fputc('\n', f);
    put_text(f, c->usage[0] != '\0' ? c->usage : "[flags]");
    fputs("\n.SH DESCRIPTION\n", f);
    put_paragraphs(f, c->about != NULL ? c->about : c->help);
    if (c->subs != NULL)
        put_commands(f, c->subs);
    fputs(".SH OPTIONS\n", f);
    for (size_t i = 0; i < n; i++) {
        fputs(".TP\n\\fB", f);
        if (sorted[i]->letter != '\0')
            fprintf(f, "\\-%c\\fR, \\fB", sorted[i]->letter);
        fputs("\\-\\-", f);
        put_text(f, sorted[i]->name);
        fprintf(f, "\\fR%s%s%s\n", sorted[i]->takes_value ? " \\fI" : "", help_value_name(sorted[i]),
                sorted[i]->takes_value ? "\\fR" : "");
        put_text(f, sorted[i]->help);
        if (sorted[i]->fallback != NULL)
            fprintf(f, " (default %s)", sorted[i]->fallback);
        fputc('\n', f);
    }
    fprintf(f, ".SH SEE ALSO\n.BR %s (8)\n", cli_program());
}

static void write_program(FILE *f)
{
    put_title(f, "", "web server and gateway");
    fprintf(f, ".SH SYNOPSIS\n.B %s\n[command]\n", cli_program());
    put_commands(f, commands);
}

static FILE *open_page(const char *folder, const char *command)
{
    char path[FOLDER_MAX];
    snprintf(path, sizeof path, "%s/%s%s%s.8", folder, cli_program(), command[0] != '\0' ? "-" : "",
             command);
    for (char *at = path + strlen(folder); *at != '\0'; at++)
        *at = *at == ' ' ? '-' : *at;
    FILE *f = fopen(path, "we");
    if (f == NULL)
        cli_fail("open %s: %s", path, strerror(errno));
    return f;
}

/* A page for each, and for their subcommands. */
static bool write_pages(const char *folder, const struct command *const *list)
{
    bool good = true;
    for (; good && list != NULL && *list != NULL; list++) {
        FILE *f = open_page(folder, (*list)->name);
        if (f != NULL)
            write_command(f, *list);
        good = f != NULL && fclose(f) == 0 && write_pages(folder, (*list)->subs);
    }
    return good;
}

static int run(const struct command_line *l)
{
    const char *folder = flag_value(l, "directory");
    if (folder == NULL || folder[0] == '\0') {
        cli_fail("designated output directory is required (--directory)");
        return EXIT_QUIT_FAILED;
    }
    if (folder_make(folder, 0755) != OK) {
        cli_fail("mkdir %s: %s", folder, strerror(errno));
        return EXIT_QUIT_FAILED;
    }
    FILE *f = open_page(folder, "");
    if (f != NULL)
        write_program(f);
    bool good = f != NULL && fclose(f) == 0 && write_pages(folder, commands);
    return good ? EXIT_OK : EXIT_QUIT_FAILED;
}

const struct command command_manpage = {
    .name = "manpage",
    .usage = "--directory <path>",
    .help = "Writes a manual page for each command",
    .about = "Writes manual pages of section 8 into a folder: one for the program and one for each\n"
             "command.",
    .flags = flags,
    .run = run,
};
