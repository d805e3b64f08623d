/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands; each stands in a cmd_*.c.
 */
#pragma once

#include "app/cli.h"

extern const struct command command_adapt;
extern const struct command command_environ;
extern const struct command command_fmt;
extern const struct command command_list_modules;
extern const struct command command_reload;
extern const struct command command_run;
extern const struct command command_start;
extern const struct command command_stop;
extern const struct command command_validate;
extern const struct command command_version;
