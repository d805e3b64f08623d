/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the commands that do nothing without a configuration.
 */
#include "app/config_named.h"

int config_load_named(const struct command_line *l, struct loaded_config *c)
{
    char error[4096];
    if (config_load(flag_value(l, "config"), flag_value(l, "adapter"), c, error, sizeof error) != OK)
        return cli_fail("%s", error);
    if (c->document == NULL)
        return cli_fail("input file required when there is no Caddyfile in current directory (use "
                        "--config flag)");
    return EXIT_OK;
}
