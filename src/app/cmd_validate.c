/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico validate: reads and provisions a configuration, opens nothing.
 */
#include <stdio.h>

#include "app/commands.h"
#include "app/config_named.h"
#include "app/env_load.h"
#include "app/generation.h"

static const struct flag flags[] = {
    {"config", 'c', true, NULL, "configuration file", NULL},
    {"adapter", 'a', true, NULL, "name of the config adapter to apply", NULL},
    {"envfile", 0, true, "strings", "environment file to load; may be given several times", NULL,
     FLAG_COMMAS},
    {0},
};

static int run(const struct command_line *l)
{
    struct loaded_config c;
    struct generation *g;
    char error[2048];
    if (env_load(l) != OK)
        return EXIT_STARTUP;
    int status = config_load_named(l, &c);
    if (status != EXIT_OK)
        return status;
    enum err e = generation_create(c.document, 1, &g, error, sizeof error);
    config_unload(&c);
    if (e != OK)
        return cli_fail("%s", error);
    generation_free(g);
    puts("Valid configuration");
    return EXIT_OK;
}

const struct command command_validate = {
    .name = "validate",
    .usage = "--config <path> [--adapter <name>] [--envfile <path>]",
    .help = "Tests whether a configuration is valid",
    .about = "Reads a configuration and prepares all of it as `%s run` would, but opens no port and\n"
             "starts nothing.",
    .flags = flags,
    .run = run,
};
