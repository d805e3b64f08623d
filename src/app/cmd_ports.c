/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico ports: the ledger of this machine's ports, and what can be asked of it.
 */
#include "app/cmd_ports.h"

#include "app/cli_help.h"
#include "app/commands.h"

static const struct command *const subs[] = {
    &command_ports_iana,
    NULL,
};

static int run(const struct command_line *l)
{
    help_print_command(l->command);
    return EXIT_OK;
}

const struct command command_ports = {
    .name = "ports",
    .usage = "[command]",
    .help = "Tells about this machine's ports",
    .run = run,
    .subs = subs,
};
