/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages' size, and that their texts end.
 */
#include "services/supervisor_wire.h"

#include <sys/socket.h>

#include "base/fd_message.h"

enum err supervisor_send(int fd, const struct supervisor_message *m, const int *fds, unsigned count)
{
    return fd_message_send(fd, m, sizeof *m, fds, count, 0);
}

enum err supervisor_offer(int fd, const struct supervisor_message *m, const int *fds,
                          unsigned count)
{
    return fd_message_send(fd, m, sizeof *m, fds, count, MSG_DONTWAIT);
}

enum err supervisor_receive(int fd, struct supervisor_message *m, int *fds, unsigned *count,
                            int flags)
{
    TRY(fd_message_receive(fd, m, sizeof *m, fds, count, flags));
    m->name[sizeof m->name - 1] = '\0';
    m->text[sizeof m->text - 1] = '\0';
    return OK;
}
