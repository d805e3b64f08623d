/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the command line tells about itself.
 */
#pragma once

#include "app/cli.h"

/* All commands, or one with its flags, on stdout. */
void help_print(void);
void help_print_command(const struct command *);

/* The flags of a command in the order of their names, `help` among them; at most FLAGS_MAX. */
size_t help_flags(const struct command *, const struct flag **sorted);

/* "string", "int", "strings" …: what stands behind the flag; "" for a switch. */
const char *help_value_name(const struct flag *);
