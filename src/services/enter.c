/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing is asked of the keeper and nothing secret leaves the admin API: environment, folder and
 * identity are the running program's, out of /proc, which only root and the same user may read. It
 * is the environment that the program was started with. The program's folder is entered as its user.
 */
#include "services/enter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/buffer.h"
#include "services/confine.h"
#include "services/identity.h"

extern char **environ;

enum { ENVIRONMENT_MAX = 4 << 20 };

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

static enum err read_environment(pid_t program, char ***out, char *error, size_t cap)
{
    char path[64];
    struct buffer b;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)program);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return complain(program, error, cap);
    buffer_init(&b, ENVIRONMENT_MAX);
    enum err e = read_all(fd, &b);
    close(fd);
    if (e == OK && b.len > 0 && b.ptr[b.len - 1] != '\0')
        e = buffer_append_byte(&b, '\0');
    *out = e == OK ? split(&b) : NULL; /* the bytes stay for the command */
    if (*out != NULL)
        return OK;
    buffer_deinit(&b);
    snprintf(error, cap, "process %d: its environment cannot be read", (int)program);
    return e != OK ? e : ERR_LIMIT;
}

/* Capabilities as well: a service of root's that portico had started without has none here. */
static enum err become(pid_t program, char *error, size_t cap)
{
    struct identity who;
    if (identity_of_process(program, &who) != OK)
        return complain(program, error, cap);
    bool whole = geteuid() == 0 && who.uid == 0;
    cap_t theirs = cap_get_pid(program);
    if (geteuid() == 0 && !identity_is_mine(&who)) {
        rights_bound(-1);
        TRY(identity_become(&who, error, cap));
    }
    if (whole && theirs != NULL)
        whole = cap_set_proc(theirs) == 0;
    cap_free(theirs);
    if (whole || identity_is_mine(&who))
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

enum err service_enter(pid_t program, uint16_t port, bool confine, char **argv, char *error,
                       size_t cap)
{
    char path[64];
    char **environment = NULL;
    bool no_new_privileges = same_privileges_needed(program);
    TRY(read_environment(program, &environment, error, cap));
    snprintf(path, sizeof path, "/proc/%d/cwd", (int)program);
    int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return complain(program, error, cap);
    TRY(become(program, error, cap));
    if (fchdir(folder) != 0) {
        snprintf(error, cap, "its folder: %s", strerror(errno));
        return err_from_errno(errno);
    }
    if (no_new_privileges)
        (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    enum err e = confine ? confine_ports(port) : OK;
    if (e != OK && e != ERR_UNSUPPORTED) {
        snprintf(error, cap, "confinement to port %u: %s", port, err_text(e));
        return e;
    }
    environ = environment;
    execvp(argv[0], argv);
    snprintf(error, cap, "%s: %s", argv[0],
             errno == ENOENT ? "there is no such program in the service's PATH" : strerror(errno));
    return ERR_NOT_FOUND;
}
