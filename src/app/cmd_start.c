/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico start: `run` in the background. The new process proves that it is the one that was started
 * by giving back random bytes (app/pingback.h); this one waits for them or for its end.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/commands.h"
#include "base/mem.h"

enum { SECRET_LEN = 32, PINGBACK_WAIT_MS = 5000 };

static const struct flag flags[] = {
    {"config", 'c', true, NULL, "configuration file", NULL},
    {"adapter", 'a', true, NULL, "name of the config adapter to apply", NULL},
    {"envfile", 0, true, "strings", "environment file to load; may be given several times", NULL,
     FLAG_COMMAS},
    {"watch", 'w', false, NULL, "watch the config file and reload it when it changes", NULL},
    {"pidfile", 0, true, NULL, "file to which to write the process id", NULL},
    {0},
};

struct start {
    char secret[SECRET_LEN];
    char address[32]; /* where it is to come back to */
    int listener, process;
    pid_t pid;
};

static bool listen_here(struct start *s)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof a;
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&a, sizeof a) != 0 ||
        listen(s->listener, 8) != 0 || getsockname(s->listener, (struct sockaddr *)&a, &len) != 0)
        return false;
    snprintf(s->address, sizeof s->address, "127.0.0.1:%u", ntohs(a.sin_port));
    return true;
}

/* `run --pingback …` and what `start` was given that `run` has too. */
static void become_run(const struct command_line *l, const struct start *s, int input)
{
    const char *arguments[4 + FLAG_VALUES_MAX + 1] = {l->argv[0], "run", "--pingback", s->address};
    size_t n = 4;
    for (size_t i = 0; i < l->all_count; i++) {
        const char *flag = l->all[i].flag;
        char *text = mem_alloc(strlen(flag) + strlen(l->all[i].value) + 4);
        snprintf(text, strlen(flag) + strlen(l->all[i].value) + 4, "--%s=%s", flag, l->all[i].value);
        arguments[n++] = text;
    }
    setsid(); /* the terminal may close */
    if (dup2(input, STDIN_FILENO) < 0)
        _exit(126);
    execv("/proc/self/exe", (char *const *)arguments);
    _exit(127);
}

static bool start_process(const struct command_line *l, struct start *s)
{
    int pair[2];
    if (pipe2(pair, O_CLOEXEC) != 0)
        return false;
    s->pid = fork();
    if (s->pid == 0) {
        close(pair[1]);
        become_run(l, s, pair[0]);
    }
    close(pair[0]);
    bool told = s->pid > 0 && write(pair[1], s->secret, SECRET_LEN) == SECRET_LEN;
    close(pair[1]);
    s->process = s->pid > 0 ? pidfd_open(s->pid, 0) : -1;
    return told && s->process >= 0;
}

/* A connection: true when it brings our bytes. */
static bool confirmed(const struct start *s)
{
    char bytes[SECRET_LEN];
    size_t len = 0;
    ssize_t n;
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    struct pollfd p = {fd, POLLIN, 0};
    while (fd >= 0 && len < SECRET_LEN && poll(&p, 1, PINGBACK_WAIT_MS) == 1 &&
           (n = read(fd, bytes + len, SECRET_LEN - len)) > 0)
        len += (size_t)n;
    if (fd >= 0)
        close(fd);
    return len == SECRET_LEN && memcmp(bytes, s->secret, SECRET_LEN) == 0;
}

static int wait_for_it(struct start *s)
{
    int status;
    for (;;) {
        struct pollfd p[2] = {{s->listener, POLLIN, 0}, {s->process, POLLIN, 0}};
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return cli_fail("waiting for the new process: %s", strerror(errno));
        if (p[0].revents != 0 && confirmed(s)) {
            printf("Successfully started %s (pid=%d) - %s is running in the background\n",
                   cli_program_title(), (int)s->pid, cli_program_title());
            return EXIT_OK;
        }
        if (p[1].revents != 0)
            break;
    }
    if (waitpid(s->pid, &status, 0) != s->pid)
        status = 0;
    if (WIFSIGNALED(status))
        return cli_fail("%s process exited with error: signal %d", cli_program(), WTERMSIG(status));
    return cli_fail("%s process exited with error: exit status %d", cli_program(),
                    WEXITSTATUS(status));
}

static int run(const struct command_line *l)
{
    struct start s = {.listener = -1, .process = -1};
    if (!listen_here(&s))
        return cli_fail("opening listener for success confirmation: %s", strerror(errno));
    if (getrandom(s.secret, SECRET_LEN, 0) != SECRET_LEN)
        return cli_fail("generating random confirmation bytes: %s", strerror(errno));
    if (!start_process(l, &s))
        return cli_fail("starting %s process: %s", cli_program(), strerror(errno));
    return wait_for_it(&s);
}

const struct command command_start = {
    .name = "start",
    .usage = "[--config <path> [--adapter <name>]] [--envfile <path>] [--watch] [--pidfile <file>]",
    .help = "Starts the server in the background and returns",
    .about = "Starts the server as `%s run` does, but in the background. Returns as soon as it\n"
             "serves, or has failed to. It ends by `%s stop`.",
    .flags = flags,
    .run = run,
};
