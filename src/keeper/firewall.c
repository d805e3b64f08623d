/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules are written by a helper process: this program once more, which reads the document that the
 * server passed as a memory file, and runs nft. The keeper neither parses nor waits. One helper runs
 * at a time; of documents that come meanwhile only the newest counts.
 *
 * What flushes the whole ruleset (`systemctl restart nftables`) takes our table along. The kernel
 * tells, and what was in force is written again: forced, since nobody who was let in by it is shut
 * out, and who came in between shall not hold it up. Against a program that does so for ever the
 * pauses grow.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "keeper/keeper.h"
#include "keeper/keeper_parts.h"
#include "keeper/powers.h"

enum { HELPER_FD = 3, HELPER_LIFE_S = 120 }; /* then the kernel ends it */

#define AGAIN_NS (20 * NS_PER_MS) /* doubled each time */
enum { AGAIN_DOUBLED_MAX = 11, AGAIN_CALM_S = 120 };

static _Noreturn void become_helper(int fd, char **argv, bool again, pid_t parent)
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
    if (again)
        setenv(FIREWALL_AGAIN_ENV, "1", 1);
    execv("/proc/self/exe", arguments);
    _exit(1);
}

static void start(struct keeper *k, int fd, bool again)
{
    pid_t self = getpid(), pid = fork();
    if (pid == 0)
        become_helper(fd, k->argv, again, self);
    k->firewall.restoring = again;
    if (pid > 0)
        child_add(&k->rounds, &k->firewall.child, pid);
    else
        LOG(LOG_ERROR, "ports", "the helper that keeps ports shut cannot be started",
            LOG_CSTR("error", strerror(errno)));
    close(fd);
}

static void set_again(struct firewall *f)
{
    struct keeper *k = CONTAINER_OF(f, struct keeper, firewall);
    uint64_t now = clock_mono_ns();
    if (moment_is_set(&f->again))
        return;
    if (now - f->last_ns > AGAIN_CALM_S * NS_PER_S)
        f->times = 0;
    moment_set(&k->rounds, &f->again, now + (AGAIN_NS << f->times));
    f->times += f->times < AGAIN_DOUBLED_MAX;
    f->last_ns = now;
}

static void on_event(struct watch *w)
{
    struct firewall *f = CONTAINER_OF(w, struct firewall, events);
    if (nft_events_read(w->fd, &f->seen) && f->kept >= 0)
        set_again(f);
}

static void on_again(struct moment *m)
{
    struct firewall *f = CONTAINER_OF(m, struct firewall, again);
    struct keeper *k = CONTAINER_OF(f, struct keeper, firewall);
    int fd = f->child.pid == 0 ? fcntl(f->kept, F_DUPFD_CLOEXEC, 3) : -1;
    if (fd < 0)
        moment_set(&k->rounds, m, clock_mono_ns() + AGAIN_NS);
    else
        start(k, fd, f->in_force);
}

static void on_end(struct child *c, int wait_status)
{
    struct firewall *f = CONTAINER_OF(c, struct firewall, child);
    struct keeper *k = CONTAINER_OF(f, struct keeper, firewall);
    int next = f->next;
    bool done = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
    f->next = -1;
    if (!f->restoring)
        f->in_force = done;
    else if (!done && next < 0)
        set_again(f);
    if (WIFSIGNALED(wait_status))
        LOG(LOG_ERROR, "ports", "the helper that keeps ports shut was ended by a signal",
            LOG_NUM("signal", WTERMSIG(wait_status)));
    if (next >= 0)
        start(k, next, false);
}

/* Without the right to listen there is none to write either, which the helper says. */
static void listen_to_kernel(struct keeper *k)
{
    struct firewall *f = &k->firewall;
    if (f->events.fd >= 0)
        return;
    powers_raise();
    int fd = nft_events_open();
    powers_lower();
    if (fd >= 0 && !watch_start(&k->rounds, &f->events, fd))
        close(fd);
}

static void keep(struct firewall *f, int fd)
{
    if (f->kept >= 0)
        close(f->kept);
    f->kept = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    f->in_force = false;
    moment_clear(&f->again);
}

void firewall_enforce(struct keeper *k, int fd)
{
    struct firewall *f = &k->firewall;
    listen_to_kernel(k);
    keep(f, fd);
    if (f->child.pid == 0) {
        start(k, fd, false);
        return;
    }
    if (f->next >= 0)
        close(f->next);
    f->next = fd;
}

void firewall_init(struct keeper *k)
{
    k->firewall.child.on_end = on_end;
    k->firewall.next = k->firewall.kept = -1;
    k->firewall.events = (struct watch){-1, on_event};
    moment_init(&k->firewall.again, on_again);
}

void firewall_deinit(struct keeper *k)
{
    struct firewall *f = &k->firewall;
    int fds[] = {f->events.fd, f->kept, f->next};
    watch_stop(&k->rounds, &f->events);
    for (int i = 0; i < 3; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}
