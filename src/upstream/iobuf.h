/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fixed buffers for bytes on their way through, recycled by each thread: who streams borrows one
 * for as long as it lasts, so that memory is bounded by what runs at the same time.
 */
#pragma once

#include <stddef.h>

enum { IOBUF_SIZE = 32768, IOBUFS_KEPT = 64 };

char *iobuf_take(void); /* never NULL */
void iobuf_give(char *);

/* At a thread's end. */
void iobuf_thread_deinit(void);
