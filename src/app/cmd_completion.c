/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico completion: scripts that let a shell complete commands, flags and files. Made from the
 * table of commands, so that they know what this build knows.
 */
#include <stdio.h>

#include "app/cli_help.h"
#include "app/commands.h"

/* The words that may follow: "--config --adapter …" of a command. */
static void put_flags(const struct command *c, const char *before, const char *behind)
{
    const struct flag *flags[FLAGS_MAX];
    size_t n = help_flags(c, flags);
    for (size_t i = 0; i < n; i++)
        printf("%s--%s%s", before, flags[i]->name, behind);
}

static void put_command_names(void)
{
    for (const struct command *const *c = commands; *c != NULL; c++)
        printf("%s ", (*c)->name);
    printf("help");
}

static void print_bash(const char *me)
{
    printf("# bash completion of %s\n_%s() {\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} flags\n"
           "    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ] || [ \"$command\" = help ]; then\n"
           "        COMPREPLY=($(compgen -W '", me, me);
    put_command_names();
    printf("' -- \"$word\"))\n        return\n    fi\n    case $command in\n");
    for (const struct command *const *c = commands; *c != NULL; c++) {
        printf("    %s) flags='", (*c)->name);
        put_flags(*c, "", " ");
        printf("' ;;\n");
    }
    printf("    esac\n"
           "    case $command:$word in\n"
           "    *:-*) COMPREPLY=($(compgen -W \"$flags\" -- \"$word\")) ;;\n"
           "    completion:*) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$word\")) ;;\n"
           "    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n"
           "    esac\n}\ncomplete -o filenames -F _%s %s\n", me, me);
}

/* Within '…' of zsh and fish; brackets and colons mean something to zsh's _arguments. */
static void put_quoted(const char *text, bool zsh)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs(zsh ? "'\\''" : "\\'", stdout);
        else if (zsh && (*text == '[' || *text == ']' || *text == ':'))
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void print_zsh(const char *me)
{
    printf("#compdef %s\n# zsh completion of %s\n_%s() {\n    local -a commands\n    commands=(\n", me,
           me, me);
    for (const struct command *const *c = commands; *c != NULL; c++) {
        printf("        '%s:", (*c)->name);
        put_quoted((*c)->help, true);
        printf("'\n");
    }
    printf("        'help:Tells about a command'\n    )\n"
           "    if (( CURRENT == 2 )) || [[ $words[2] == help ]]; then\n"
           "        _describe command commands\n        return\n    fi\n"
           "    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $command in\n");
    for (const struct command *const *c = commands; *c != NULL; c++) {
        const struct flag *flags[FLAGS_MAX];
        size_t n = help_flags(*c, flags);
        printf("    %s) _arguments", (*c)->name);
        for (size_t i = 0; i < n; i++) {
            printf(" \\\n        '%s--%s%s[", flags[i]->list != FLAG_ONE ? "*" : "", flags[i]->name,
                   flags[i]->takes_value ? "=" : "");
            put_quoted(flags[i]->help, true);
            printf("]%s'", flags[i]->takes_value ? ":value:_files" : "");
        }
        printf(" \\\n        %s ;;\n", strcmp((*c)->name, "completion") == 0
                                           ? "'1:shell:(bash zsh fish)'" : "'*:argument:_files'");
    }
    printf("    esac\n}\ncompdef _%s %s\n", me, me);
}

static void print_fish(const char *me)
{
    printf("# fish completion of %s\n", me);
    for (const struct command *const *c = commands; *c != NULL; c++) {
        const struct flag *flags[FLAGS_MAX];
        size_t n = help_flags(*c, flags);
        printf("complete -c %s -n __fish_use_subcommand -f -a %s -d '", me, (*c)->name);
        put_quoted((*c)->help, false);
        printf("'\n");
        for (size_t i = 0; i < n; i++) {
            printf("complete -c %s -n '__fish_seen_subcommand_from %s' -l %s", me, (*c)->name,
                   flags[i]->name);
            if (flags[i]->letter != '\0')
                printf(" -s %c", flags[i]->letter);
            printf("%s -d '", flags[i]->takes_value ? " -r" : "");
            put_quoted(flags[i]->help, false);
            printf("'\n");
        }
    }
    printf("complete -c %s -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'\n", me);
}

static int run(const struct command_line *l)
{
    const char *shell = l->args_count > 0 ? l->args[0] : "";
    if (strcmp(shell, "bash") == 0)
        print_bash(cli_program());
    else if (strcmp(shell, "zsh") == 0)
        print_zsh(cli_program());
    else if (strcmp(shell, "fish") == 0)
        print_fish(cli_program());
    else if (shell[0] == '\0')
        return cli_fail("accepts 1 arg(s), received 0");
    else
        return cli_fail("invalid argument \"%s\" for \"%s completion\": there are bash, zsh and fish",
                        shell, cli_program());
    return EXIT_OK;
}

const struct command command_completion = {
    .name = "completion",
    .usage = "[bash|zsh|fish]",
    .help = "Generates a completion script for a shell",
    .about = "Prints a script that makes a shell complete commands and flags.\n\n"
             "bash:\n  $ source <(%s completion bash)\n"
             "  $ %s completion bash > /etc/bash_completion.d/%s\n"
             "zsh:\n  $ %s completion zsh > \"${fpath[1]}/_%s\"\n"
             "fish:\n  $ %s completion fish > ~/.config/fish/completions/%s.fish",
    .max_args = 1,
    .run = run,
};
