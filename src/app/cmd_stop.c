/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico stop: tells a running server, through its admin API, to finish and end.
 */
#include "app/admin_client.h"
#include "app/commands.h"
#include "app/config_file.h"

static const struct flag flags[] = {
    {"config", 'c', true, NULL, "configuration file that tells the admin address, without --address",
     NULL},
    {"adapter", 'a', true, NULL, "name of the config adapter to apply (with --config)", NULL},
    {"address", 0, true, NULL, "address of the admin API, when it is not the default", NULL},
    {0},
};

static int run(const struct command_line *l)
{
    char error[2048];
    struct loaded_config c = {0};
    const char *config = flag_value(l, "config"), *address = flag_value(l, "address");
    if (config != NULL && address == NULL &&
        config_load(config, flag_value(l, "adapter"), &c, error, sizeof error) != OK)
        return cli_fail("couldn't determine admin API address: %s", error);
    struct admin_call call = {.address = admin_address(address, c.document), .method = "POST",
                              .path = "/stop", .fields = SLICE("")};
    enum err e = admin_request(&call, error, sizeof error);
    config_unload(&c);
    return e == OK ? EXIT_OK : cli_fail("%s", error);
}

const struct command command_stop = {
    .name = "stop",
    .usage = "[--config <path> [--adapter <name>]] [--address <interface>]",
    .help = "Gracefully stops a server that was started",
    .about = "Asks the running server to finish what it does and end, through its admin API. Where\n"
             "that is, --address says, or the configuration file of --config, or the environment\n"
             "variable CADDY_ADMIN; otherwise it is localhost:2019.",
    .flags = flags,
    .run = run,
};
