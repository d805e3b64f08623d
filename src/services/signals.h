/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals by their names, for `stop_signal` and for sentences about how a program ended.
 */
#pragma once

#include "base/slice.h"

/* "SIGTERM" or "TERM"; 0 when it is none that a program may be stopped by. */
int signal_number(struct slice name);

/* "SIGSEGV"; "signal 99" has no name: NULL. */
const char *signal_name(int number);
