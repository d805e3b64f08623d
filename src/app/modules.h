/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of all modules of this build, by their Caddy ids.
 */
#pragma once

#include "http/module.h"

extern const struct module *const all_modules[]; /* ends with NULL */
