/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's entrance, and the table of its commands.
 */
#include <stdlib.h>

#include "app/commands.h"
#include "app/ports_keep.h"
#include "keeper/keeper.h"

const struct command *const commands[] = {
    &command_adapt,
    &command_build_info,
    &command_completion,
    &command_doctor,
    &command_environ,
    &command_file_server,
    &command_fmt,
    &command_hash_password,
    &command_list_modules,
    &command_manpage,
    &command_ports,
    &command_reload,
    &command_respond,
    &command_reverse_proxy,
    &command_run,
    &command_service,
    &command_start,
    &command_stop,
    &command_trust,
    &command_untrust,
    &command_validate,
    &command_version,
    NULL,
};

int main(int argc, char **argv)
{
    if (getenv(FIREWALL_ENV) != NULL)
        return ports_keep();
    return cli_main(argc, argv);
}
