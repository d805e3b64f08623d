/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys that seal session tickets, for files of tls/ only.
 */
#pragma once

#include <stdbool.h>

struct ssl_ctx_st;

/* Tickets of this context are sealed with the process's keys. */
void tickets_use(struct ssl_ctx_st *);

void tickets_thread_deinit(void);
