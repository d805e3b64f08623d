/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico adapt: prints a configuration as JSON, and on stderr what the adapter warns of.
 */
#include <stdio.h>

#include "app/commands.h"
#include "app/config_named.h"
#include "app/env_load.h"
#include "app/generation.h"
#include "base/buffer.h"
#include "config/jsonx.h"

static const struct flag flags[] = {
    {"config", 'c', true, "FILE", "configuration file to adapt, - for standard input", NULL},
    {"adapter", 'a', true, "NAME", "config adapter to use", "caddyfile"},
    {"pretty", 'p', false, NULL, "indent the JSON for people", NULL},
    {"envfile", 0, true, "strings", "environment file to load; may be given several times", NULL,
     FLAG_COMMAS},
    {"validate", 0, false, NULL, "also test whether the result would run", NULL},
    {0},
};

static int print_document(const json_t *document, bool pretty)
{
    struct buffer out;
    buffer_init(&out, SIZE_MAX);
    enum err e = pretty ? jsonx_dump_pretty(&out, document) : jsonx_dump(&out, document);
    if (e == OK)
        e = buffer_append_byte(&out, '\n');
    bool written = e == OK && fwrite(out.ptr, 1, out.len, stdout) == out.len && fflush(stdout) == 0;
    buffer_deinit(&out);
    return written ? EXIT_OK : cli_fail("writing the JSON");
}

static int validate(json_t *document)
{
    struct generation *g;
    char error[2048];
    if (generation_create(document, 1, &g, error, sizeof error) != OK)
        return cli_fail("validation: %s", error);
    generation_free(g);
    return EXIT_OK;
}

static int run(const struct command_line *l)
{
    struct loaded_config c;
    if (env_load(l) != OK)
        return EXIT_STARTUP;
    int status = config_load_named(l, &c);
    if (status != EXIT_OK)
        return status;
    status = print_document(c.document, flag_on(l, "pretty"));
    config_warn(c.adapter, c.warnings);
    if (status == EXIT_OK && flag_on(l, "validate"))
        status = validate(c.document);
    config_unload(&c);
    return status;
}

const struct command command_adapt = {
    .name = "adapt",
    .usage = "--config FILE [--adapter NAME] [--pretty] [--validate] "
             "[--envfile FILE]",
    .help = "Adapts a configuration to JSON",
    .flags = flags,
    .run = run,
};
