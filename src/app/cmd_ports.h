/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The subcommands of `portico ports`; what they share is in ports_view.h.
 */
#pragma once

#include "app/cli.h"

extern const struct command command_ports_apply;
extern const struct command command_ports_check;
extern const struct command command_ports_confirm;
extern const struct command command_ports_explain;
extern const struct command command_ports_free;
extern const struct command command_ports_iana;
extern const struct command command_ports_log;
extern const struct command command_ports_rollback;
extern const struct command command_ports_unapply;
extern const struct command command_ports_watch;
