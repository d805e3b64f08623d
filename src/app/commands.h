/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands; each stands in a cmd_*.c.
 */
#pragma once

#include "app/cli.h"

extern const struct command command_adapt;
extern const struct command command_build_info;
extern const struct command command_completion;
extern const struct command command_doctor;
extern const struct command command_environ;
extern const struct command command_file_server;
extern const struct command command_fmt;
extern const struct command command_hash_password;
extern const struct command command_list_modules;
extern const struct command command_manpage;
extern const struct command command_ports;
extern const struct command command_reload;
extern const struct command command_respond;
extern const struct command command_reverse_proxy;
extern const struct command command_run;
extern const struct command command_service;
extern const struct command command_start;
extern const struct command command_stop;
extern const struct command command_trust;
extern const struct command command_untrust;
extern const struct command command_validate;
extern const struct command command_version;
