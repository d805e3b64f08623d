/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands; each stands in a cmd_*.c.
 */
#pragma once

#include "app/cli.h"

extern const struct command command_environ, command_list_modules, command_run, command_validate,
    command_version;
