/* SPDX-License-Identifier: Apache-2.0 */
/*
 * By what name the program was called: "portico" or "caddy", which it stands in for.
 */
#pragma once

#include <stdbool.h>

void program_name_set(bool caddy); /* once, by main */
const char *program_name(void);
