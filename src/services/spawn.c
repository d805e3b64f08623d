/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must happen in which order: the control group is joined and limits are raised while there are
 * rights to; the user changes; only then the folder is entered and the program looked for, so that
 * only what the user may reach is reached. PDEATHSIG comes again behind the change of the user, which
 * clears it. Confinement is last but for execve.
 *
 * The program is found in PATH of its own environment, and started without a shell, also where it
 * is a script without a first line that names its interpreter. What goes wrong in the child is told
 * through a pipe that execve closes: silence is success.
 */
#include "services/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/signal_reset.h"
#include "services/confine.h"

struct starting { /* in the child */
    const struct spawn *spawn;
    int report; /* the pipe */
    pid_t parent;
    char **argv, **env; /* end in NULL */
};

_Noreturn static void give_up(const struct starting *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void give_up(const struct starting *s, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0)
        (void)!write(s->report, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    _exit(127);
}

/* --- descriptors --- */

static void place_descriptors(struct starting *s)
{
    const struct spawn *p = s->spawn;
    int from[4] = {p->stdio[0], p->stdio[1], p->stdio[2], p->socket};
    int count = p->socket >= 0 ? 4 : 3;
    for (int i = 0; i < count; i++) /* out of the way of the numbers that they become */
        from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 16);
    s->report = fcntl(s->report, F_DUPFD_CLOEXEC, 16);
    for (int i = 0; i < count; i++) {
        if (from[i] < 0 || dup2(from[i], i) < 0)
            give_up(s, "its descriptors: %s", strerror(errno));
    }
    if (close_range((unsigned)count, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
        for (int fd = count; fd < 65536; fd++) /* before Linux 5.11 */
            (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
}

/* --- limits --- */

static void set_limits(const struct starting *s)
{
    struct rlimit files = s->spawn->files;
    if (s->spawn->launch->files > 0)
        files.rlim_cur = files.rlim_max = s->spawn->launch->files;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0)
        give_up(s, "limits: files %llu: %s", (unsigned long long)files.rlim_cur,
                errno == EPERM ? "more than this process may have itself (ulimit -Hn)"
                               : strerror(errno));
}

static void join_group(const struct starting *s)
{
    if (s->spawn->cgroup < 0)
        return;
    int fd = openat(s->spawn->cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0\n", 2) != 2)
        give_up(s, "its control group: %s", strerror(errno));
    close(fd);
}

/* --- rights --- */

static void become_server(const struct starting *s)
{
    char error[256];
    int kept = s->spawn->server->uid == 0 ? CAP_DAC_READ_SEARCH : -1;
    if (geteuid() == 0) {
        rights_bound(kept);
        if (identity_become(s->spawn->server, error, sizeof error) != OK)
            give_up(s, "%s", error);
        if (kept >= 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
            give_up(s, "no new privileges: %s", strerror(errno));
    }
    if (rights_drop(kept) != OK)
        give_up(s, "its capabilities: %s", strerror(errno));
}

static void become_user(const struct starting *s)
{
    const struct launch *l = s->spawn->launch;
    struct identity who;
    char error[256];
    if (identity_find(l->user, l->group, &who, error, sizeof error) != OK)
        give_up(s, "%s", error);
    if (geteuid() != 0 && !identity_is_mine(&who))
        give_up(s, "user %s: only a portico that root started can run a service as another user",
                who.name);
    if (geteuid() == 0 && !s->spawn->any_user && (who.uid == 0 || who.gid == 0))
        give_up(s, "user %s: a service is root's only when the server is root's, too: remove "
                "portico's own `user`, or choose another one here", who.name);
    bool root = who.uid == 0;
    if (!root)
        rights_bound(-1);
    if (geteuid() == 0 && identity_become(&who, error, sizeof error) != OK)
        give_up(s, "%s", error);
    if (!root && rights_drop(-1) != OK)
        give_up(s, "its capabilities: %s", strerror(errno));
}

static void become_whom(const struct starting *s)
{
    if (s->spawn->launch->user.len > 0)
        become_user(s);
    else
        become_server(s);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != s->parent)
        _exit(1);
}

static void be_confined(const struct starting *s)
{
    const struct launch *l = s->spawn->launch;
    enum err e = l->confine ? confine_ports(l->port) : OK;
    if (e != OK && e != ERR_UNSUPPORTED)
        give_up(s, "confinement to port %u: %s", l->port, err_text(e));
}

static void enter_folder(const struct starting *s)
{
    const char *dir = s->spawn->launch->dir.ptr;
    if (s->spawn->launch->dir.len > 0 && chdir(dir) != 0)
        give_up(s, "dir: %s: %s", dir,
                errno == ENOENT ? "there is no such folder"
                : errno == EACCES ? "its user may not enter it" : strerror(errno));
}

/* --- execve --- */

static const char *why_not(int e, bool searched)
{
    switch (e) {
    case ENOENT:
        return searched ? "there is no such program in its PATH" : "no such file";
    case EACCES:
        return "its user may not execute it";
    case ENOEXEC:
        return "it is no program, and has no first line that names one (#!/bin/sh)";
    default:
        return strerror(e);
    }
}

static const char *value_of(char *const *env, const char *name)
{
    size_t len = strlen(name);
    for (; *env != NULL; env++) {
        if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
            return *env + len + 1;
    }
    return NULL;
}

/* Tries the folders of PATH in turn. A program that is there and may not be run is told rather than
 * that there is none. */
static int exec_in_path(const struct starting *s)
{
    char path[4096];
    int e = ENOENT;
    struct slice dir, rest = slice_from(value_of(s->env, "PATH"));
    if (rest.ptr == NULL || rest.len == 0)
        rest = SLICE("/usr/local/bin:/usr/bin:/bin");
    while (rest.ptr != NULL && rest.len > 0) {
        slice_cut(rest, ':', &dir, &rest);
        int n = snprintf(path, sizeof path, SLICE_FMT "%s%s", SLICE_ARG(dir), dir.len > 0 ? "/" : "",
                         s->argv[0]);
        if (n < 0 || (size_t)n >= sizeof path)
            continue;
        execve(path, s->argv, s->env);
        if (errno != ENOENT && errno != ENOTDIR)
            e = errno;
        if (e == ENOEXEC)
            break;
    }
    return e;
}

_Noreturn static void execute(const struct starting *s)
{
    bool search = strchr(s->argv[0], '/') == NULL;
    int e;
    if (search) {
        e = exec_in_path(s);
    } else {
        execve(s->argv[0], s->argv, s->env);
        e = errno;
        if (e == ENOENT && access(s->argv[0], F_OK) == 0)
            give_up(s, "run: %s: the interpreter that its first line names is not there",
                    s->argv[0]);
    }
    give_up(s, "run: %s: %s", s->argv[0], why_not(e, search));
}

/* --- the child --- */

/* LISTEN_PID is known here only (sd_listen_fds(3)). */
static void say_pid(const struct starting *s)
{
    static char pid[32];
    char **at = s->env;
    if (s->spawn->socket < 0)
        return;
    while (*at != NULL)
        at++;
    snprintf(pid, sizeof pid, "LISTEN_PID=%d", (int)getpid());
    *at = pid; /* two places are kept for it */
}

_Noreturn static void start(struct starting *s)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* and once more behind the change of the user */
    setsid();
    signal_reset();
    place_descriptors(s);
    join_group(s);
    set_limits(s);
    become_whom(s);
    enter_folder(s);
    say_pid(s);
    be_confined(s);
    execute(s);
}

static char **as_strings(const struct slice *words, size_t count, size_t more)
{
    char **out = calloc(count + more + 1, sizeof *out);
    for (size_t i = 0; out != NULL && i < count; i++)
        out[i] = (char *)(uintptr_t)words[i].ptr; /* each ends in NUL (launch.h) */
    return out;
}

/* --- the caller --- */

static size_t read_report(int fd, char *text, size_t cap)
{
    size_t len = 0;
    while (len + 1 < cap) {
        ssize_t n = read(fd, text + len, cap - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
    return len;
}

pid_t spawn_program(const struct spawn *p, char *error, size_t cap)
{
    const struct launch *l = p->launch;
    int pipes[2];
    struct starting s = {p, -1, getpid(), as_strings(l->argv, l->argv_count, 0),
                         as_strings(l->env, l->env_count, 1)};
    pid_t pid = -1;
    if (s.argv != NULL && s.env != NULL && pipe2(pipes, O_CLOEXEC) == 0) {
        s.report = pipes[1];
        pid = fork();
        if (pid == 0)
            start(&s);
        close(pipes[1]);
        if (pid > 0 && read_report(pipes[0], error, cap) > 0)
            pid = 0;
        close(pipes[0]);
    }
    if (pid < 0)
        snprintf(error, cap, "it cannot be started: %s", strerror(errno));
    free(s.argv);
    free(s.env);
    return pid > 0 ? pid : 0;
}
