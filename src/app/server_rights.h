/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the server process may do: it keeps the user that started it, and gives up everything else
 * but reading files.
 */
#pragma once

#include "base/err.h"

/* Before the first thread. Afterwards no exec can gain anything back. */
enum err rights_drop(void);
