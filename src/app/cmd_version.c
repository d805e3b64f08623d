/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico version, build-info, list-modules and environ: what this program is, has and sees.
 */
#include <ares.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "app/commands.h"
#include "app/env_load.h"
#include "app/modules.h"
#include "loop/loop.h"
#include "version.h"

enum { MODULES_MAX = 512 };

static int run_version(const struct command_line *l)
{
    (void)l;
    puts("v" PORTICO_VERSION);
    return EXIT_OK;
}

const struct command command_version = {
    .name = "version", .usage = "", .help = "Prints the version", .run = run_version};

/* --- build-info --- */

static int run_build_info(const struct command_line *l)
{
    struct utsname u;
    (void)l;
    printf("portico\tv" PORTICO_VERSION "\ncompiler\t%s\n", __VERSION__);
    printf("jansson\t%s\n", JANSSON_VERSION);
    printf("c-ares\t%s\n", ares_version(NULL));
    if (uname(&u) == 0)
        printf("kernel\t%s %s\n", u.release, u.machine);
    printf("io_uring\t%s\n", loop_probe_uring() ? "yes" : "no");
    return EXIT_OK;
}

const struct command command_build_info = {
    .name = "build-info",
    .usage = "",
    .help = "Prints information about this build",
    .about = "Prints the version, the compiler, libraries, and whether io_uring is to be had here.",
    .run = run_build_info,
};

/* --- list-modules --- */

static const struct flag module_flags[] = {
    {"packages", 0, false, NULL, "print which package each comes from", NULL},
    {"versions", 0, false, NULL, "print versions", NULL},
    {"skip-standard", 's', false, NULL, "leave the standard ones out, which are all there are", NULL},
    {"json", 0, false, NULL, "print JSON", NULL},
    {0},
};

static int by_id(const void *a, const void *b)
{
    return strcmp((*(const struct module *const *)a)->id, (*(const struct module *const *)b)->id);
}

static size_t sort_modules(const struct module *sorted[MODULES_MAX])
{
    size_t n = 0;
    while (all_modules[n] != NULL && n < MODULES_MAX) {
        sorted[n] = all_modules[n];
        n++;
    }
    qsort(sorted, n, sizeof sorted[0], by_id);
    return n;
}

static int print_json(const struct module *const *sorted, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s}", "module_name", sorted[i]->id,
                                              "module_type", "standard", "version",
                                              "v" PORTICO_VERSION, "package_url", "portico"));
    char *text = json_dumps(list, JSON_INDENT(2));
    puts(text);
    free(text);
    json_decref(list);
    return EXIT_OK;
}

static int run_modules(const struct command_line *l)
{
    const struct module *sorted[MODULES_MAX];
    size_t n = sort_modules(sorted);
    bool skip = flag_on(l, "skip-standard");
    if (flag_on(l, "json"))
        return print_json(sorted, skip ? 0 : n);
    for (size_t i = 0; i < n && !skip; i++)
        printf("%s%s%s\n", sorted[i]->id, flag_on(l, "versions") ? " v" PORTICO_VERSION : "",
               flag_on(l, "packages") ? " portico" : "");
    if (!skip)
        printf("\n  Standard modules: %zu\n", n);
    return EXIT_OK;
}

const struct command command_list_modules = {
    .name = "list-modules",
    .usage = "[--packages] [--versions] [--skip-standard] [--json]",
    .help = "Lists the modules of this build",
    .flags = module_flags,
    .run = run_modules,
};

/* --- environ --- */

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
