/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `enforce nftables` of a running portico: the server says what shall hold, the keeper starts a helper
 * process that has the rights to put it in force.
 */
#pragma once

#include "base/slice.h"

/* In the server: the keeper shall make it so. Without "enforce": shall take the table away. */
void ports_ask_keeper(struct slice document);

/* The helper process; returns its exit status. */
int ports_keep(void);
