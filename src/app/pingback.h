/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How `start` learns that the server runs: it gives the new process random bytes on its standard
 * input, and waits until these come back to a port that it listens on.
 */
#pragma once

#include "base/err.h"

/* In the server, when the configuration runs. Does nothing when the input is empty, as for a
 * server that was started again; what fails is logged. */
void pingback_answer(const char *address);
