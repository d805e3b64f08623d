/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both writers of the contract's JSON say alike.
 */
#pragma once

#include "ports/port.h"

enum { PORT_TIME_MAX = 40 };

/* "2026-11-26T04:06:55Z"; returns its length. */
size_t port_time_text(int64_t ns, char out[PORT_TIME_MAX]);

/* "site", "service", "ports"; NULL: not told. */
const char *port_declared_word(enum declared_by);
