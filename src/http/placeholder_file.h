/* SPDX-License-Identifier: Apache-2.0 */
/*
 * {file.PATH}: what a file holds.
 */
#pragma once

#include "http/exchange.h"

/* Without the line end at its end; nothing, and a line in the log, when it cannot be read, is no
 * plain file or holds more than 1 MiB. Never waits. */
bool placeholder_file(struct exchange *, struct slice path, struct slice *value);
