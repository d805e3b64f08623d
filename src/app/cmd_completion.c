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

static void put_words(const struct command *const *list)
{
    for (; *list != NULL; list++)
        printf("%s ", command_word(*list));
}

/* For each command that has subcommands: their flags, and at their place their names. */
static void put_bash_subs(void)
{
    printf("    case \"$command ${COMP_WORDS[2]}\" in\n");
    for (const struct command *const *c = commands; *c != NULL; c++) {
        for (const struct command *const *s = (*c)->subs; s != NULL && *s != NULL; s++) {
            printf("    '%s') flags='", (*s)->name);
            put_flags(*s, "", " ");
            printf("' ;;\n");
        }
    }
    printf("    esac\n    case $COMP_CWORD:$command:$word in\n    *:-*) ;;\n");
    for (const struct command *const *c = commands; *c != NULL; c++) {
        if ((*c)->subs == NULL)
            continue;
        printf("    2:%s:*) COMPREPLY=($(compgen -W '", (*c)->name);
        put_words((*c)->subs);
        printf("' -- \"$word\"))\n        return ;;\n");
    }
    printf("    esac\n");
}

static void print_bash(const char *me)
{
    printf("# bash completion of %s\n_%s() {\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} flags\n"
           "    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ] || [ \"$command\" = help ]; then\n"
           "        COMPREPLY=($(compgen -W '", me, me);
    put_words(commands);
    printf("help' -- \"$word\"))\n        return\n    fi\n    case $command in\n");
    for (const struct command *const *c = commands; *c != NULL; c++) {
        printf("    %s) flags='", (*c)->name);
        put_flags(*c, "", " ");
        printf("' ;;\n");
    }
    printf("    esac\n");
    put_bash_subs();
    printf("    case $command:$word in\n"
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

static void put_zsh_arguments(const struct command *c)
{
    const struct flag *flags[FLAGS_MAX];
    size_t n = help_flags(c, flags);
    printf("_arguments");
    for (size_t i = 0; i < n; i++) {
        printf(" \\\n        '%s--%s%s[", flags[i]->list != FLAG_ONE ? "*" : "", flags[i]->name,
               flags[i]->takes_value ? "=" : "");
        put_quoted(flags[i]->help, true);
        printf("]%s'", flags[i]->takes_value ? ":value:_files" : "");
    }
    printf(" \\\n        ");
    if (c->subs != NULL) {
        printf("'1:command:(");
        put_words(c->subs);
        printf(")' '*:argument:_files' ;;\n");
    } else {
        printf("%s ;;\n", strcmp(c->name, "completion") == 0 ? "'1:shell:(bash zsh fish)'"
                                                             : "'*:argument:_files'");
    }
}

static void put_zsh_subs(const struct command *c)
{
    printf("    %s) case $words[2] in\n", c->name);
    for (const struct command *const *s = c->subs; *s != NULL; s++) {
        printf("    %s) shift words; (( CURRENT-- )); ", command_word(*s));
        put_zsh_arguments(*s);
    }
    printf("    *) ");
    put_zsh_arguments(c);
    printf("    esac ;;\n");
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
        if ((*c)->subs != NULL) {
            put_zsh_subs(*c);
            continue;
        }
        printf("    %s) ", (*c)->name);
        put_zsh_arguments(*c);
    }
    printf("    esac\n}\ncompdef _%s %s\n", me, me);
}

static void put_fish_flag(const char *me, const char *word, const struct flag *f)
{
    printf("complete -c %s -n '__fish_seen_subcommand_from %s' -l %s", me, word, f->name);
    if (f->letter != '\0')
        printf(" -s %c", f->letter);
    printf("%s -d '", f->takes_value ? " -r" : "");
    put_quoted(f->help, false);
    printf("'\n");
}

/* fish looks at any word, so that a flag of the command is not told again for its subcommand. */
static void put_fish_sub(const char *me, const struct command *c, const struct command *s)
{
    const struct flag *flags[FLAGS_MAX], *of_command[FLAGS_MAX];
    size_t n = help_flags(s, flags), m = help_flags(c, of_command);
    printf("complete -c %s -n '__fish_seen_subcommand_from %s' -f -a %s -d '", me, c->name,
           command_word(s));
    put_quoted(s->help, false);
    printf("'\n");
    for (size_t i = 0; i < n; i++) {
        bool told = false;
        for (size_t k = 0; k < m; k++)
            told = told || strcmp(of_command[k]->name, flags[i]->name) == 0;
        if (!told)
            put_fish_flag(me, command_word(s), flags[i]);
    }
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
        for (size_t i = 0; i < n; i++)
            put_fish_flag(me, (*c)->name, flags[i]);
        for (const struct command *const *s = (*c)->subs; s != NULL && *s != NULL; s++)
            put_fish_sub(me, *c, *s);
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
