/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which file the running configuration came from: SIGUSR1 reads that file again, and none when the
 * configuration came from elsewhere since.
 */
#pragma once

#include "base/slice.h"

void config_source_set(const char *file, const char *adapter);

/* A configuration was loaded that came from this file, by this adapter; "" for none. Forgets the
 * source when it is another one. */
void config_source_check(struct slice file, struct slice adapter);

bool config_source_known(void);
