/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The subcommands of `portico ports`; what they share is in ports_common.h.
 */
#pragma once

#include "app/cli.h"

extern const struct command command_ports_iana;
