/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages with descriptors beside them. A message that is not whole is dropped with all that came
 * along: neither side may be brought to keep descriptors that it has not asked for. MSG_CTRUNC (the
 * receiver is out of descriptors, or more came than a message may carry) counts as not whole.
 */
#include "services/supervisor_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"

union control {
    char bytes[CMSG_SPACE(sizeof(int) * SUPERVISE_FDS)];
    struct cmsghdr align;
};

static enum err send_flags(int fd, const struct supervisor_message *m, const int *fds,
                           unsigned count, int flags)
{
    union control control;
    struct iovec part = {(void *)m, sizeof *m};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ASSERT(count <= SUPERVISE_FDS);
    if (count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
    }
    ssize_t n;
    do {
        n = sendmsg(fd, &message, MSG_NOSIGNAL | flags);
    } while (n < 0 && errno == EINTR);
    if (n == (ssize_t)sizeof *m)
        return OK;
    if (n < 0 && errno == EAGAIN)
        return ERR_TIMEOUT;
    return n < 0 && errno != EPIPE && errno != ECONNRESET && errno != ENOTCONN ? ERR_IO : ERR_CLOSED;
}

enum err supervisor_send(int fd, const struct supervisor_message *m, const int *fds, unsigned count)
{
    return send_flags(fd, m, fds, count, 0);
}

enum err supervisor_offer(int fd, const struct supervisor_message *m, const int *fds,
                          unsigned count)
{
    return send_flags(fd, m, fds, count, MSG_DONTWAIT);
}

static unsigned take_fds(struct msghdr *message, int *fds, unsigned room)
{
    unsigned count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (count < room)
                fds[count++] = fd;
            else
                close(fd);
        }
    }
    return count;
}

enum err supervisor_receive(int fd, struct supervisor_message *m, int *fds, unsigned *count,
                            int flags)
{
    union control control;
    struct iovec part = {m, sizeof *m};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    unsigned room = count != NULL ? *count : 0;
    ssize_t n;
    do {
        n = recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (count != NULL)
        *count = 0;
    if (n < 0)
        return errno == EAGAIN ? ERR_TIMEOUT : ERR_CLOSED;
    unsigned got = take_fds(&message, fds, room);
    if (n == (ssize_t)sizeof *m && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0) {
        if (count != NULL)
            *count = got;
        m->name[sizeof m->name - 1] = '\0';
        m->text[sizeof m->text - 1] = '\0';
        return OK;
    }
    while (got > 0)
        close(fds[--got]);
    return n == 0 ? ERR_CLOSED : ERR_INVALID;
}
