/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --envfile: more environment variables, from files.
 */
#pragma once

#include "app/cli.h"

/* Sets what the files of the command line's --envfile flags say; a variable that is set already
 * stays. Prints the error. */
enum err env_load(const struct command_line *);

/* The version, the folders and the environment, as `environ` and `run --environ` print them. */
void env_print(void);
