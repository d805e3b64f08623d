/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing is asked of the keeper and nothing secret leaves the admin API: environment, folder and
 * identity are the running program's, out of /proc, which only root and the same user may read. It
 * is the environment that the program was started with. The program's folder is entered as its user.
 *
 * A program may become a set-user-ID one, and a server that was taken over may name any process: then
 * environment and folder are those of whoever started it, and a command of root's that took them over
 * would load what they say. The kernel keeps whether an execve raised rights, so such a process is
 * refused; and as it may do so at any moment, it is looked at before and behind what is read of it.
 */
#include "services/enter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/buffer.h"
#include "services/confine.h"
#include "services/identity.h"

extern char **environ;

enum { ENVIRONMENT_MAX = 4 << 20, VECTOR_MAX = 1 << 20 };

static enum err complain(pid_t program, char *error, size_t cap)
{
    int e = errno;
    snprintf(error, cap, e == ENOENT || e == ESRCH
                             ? "process %d has just ended"
                             : "process %d can not be joined: only root and its own user may",
             (int)program);
    return err_from_errno(e);
}

static enum err read_all(int fd, struct buffer *b)
{
    for (;;) {
        TRY(buffer_reserve(b, 65536));
        ssize_t n = read(fd, b->ptr + b->len, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_from_errno(errno);
        if (n == 0)
            return OK;
        b->len += (size_t)n;
    }
}

struct joined {
    struct identity who;
    struct buffer bytes; /* of the environment, which points into it */
    char **environment;
    int folder;
    cap_t capabilities;
    bool no_new_privileges;
};

/* --- whose it is --- */

static uint64_t number_at(const char *at, size_t width)
{
    uint32_t narrow;
    uint64_t wide;
    memcpy(width == sizeof narrow ? (void *)&narrow : (void *)&wide, at, width);
    return width == sizeof narrow ? narrow : wide;
}

/* Of the auxiliary vector, pairs of numbers of `width` bytes; -1: it is none of that width. */
static int secure_of(struct slice vector, size_t width)
{
    for (; vector.len >= 2 * width; vector = slice_skip(vector, 2 * width)) {
        uint64_t key = number_at(vector.ptr, width);
        if (key == AT_SECURE)
            return number_at(vector.ptr + width, width) != 0;
        if (key == AT_NULL || key > UINT16_MAX)
            return -1;
    }
    return -1;
}

static bool is_raised(pid_t program)
{
    char path[64];
    struct buffer b;
    snprintf(path, sizeof path, "/proc/%d/auxv", (int)program);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    buffer_init(&b, VECTOR_MAX);
    enum err e = fd >= 0 ? read_all(fd, &b) : ERR_DENIED;
    if (fd >= 0)
        close(fd);
    int secure = e == OK ? secure_of(buffer_slice(&b), 8) : 1;
    if (secure < 0)
        secure = secure_of(buffer_slice(&b), 4); /* a program of 32 bits */
    buffer_deinit(&b);
    return secure != 0;
}

static enum err look(pid_t program, struct identity *who, char *error, size_t cap)
{
    if (identity_of_process(program, who) != OK)
        return complain(program, error, cap);
    if (geteuid() != 0 || !is_raised(program))
        return OK;
    snprintf(error, cap, "process %d has become another program, with more rights than who started "
             "it: it is not joined", (int)program);
    return ERR_DENIED;
}

/* `pin`: its folder in /proc, where nothing is found once it has ended, whoever has its number. */
static enum err look_again(pid_t program, int pin, const struct identity *before, char *error,
                           size_t cap)
{
    struct identity who;
    TRY(look(program, &who, error, cap));
    if (faccessat(pin, "status", F_OK, 0) == 0 && who.uid == before->uid && who.gid == before->gid)
        return OK;
    snprintf(error, cap, "process %d has just become another one", (int)program);
    return ERR_DENIED;
}

/* --- what it has --- */

/* "NAME=value\0…", as strings in the buffer that the array points into. */
static char **split(struct buffer *b)
{
    size_t count = 0, at = 0;
    for (size_t i = 0; i < b->len; i++)
        count += b->ptr[i] == '\0';
    char **out = calloc(count + 1, sizeof *out);
    for (size_t i = 0; out != NULL && i < count; i++) {
        out[i] = b->ptr + at;
        at += strlen(b->ptr + at) + 1;
    }
    return out;
}

static enum err read_environment(pid_t program, struct joined *j, char *error, size_t cap)
{
    char path[64];
    struct buffer *b = &j->bytes;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)program);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return complain(program, error, cap);
    enum err e = read_all(fd, b);
    close(fd);
    if (e == OK && b->len > 0 && b->ptr[b->len - 1] != '\0')
        e = buffer_append_byte(b, '\0');
    j->environment = e == OK ? split(b) : NULL;
    if (j->environment != NULL)
        return OK;
    snprintf(error, cap, "process %d: its environment cannot be read", (int)program);
    return e != OK ? e : ERR_LIMIT;
}

/* Capabilities as well: a service of root's that portico had started without has none here. */
static enum err become(const struct identity *who, cap_t theirs, char *error, size_t cap)
{
    bool whole = geteuid() == 0 && who->uid == 0;
    if (geteuid() == 0 && !identity_is_mine(who)) {
        rights_bound(-1);
        TRY(identity_become(who, error, cap));
    }
    if (whole)
        whole = cap_set_proc(theirs) == 0;
    if (whole || identity_is_mine(who))
        return OK;
    snprintf(error, cap, "only root and the service's own user may do this");
    return ERR_DENIED;
}

static bool same_privileges_needed(pid_t program)
{
    char path[64], line[256];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/status", (int)program);
    FILE *f = fopen(path, "re");
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL)
        found = strncmp(line, "NoNewPrivs:\t1", 13) == 0;
    if (f != NULL)
        fclose(f);
    return found;
}

static enum err read_rest(pid_t program, int pin, struct joined *j, char *error, size_t cap)
{
    j->no_new_privileges = same_privileges_needed(program);
    j->folder = openat(pin, "cwd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    j->capabilities = j->folder >= 0 ? cap_get_pid(program) : NULL;
    return j->capabilities != NULL ? OK : complain(program, error, cap);
}

/* All that is read of it, while it is one and the same process. */
static enum err examine(pid_t program, struct joined *j, char *error, size_t cap)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d", (int)program);
    int pin = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (pin < 0)
        return complain(program, error, cap);
    enum err e = look(program, &j->who, error, cap);
    if (e == OK)
        e = read_environment(program, j, error, cap);
    if (e == OK)
        e = read_rest(program, pin, j, error, cap);
    if (e == OK)
        e = look_again(program, pin, &j->who, error, cap);
    close(pin);
    return e;
}

static enum err enter(const struct joined *j, uint16_t port, bool confine, char **argv, char *error,
                      size_t cap)
{
    TRY(become(&j->who, j->capabilities, error, cap));
    if (fchdir(j->folder) != 0) {
        snprintf(error, cap, "its folder: %s", strerror(errno));
        return err_from_errno(errno);
    }
    if (j->no_new_privileges)
        (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    enum err e = confine ? confine_ports(port) : OK;
    if (e != OK && e != ERR_UNSUPPORTED) {
        snprintf(error, cap, "confinement to port %u: %s", port, err_text(e));
        return e;
    }
    char **own = environ;
    environ = j->environment;
    execvp(argv[0], argv);
    environ = own; /* the other one goes */
    snprintf(error, cap, "%s: %s", argv[0],
             errno == ENOENT ? "there is no such program in the service's PATH" : strerror(errno));
    return ERR_NOT_FOUND;
}

enum err service_enter(pid_t program, uint16_t port, bool confine, char **argv, char *error,
                       size_t cap)
{
    struct joined j = {.folder = -1};
    buffer_init(&j.bytes, ENVIRONMENT_MAX);
    enum err e = examine(program, &j, error, cap);
    if (e == OK)
        e = enter(&j, port, confine, argv, error, cap);
    if (j.folder >= 0)
        close(j.folder);
    cap_free(j.capabilities);
    free(j.environment);
    buffer_deinit(&j.bytes);
    return e;
}
