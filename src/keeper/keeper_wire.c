/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages' size, and that their texts end: what comes is never trusted to hold a NUL.
 */
#include "keeper/keeper_wire.h"

#include <sys/socket.h>

#include "base/fd_message.h"

_Static_assert((int)KEEPER_FDS <= (int)FD_MESSAGE_FDS, "a message takes as many descriptors");

enum err keeper_tell(int fd, const struct keeper_message *m)
{
    return fd_message_send(fd, m, sizeof *m, NULL, 0, MSG_DONTWAIT);
}

enum err keeper_send(int fd, const struct keeper_message *m, const int *fds, unsigned count)
{
    return fd_message_send(fd, m, sizeof *m, fds, count, 0);
}

enum err keeper_receive(int fd, struct keeper_message *m, int *fds, unsigned *count, int flags)
{
    TRY(fd_message_receive(fd, m, sizeof *m, fds, count, flags));
    m->network[sizeof m->network - 1] = '\0';
    m->host[sizeof m->host - 1] = '\0';
    m->text[sizeof m->text - 1] = '\0';
    return OK;
}
