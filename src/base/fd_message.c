/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSG_CTRUNC (this process is out of descriptors, or more came than a message may carry) counts as
 * not whole, as a wrong size does.
 */
#include "base/fd_message.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"

union control {
    char bytes[CMSG_SPACE(sizeof(int) * FD_MESSAGE_FDS)];
    struct cmsghdr align;
};

enum err fd_message_send(int fd, const void *message, size_t size, const int *fds, unsigned count,
                         int flags)
{
    union control control;
    struct iovec part = {(void *)message, size};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    ASSERT(count <= FD_MESSAGE_FDS);
    if (count > 0) {
        memset(&control, 0, CMSG_SPACE(sizeof(int) * count));
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
    }
    ssize_t n;
    do {
        n = sendmsg(fd, &m, MSG_NOSIGNAL | flags);
    } while (n < 0 && errno == EINTR);
    if (n == (ssize_t)size)
        return OK;
    if (n < 0 && errno == EAGAIN)
        return ERR_TIMEOUT;
    return n < 0 && errno != EPIPE && errno != ECONNRESET && errno != ENOTCONN ? ERR_IO : ERR_CLOSED;
}

/* Those beyond the room are closed, and *more says so. */
static unsigned take_fds(struct msghdr *m, int *fds, unsigned room, bool *more)
{
    unsigned count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            *more = *more || count == room;
            if (count < room)
                fds[count++] = fd;
            else
                close(fd);
        }
    }
    return count;
}

enum err fd_message_receive(int fd, void *message, size_t size, int *fds, unsigned *count, int flags)
{
    union control control;
    struct iovec part = {message, size};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    unsigned room = count != NULL ? *count : 0;
    bool more = false;
    ssize_t n;
    do {
        n = recvmsg(fd, &m, flags | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (count != NULL)
        *count = 0;
    if (n < 0)
        return errno == EAGAIN ? ERR_TIMEOUT : ERR_CLOSED;
    unsigned got = take_fds(&m, fds, room, &more);
    bool whole = n == (ssize_t)size && (m.msg_flags & MSG_TRUNC) == 0;
    if (whole && !more && (m.msg_flags & MSG_CTRUNC) == 0) {
        if (count != NULL)
            *count = got;
        return OK;
    }
    while (got > 0)
        close(fds[--got]);
    if (n == 0)
        return ERR_CLOSED;
    return whole ? ERR_LIMIT : ERR_INVALID;
}
