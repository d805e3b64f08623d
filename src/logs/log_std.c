/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stdout, stderr and discard. The log thread must never block on them, and must not make them
 * non-blocking either, for the open file is shared with the shell or whoever else has it. So a pipe
 * or a terminal is opened anew through /proc, which gives an open file of our own; a socket takes
 * MSG_DONTWAIT; where neither goes, small pieces are written when poll says so. A file that stderr
 * was redirected to is written as it is: opening it anew would lose its position.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/list.h"
#include "base/mem.h"
#include "logs/writers.h"

enum { PIECE = 512 }; /* what poll's word is trusted for */

struct std_writer {
    struct log_writer writer;
    int fd;
    enum { WRITES, SENDS, POLLS } way;
    bool own;
};

static enum err give(struct std_writer *s, struct slice bytes, size_t *taken)
{
    struct pollfd p = {.fd = s->fd, .events = POLLOUT};
    if (s->way == POLLS) {
        if (poll(&p, 1, 0) != 1)
            return ERR_TIMEOUT;
        bytes = slice_take(bytes, PIECE);
    }
    ssize_t n = s->way == SENDS ? send(s->fd, bytes.ptr, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL)
                                : write(s->fd, bytes.ptr, bytes.len);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? ERR_TIMEOUT : err_from_errno(errno);
    *taken = (size_t)n;
    return n > 0 ? OK : ERR_IO;
}

static enum err on_write(struct log_writer *w, struct slice bytes, size_t *taken)
{
    return give(CONTAINER_OF(w, struct std_writer, writer), bytes, taken);
}

static int on_poll_fd(struct log_writer *w)
{
    return CONTAINER_OF(w, struct std_writer, writer)->fd;
}

static void on_close(struct log_writer *w)
{
    struct std_writer *s = CONTAINER_OF(w, struct std_writer, writer);
    if (s->own)
        close(s->fd);
    mem_free(s);
}

static const struct log_writer_type std_type = {on_write, on_poll_fd, NULL, on_close, NULL};

static void choose_way(struct std_writer *s, int fd)
{
    struct stat st;
    char path[32];
    s->fd = fd;
    if (fstat(fd, &st) != 0)
        return;
    if (S_ISSOCK(st.st_mode)) {
        s->way = SENDS;
    } else if (S_ISFIFO(st.st_mode) || isatty(fd)) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        s->way = own >= 0 ? WRITES : POLLS;
        s->own = own >= 0;
        if (s->own)
            s->fd = own;
    }
}

static struct std_writer *open_std(int fd, const char *name)
{
    struct std_writer *s = NEW(struct std_writer);
    s->writer.type = &std_type;
    s->writer.name = name;
    choose_way(s, fd);
    return s;
}

static enum err open_stdout(const void *cfg, struct log_writer **out, char *error, size_t cap)
{
    *out = &open_std(STDOUT_FILENO, "stdout")->writer;
    return OK;
}

static enum err open_stderr(const void *cfg, struct log_writer **out, char *error, size_t cap)
{
    *out = &open_std(STDERR_FILENO, "stderr")->writer;
    return OK;
}

static struct slice stdout_key(const void *cfg)
{
    return SLICE("std:out");
}

static struct slice stderr_key(const void *cfg)
{
    return SLICE("std:err");
}

static struct slice discard_key(const void *cfg)
{
    return SLICE("discard");
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"output", NULL};
    return json == NULL ? OK : provision_members(p, json, members);
}

static const struct log_writer_face stdout_face = {stdout_key, open_stdout, NULL, true, false};
static const struct log_writer_face stderr_face = {stderr_key, open_stderr, NULL, true, false};
static const struct log_writer_face discard_face = {discard_key, NULL, NULL, false, true};

const struct module log_writer_stdout = {
    .id = "caddy.logging.writers.stdout", .cfg_size = 1, .provision = provision,
    .face = &stdout_face};
const struct module log_writer_stderr = {
    .id = "caddy.logging.writers.stderr", .cfg_size = 1, .provision = provision,
    .face = &stderr_face};
const struct module log_writer_discard = {
    .id = "caddy.logging.writers.discard", .cfg_size = 1, .provision = provision,
    .face = &discard_face};
