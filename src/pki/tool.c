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

_Noreturn static void become_tool(const char *path, const char *const argv[],
                                  const struct tool_user *user, char **env, int out)
{
    int null = open("/dev/null", O_RDONLY);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(126);
    if (user != NULL && (setgroups(0, NULL) != 0 || setresgid(user->gid, user->gid, user->gid) != 0 ||
                         setresuid(user->uid, user->uid, user->uid) != 0))
        _exit(126);
    execve(path, (char *const *)(uintptr_t)argv, env);
    _exit(127);
}

/* The environment with another HOME. */
static char **env_for(const struct tool_user *user, char *home, size_t cap)
{
    size_t count = 0, at = 0;
    while (environ[count] != NULL)
        count++;
    char **env = calloc(count + 2, sizeof *env);
    if (env == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (user == NULL || strncmp(environ[i], "HOME=", 5) != 0)
            env[at++] = environ[i];
    }
    if (user != NULL) {
        snprintf(home, cap, "HOME=%s", user->home);
        env[at] = home;
    }
    return env;
}

/* Until the end of its output, or the time is over; keeps the end of what was said. */
static void read_output(int fd, char output[TOOL_OUTPUT_MAX], uint64_t deadline_ns)
{
    size_t len = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (uint64_t now; (now = clock_mono_ns()) < deadline_ns;) {
        int ready = poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1);
        if (ready < 0 && errno != EINTR)
            break;
        if (ready <= 0)
            continue;
        if (len > TOOL_OUTPUT_MAX / 2) {
            memmove(output, output + len / 2, len - len / 2);
            len -= len / 2;
        }
        ssize_t n = read(fd, output + len, TOOL_OUTPUT_MAX - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    while (len > 0 && (output[len - 1] == '\n' || output[len - 1] == ' '))
        len--;
    output[len] = '\0';
}

static enum err end_of(pid_t pid, uint64_t deadline_ns, char output[TOOL_OUTPUT_MAX])
{
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (clock_mono_ns() > deadline_ns) {
            kill(-pid, SIGKILL);
            waitpid(pid, &status, 0);
            snprintf(output, TOOL_OUTPUT_MAX, "it took more than %d s and was ended", TOOL_TIMEOUT_S);
            return ERR_TIMEOUT;
        }
        usleep(2000);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return OK;
    if (output[0] == '\0')
        snprintf(output, TOOL_OUTPUT_MAX, WIFEXITED(status) ? "exit status %d" : "ended by signal %d",
                 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return ERR_FAILED;
}

enum err tool_run(const char *path, const char *const argv[], const struct tool_user *user,
                  char output[TOOL_OUTPUT_MAX])
{
    int ends[2];
    char home[300];
    uint64_t deadline_ns = clock_mono_ns() + TOOL_TIMEOUT_S * NS_PER_S;
    output[0] = '\0';
    char **env = env_for(user, home, sizeof home);
    if (env == NULL || pipe2(ends, O_CLOEXEC) != 0) {
        snprintf(output, TOOL_OUTPUT_MAX, "%s", strerrordesc_np(errno));
        free(env);
        return ERR_LIMIT;
    }
    pid_t pid = fork();
    if (pid == 0)
        become_tool(path, argv, user, env, ends[1]);
    close(ends[1]);
    enum err e = ERR_LIMIT;
    if (pid < 0) {
        snprintf(output, TOOL_OUTPUT_MAX, "%s", strerrordesc_np(errno));
    } else {
        read_output(ends[0], output, deadline_ns);
        e = end_of(pid, deadline_ns, output);
    }
    close(ends[0]);
    free(env);
    return e;
}
