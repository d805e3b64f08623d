/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages with descriptors beside them. Texts are ended on arrival: what comes is never trusted to
 * hold a NUL.
 */
#include "keeper/keeper_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum err keeper_tell(int fd, const struct keeper_message *m)
{
    ssize_t n;
    do {
        n = send(fd, m, sizeof *m, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n == (ssize_t)sizeof *m)
        return OK;
    return n < 0 && errno == EAGAIN ? ERR_TIMEOUT : ERR_CLOSED;
}

enum err keeper_send(int fd, const struct keeper_message *m, const int *fds, unsigned count)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * KEEPER_FDS)];
        struct cmsghdr align;
    } control;
    struct iovec part = {(void *)m, sizeof *m};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
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
        n = sendmsg(fd, &message, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n == (ssize_t)sizeof *m)
        return OK;
    return n < 0 && errno != EPIPE && errno != ECONNRESET ? ERR_IO : ERR_CLOSED;
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

enum err keeper_receive(int fd, struct keeper_message *m, int *fds, unsigned *count, int flags)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * KEEPER_FDS)];
        struct cmsghdr align;
    } control;
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
    if (count != NULL)
        *count = got;
    if (n == 0)
        return ERR_CLOSED;
    if (n != (ssize_t)sizeof *m) {
        while (got > 0)
            close(fds[--got]);
        return ERR_INVALID;
    }
    m->network[sizeof m->network - 1] = '\0';
    m->host[sizeof m->host - 1] = '\0';
    m->text[sizeof m->text - 1] = '\0';
    return OK;
}
