/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico validate: reads and provisions a configuration, opens nothing.
 */
#include <stdio.h>

#include "app/commands.h"
#include "app/config_file.h"
#include "app/generation.h"

static const struct flag flags[] = {
    {"config", 'c', true, "FILE", "configuration file", NULL},
    {"adapter", 'a', true, "NAME", "config adapter to apply", NULL},
    {0},
};

static int run(const struct command_line *l)
{
    struct loaded_config c;
    struct generation *g;
    char error[2048];
    if (config_load(flag_value(l, "config"), flag_value(l, "adapter"), &c, error, sizeof error) !=
        OK)
        return cli_fail("%s", error);
    if (c.document == NULL)
        return cli_fail("no configuration file was named, and there is no Caddyfile here");
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
    .usage = "--config FILE [--adapter NAME]",
    .help = "Tests whether a configuration is valid",
    .flags = flags,
    .run = run,
};
