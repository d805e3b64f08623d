/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of one size over a SOCK_SEQPACKET pair, with descriptors beside them (SCM_RIGHTS). One that
 * is not whole loses all descriptors that came along: neither side may be brought to keep descriptors
 * that it has not asked for.
 */
#pragma once

#include <stddef.h>

#include "base/err.h"

enum { FD_MESSAGE_FDS = 250 }; /* the kernel takes 253 */

/* `flags`: MSG_DONTWAIT gives ERR_TIMEOUT where there is no room. ERR_CLOSED: the other end left. */
enum err fd_message_send(int fd, const void *message, size_t size, const int *fds, unsigned count,
                         int flags);

/* `count`: room in, received out, or NULL for none; descriptors come close-on-exec. ERR_INVALID: not
 * of that size. ERR_LIMIT: a message, but for its descriptors there was no room, here or in this
 * process: they are closed. */
enum err fd_message_receive(int fd, void *message, size_t size, int *fds, unsigned *count, int flags);
