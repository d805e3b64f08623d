/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command beside a program that runs, with the same user, environment, folder and confinement, and
 * the stdio of whoever calls: `portico service exec NAME -- COMMAND`.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Becomes the command, or returns with a sentence. What it needs is read from /proc, so that the
 * kernel decides who may: root, or the same user. `port` and `confine`: as the program was started. */
enum err service_enter(pid_t program, uint16_t port, bool confine, char **argv, char *error,
                       size_t cap);
