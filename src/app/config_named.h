/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration that a command line names.
 */
#pragma once

#include "app/cli.h"
#include "app/config_file.h"

/* What the flags --config and --adapter name, which must be something. Else that has been said, and the
 * status to end with comes back. */
int config_load_named(const struct command_line *, struct loaded_config *);
