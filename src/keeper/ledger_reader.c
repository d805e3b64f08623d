/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who reads the ledger of ports for a server that may not see all of it: this program once more, with
 * the keeper's rights, for as long as one look takes. What it sees goes into a pipe, whose other end
 * the server gets. One at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "keeper/keeper_parts.h"

/* Of computing, and of all together, waiting for a name service too; then the kernel ends it. */
enum { READER_SECONDS = 20, READER_LIFE_S = 60 };

static void child_exec(int out, pid_t parent)
{
    char *const argv[] = {(char[]){"portico"}, (char[]){"ports"}, (char[]){"--whole"}, NULL};
    const struct rlimit limit = {READER_SECONDS, READER_SECONDS};
    again_begin(parent);
    (void)setrlimit(RLIMIT_CPU, &limit);
    signal(SIGALRM, SIG_DFL);
    (void)alarm(READER_LIFE_S);
    int none_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (none_fd < 0 || dup2(none_fd, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
        _exit(1);
    execv("/proc/self/exe", argv);
    _exit(1);
}

static void on_end(struct child *c, int wait_status)
{
    (void)c; /* the pipe's end tells the server */
    (void)wait_status;
}

static enum err start(struct keeper *k, int *out)
{
    int pipes[2];
    pid_t self = getpid();
    if (k->reader.pid > 0)
        return ERR_LIMIT;
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return err_from_errno(errno);
    pid_t pid = fork();
    if (pid == 0)
        child_exec(pipes[1], self);
    int reason = errno;
    close(pipes[1]);
    if (pid < 0) {
        close(pipes[0]);
        return err_from_errno(reason);
    }
    k->reader.on_end = on_end;
    child_add(&k->rounds, &k->reader, pid);
    *out = pipes[0];
    return OK;
}

void reader_start(struct keeper *k)
{
    struct keeper_message answer = {.kind = KEEPER_SOCKETS};
    int fd = -1;
    answer.error = start(k, &fd);
    answer.count = fd >= 0;
    if (answer.error != OK)
        snprintf(answer.text, sizeof answer.text, "the ledger of ports cannot be read: %s",
                 err_text((enum err)answer.error));
    (void)!keeper_send(k->server.wire.fd, &answer, &fd, fd >= 0);
    if (fd >= 0)
        close(fd);
}
