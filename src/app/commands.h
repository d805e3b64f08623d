/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands; each stands in cmd_NAME.c.
 */
#pragma once

#include "app/cli.h"

extern const struct command command_adapt, command_environ, command_file_server, command_fmt,
    command_hash_password, command_list_modules, command_reload, command_respond,
    command_reverse_proxy, command_run, command_start, command_stop, command_validate,
    command_version;
