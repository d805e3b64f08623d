/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that may bind one TCP port only: Landlock, Linux 6.7 and later. Port 0 stays allowed,
 * which is how programs ask for any free port. UDP, and sockets that were handed over bound, are not
 * covered.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Whether the kernel has it and has it switched on. */
bool confine_is_there(void);

/* This thread and all that it starts, for good; sets no_new_privs. ERR_UNSUPPORTED where the kernel
 * has it not: then nothing has changed but no_new_privs. `port` 0: none but port 0. */
enum err confine_ports(uint16_t port);
