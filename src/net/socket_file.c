/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bind itself goes by the path, which is what `ss` shows. Had the path been turned to a folder of
 * root's when the place was opened, that is no harm: the place was empty, nobody but root can fill it,
 * and what was bound is somewhere else. A file is opened before it is looked at, and what was looked at
 * is reached by its descriptor from then on.
 */
#include "net/socket_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

int socket_place_open(struct socket_place *p, const char *path)
{
    char folder[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    p->folder = -1;
    p->name = slash != NULL ? slash + 1 : path;
    if (len >= sizeof folder)
        return ENAMETOOLONG;
    memcpy(folder, path, len);
    folder[len] = '\0';
    p->folder = open(len > 0 ? folder : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return p->folder >= 0 ? 0 : errno;
}

void socket_place_close(struct socket_place *p)
{
    if (p->folder >= 0)
        close(p->folder);
    p->folder = -1;
}

/* -1 with errno; else it is a socket. */
static int open_file(const struct socket_place *p, struct stat *s)
{
    int fd = openat(p->folder, p->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, s) != 0 || !S_ISSOCK(s->st_mode))) {
        close(fd);
        errno = EADDRINUSE;
        return -1;
    }
    return fd;
}

/* The name by which a file is reached that has only been opened as a place. */
static void name_of(int file, char *out, size_t cap)
{
    snprintf(out, cap, "/proc/self/fd/%d", file);
}

static bool answers(int file)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    name_of(file, a.sun_path, sizeof a.sun_path);
    bool alive = fd >= 0 && (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 || errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return alive;
}

int socket_place_clear(const struct socket_place *p, bool *alive)
{
    struct stat s;
    int file = open_file(p, &s);
    *alive = false;
    if (file < 0)
        return errno == ENOENT ? 0 : errno;
    *alive = answers(file);
    close(file);
    return *alive ? EADDRINUSE : unlinkat(p->folder, p->name, 0) == 0 ? 0 : errno;
}

static void give(int file, uid_t uid, gid_t gid, const char *name)
{
    if (fchownat(file, "", uid, gid, AT_EMPTY_PATH) != 0)
        LOG(LOG_WARN, "", "a socket file stays root's", LOG_CSTR("path", name),
            LOG_CSTR("error", strerror(errno)));
}

int socket_place_settle(const struct socket_place *p, mode_t mode, uid_t uid, gid_t gid,
                        struct socket_file *out)
{
    char path[32];
    struct stat s;
    int file = open_file(p, &s), e = 0;
    if (file < 0)
        return errno;
    name_of(file, path, sizeof path);
    if ((s.st_mode & 07777) != mode && chmod(path, mode) != 0) /* a folder's own rules (ACLs) */
        e = errno;
    if (uid != 0)
        give(file, uid, gid, p->name);
    *out = (struct socket_file){s.st_dev, s.st_ino};
    close(file);
    return e;
}

void socket_file_remove(const struct socket_file *f, const char *path)
{
    struct socket_place p;
    struct stat s;
    if (socket_place_open(&p, path) == 0 && fstatat(p.folder, p.name, &s, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISSOCK(s.st_mode) && s.st_dev == f->device && s.st_ino == f->inode)
        (void)unlinkat(p.folder, p.name, 0);
    socket_place_close(&p);
}
