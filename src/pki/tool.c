/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between fork and exec only what is allowed in a process that had threads. Its output is read until
 * it ends: a tool that leaves a child behind with its output open is not waited for beyond the time.
 */
#include "pki/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/signal_reset.h"

extern char **environ;

bool tool_find(const char *name, char *path, size_t cap)
{
    const char *list = getenv("PATH");
    char all[4096];
    snprintf(all, sizeof all, "%s:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin",
             list != NULL ? list : "");
    struct slice rest = slice_from(all), folder;
    while (rest.len > 0) {
        slice_cut(rest, ':', &folder, &rest);
        if (folder.len == 0 || folder.ptr[0] != '/')
            continue;
        snprintf(path, cap, SLICE_FMT "/%s", SLICE_ARG(folder), name);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

/* --- in the child --- */

struct child {
    const struct tool_call *call;
    char **env;
    int out, told; /* where its output goes; where the errno goes when it cannot be started */
};

_Noreturn static void become_tool(const struct child *c)
{
    const struct tool_user *user = c->call->user;
    int null = open("/dev/null", O_RDONLY);
    signal_reset(); /* the server ignores what its keeper is to act on */
    setpgid(0, 0);
    if (null >= 0 && dup2(null, 0) == 0 && dup2(c->out, 1) == 1 && dup2(c->out, 2) == 2 &&
        (user == NULL || (setgroups(0, NULL) == 0 && setresgid(user->gid, user->gid, user->gid) == 0 &&
                          setresuid(user->uid, user->uid, user->uid) == 0)))
        execve(c->call->path, (char *const *)(uintptr_t)c->call->argv, c->env);
    int error = errno;
    (void)!write(c->told, &error, sizeof error);
    _exit(127);
}

/* The environment with another HOME, and with more. */
static char **env_for(const struct tool_call *call, char *home, size_t cap)
{
    size_t count = 0, more = 0, at = 0;
    while (environ[count] != NULL)
        count++;
    while (call->more_env != NULL && call->more_env[more] != NULL)
        more++;
    char **env = calloc(count + more + 2, sizeof *env);
    if (env == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (call->user == NULL || strncmp(environ[i], "HOME=", 5) != 0)
            env[at++] = environ[i];
    }
    for (size_t i = 0; i < more; i++)
        env[at++] = (char *)(uintptr_t)call->more_env[i];
    if (call->user != NULL) {
        snprintf(home, cap, "HOME=%s", call->user->home);
        env[at] = home;
    }
    return env;
}

/* --- in this process --- */

/* The beginning of a long text gives way to its end. */
static ssize_t read_some(int fd, char output[TOOL_OUTPUT_MAX], size_t *len)
{
    if (*len > TOOL_OUTPUT_MAX / 2) {
        memmove(output, output + *len / 2, *len - *len / 2);
        *len -= *len / 2;
    }
    ssize_t n = read(fd, output + *len, TOOL_OUTPUT_MAX - 1 - *len);
    if (n > 0)
        *len += (size_t)n;
    return n;
}

/* Until the program and all that hold its output have ended, or the time is over. */
static void read_output(int fd, struct tool_end *end, uint64_t deadline_ns)
{
    size_t len = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (uint64_t now; (now = clock_mono_ns()) < deadline_ns;) {
        int ready = poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1);
        if (ready < 0 && errno != EINTR)
            break;
        if (ready <= 0)
            continue;
        ssize_t n = read_some(fd, end->output, &len);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
            break;
    }
    while (len > 0 && (end->output[len - 1] == '\n' || end->output[len - 1] == ' '))
        len--;
    end->output[len] = '\0';
}

/* What has closed its output may still run. */
static void await_end(pid_t pid, struct tool_end *end, uint64_t deadline_ns)
{
    for (;;) {
        pid_t got = waitpid(pid, &end->status, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR))
            return;
        if (!end->late && clock_mono_ns() >= deadline_ns) {
            end->late = true;
            kill(-pid, SIGKILL);
        }
        usleep(2000);
    }
}

static void start_and_await(struct child *c, const int output[2], const int told[2],
                            struct tool_end *end)
{
    uint64_t timeout_ns = c->call->timeout_ns > 0 ? c->call->timeout_ns : TOOL_TIMEOUT_S * NS_PER_S;
    uint64_t deadline_ns = clock_mono_ns() + timeout_ns;
    int error = 0;
    c->out = output[1];
    c->told = told[1];
    pid_t pid = fork();
    if (pid == 0)
        become_tool(c);
    end->error = pid < 0 ? errno : 0;
    close(output[1]);
    close(told[1]);
    if (pid < 0)
        return;
    (void)setpgid(pid, pid); /* whoever comes first */
    if (read(told[0], &error, sizeof error) == (ssize_t)sizeof error) /* else it ends with the exec */
        end->error = error;
    read_output(output[0], end, deadline_ns);
    await_end(pid, end, deadline_ns);
}

enum err tool_call(const struct tool_call *call, struct tool_end *end)
{
    int output[2] = {-1, -1}, told[2] = {-1, -1};
    char home[300];
    *end = (struct tool_end){0};
    struct child c = {.call = call, .env = env_for(call, home, sizeof home)};
    if (c.env == NULL || pipe2(output, O_CLOEXEC) != 0 || pipe2(told, O_CLOEXEC) != 0) {
        end->error = errno;
        if (output[1] >= 0)
            close(output[1]);
    } else {
        start_and_await(&c, output, told, end);
    }
    if (output[0] >= 0)
        close(output[0]);
    if (told[0] >= 0)
        close(told[0]);
    free(c.env);
    if (end->error != 0)
        return err_from_errno(end->error);
    if (end->late)
        return ERR_TIMEOUT;
    return WIFEXITED(end->status) && WEXITSTATUS(end->status) == 0 ? OK : ERR_FAILED;
}

void tool_words(const struct tool_end *end, char *out, size_t cap)
{
    if (end->error != 0)
        snprintf(out, cap, "%s", strerrordesc_np(end->error));
    else if (end->late)
        snprintf(out, cap, "did not end in time and was killed");
    else if (WIFSIGNALED(end->status))
        snprintf(out, cap, "was ended by signal %d", WTERMSIG(end->status));
    else
        snprintf(out, cap, "ended with status %d", WEXITSTATUS(end->status));
}

enum err tool_run(const char *path, const char *const argv[], const struct tool_user *user,
                  char output[TOOL_OUTPUT_MAX])
{
    struct tool_end end;
    enum err e = tool_call(&(struct tool_call){.path = path, .argv = argv, .user = user}, &end);
    memcpy(output, end.output, TOOL_OUTPUT_MAX);
    if (e != OK && (output[0] == '\0' || end.late))
        tool_words(&end, output, TOOL_OUTPUT_MAX);
    return e;
}
