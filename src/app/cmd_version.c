/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico version, list-modules and environ: what this program is, has and sees.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "app/commands.h"
#include "app/modules.h"
#include "version.h"

static int run_version(const struct command_line *l)
{
    (void)l;
    puts("portico v" PORTICO_VERSION);
    return EXIT_OK;
}

const struct command command_version = {
    .name = "version", .usage = "", .help = "Prints the version", .run = run_version};

static int by_id(const void *a, const void *b)
{
    return strcmp((*(const struct module *const *)a)->id, (*(const struct module *const *)b)->id);
}

static int run_modules(const struct command_line *l)
{
    const struct module *sorted[256];
    size_t n = 0;
    (void)l;
    while (all_modules[n] != NULL && n < 256) {
        sorted[n] = all_modules[n];
        n++;
    }
    qsort(sorted, n, sizeof sorted[0], by_id);
    for (size_t i = 0; i < n; i++)
        puts(sorted[i]->id);
    printf("\n  Standard modules: %zu\n", n);
    return EXIT_OK;
}

const struct command command_list_modules = {
    .name = "list-modules", .usage = "", .help = "Lists the modules", .run = run_modules};

static int run_environ(const struct command_line *l)
{
    extern char **environ;
    char folder[4096];
    (void)l;
    puts("portico.Version=v" PORTICO_VERSION);
    if (getcwd(folder, sizeof folder) != NULL)
        printf("os.Getwd=%s\n", folder);
    for (char **e = environ; *e != NULL; e++)
        puts(*e);
    return EXIT_OK;
}

const struct command command_environ = {
    .name = "environ", .usage = "", .help = "Prints the environment", .run = run_environ};
