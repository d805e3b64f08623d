/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico version, list-modules and environ: what this program is, has and sees.
 */
#include <stdio.h>
#include <stdlib.h>

#include "app/commands.h"
#include "app/env_load.h"
#include "app/modules.h"
#include "version.h"

static int run_version(const struct command_line *l)
{
    (void)l;
    puts("v" PORTICO_VERSION);
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
    if (env_load(l) != OK)
        return EXIT_STARTUP;
    env_print();
    return EXIT_OK;
}

static const struct flag environ_flags[] = {
    {"envfile", 0, true, "strings", "environment file to load; may be given several times", NULL,
     FLAG_COMMAS},
    {0},
};

const struct command command_environ = {
    .name = "environ",
    .usage = "[--envfile <path>]",
    .help = "Prints the environment",
    .about = "Prints the version, the folders and the environment variables as the server would see\n"
             "them. They may hold secrets.",
    .flags = environ_flags,
    .run = run_environ,
};
