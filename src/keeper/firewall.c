/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules are written by a helper process: this program once more, which reads the document that the
 * server passed as a memory file, and runs nft. The keeper neither parses nor waits. One helper runs
 * at a time; of documents that come meanwhile only the newest counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "keeper/keeper.h"
#include "keeper/keeper_parts.h"

enum { HELPER_FD = 3, HELPER_LIFE_S = 120 }; /* then the kernel ends it */

static _Noreturn void become_helper(int fd, char **argv, pid_t parent)
{
    char *arguments[] = {argv[0], NULL};
    again_begin(parent); /* nft's transaction is the kernel's: all of it or nothing */
    if (fd == HELPER_FD ? fcntl(fd, F_SETFD, 0) != 0 : dup2(fd, HELPER_FD) < 0)
        _exit(1);
    close_range(HELPER_FD + 1, ~0U, 0);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGALRM, SIG_DFL);
    (void)alarm(HELPER_LIFE_S);
    setenv(FIREWALL_ENV, "3", 1);
    execv("/proc/self/exe", arguments);
    _exit(1);
}

static void start(struct keeper *k, int fd)
{
    pid_t self = getpid(), pid = fork();
    if (pid == 0)
        become_helper(fd, k->argv, self);
    if (pid > 0)
        child_add(&k->rounds, &k->firewall.child, pid);
    else
        LOG(LOG_ERROR, "ports", "the helper that keeps ports shut cannot be started",
            LOG_CSTR("error", strerror(errno)));
    close(fd);
}

static void on_end(struct child *c, int wait_status)
{
    struct firewall *f = CONTAINER_OF(c, struct firewall, child);
    struct keeper *k = CONTAINER_OF(f, struct keeper, firewall);
    int next = f->next;
    f->next = -1;
    if (WIFSIGNALED(wait_status))
        LOG(LOG_ERROR, "ports", "the helper that keeps ports shut was ended by a signal",
            LOG_NUM("signal", WTERMSIG(wait_status)));
    if (next >= 0)
        start(k, next);
}

void firewall_enforce(struct keeper *k, int fd)
{
    struct firewall *f = &k->firewall;
    if (f->child.pid == 0) {
        start(k, fd);
        return;
    }
    if (f->next >= 0)
        close(f->next);
    f->next = fd;
}

void firewall_init(struct keeper *k)
{
    k->firewall.child.on_end = on_end;
    k->firewall.next = -1;
}
