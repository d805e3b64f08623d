/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's death is seen as the end of its side of the pair, which no other process holds. Until
 * the program runs, the warden may be waiting for what it cannot hurry (users of a directory in the
 * network): then a parent-death signal ends it, and by another one the program's process.
 * When the warden itself is killed, the program dies by its own parent-death signal, and what else
 * descends from it becomes the guardhouse's, which kills it. Why: docs/decisions/0017.
 *
 * When the program has ended, the rest of its tree is killed before EXITED is told: an instance that
 * has ended holds no port and no file any more.
 */
#include "services/warden.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "services/cgroup.h"
#include "services/confine.h"
#include "services/process_tree.h"
#include "services/supervisor_wire.h"

struct watching {
    struct warden *warden;
    int signals;
    pid_t program;        /* 0: waited for */
    int status;
    uint64_t deadline_ns; /* of a stop; 0: none */
};

/* --- beginning --- */

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void close_others(const struct warden *w)
{
    const struct spawn *s = &w->spawn;
    int kept[] = {2, w->wire, w->output, w->errors, s->stdio[0], s->stdio[1], s->stdio[2], s->socket,
                  s->cgroup};
    unsigned from = 0;
    size_t count = sizeof kept / sizeof kept[0];
    qsort(kept, count, sizeof kept[0], by_number);
    for (size_t i = 0; i < count; i++) {
        if (kept[i] < 0)
            continue;
        if ((unsigned)kept[i] > from)
            (void)close_range(from, (unsigned)kept[i] - 1, 0);
        from = (unsigned)kept[i] + 1;
    }
    (void)close_range(from, ~0U, 0);
}

/* 0, 1 and 2 stay in use, so that no descriptor of the program gets such a number. */
static void fill_stdio(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (fd >= 0 && fd < 2);
    if (fd > 2)
        close(fd);
}

static void settle(struct warden *w)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    setsid(); /* what a terminal sends is not for it */
    prctl(PR_SET_NAME, "warden");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 0); /* nobody of the same user looks into it */
    close_others(w);
    fill_stdio();
}

static void tell(struct warden *w, struct supervisor_message *m, const int *fds, unsigned count)
{
    (void)supervisor_send(w->wire, m, fds, count);
}

static void close_spent(struct warden *w)
{
    int spent[] = {w->output, w->errors, w->spawn.stdio[0], w->spawn.stdio[1], w->spawn.stdio[2],
                   w->spawn.socket};
    for (size_t i = 0; i < sizeof spent / sizeof spent[0]; i++) {
        bool again = false;
        for (size_t j = 0; j < i; j++)
            again = again || spent[j] == spent[i];
        if (spent[i] > 2 && !again)
            close(spent[i]);
    }
}

static const char *note(const struct launch *l)
{
    return l->confine && !confine_is_there()
               ? "it may bind any port: the kernel has no Landlock for ports (Linux 6.7 and later)"
               : "";
}

static void begin(struct watching *w)
{
    struct supervisor_message m = {.kind = SUPERVISE_STARTED};
    struct spawn *s = &w->warden->spawn;
    if (w->warden->output >= 0) {
        s->stdio[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        s->stdio[1] = w->warden->output;
        s->stdio[2] = w->warden->errors;
    }
    m.pid = w->program = spawn_program(s, m.text, sizeof m.text);
    close_spent(w->warden);
    if (w->program == 0) {
        m.kind = SUPERVISE_FAILED;
        m.error = ERR_FAILED;
        tell(w->warden, &m, NULL, 0);
        tree_end(0, &w->status);
        _exit(0);
    }
    (void)rights_drop(CAP_KILL);
    prctl(PR_SET_PDEATHSIG, 0); /* from now on the pair tells: there is a tree to end */
    int pidfd = (int)syscall(SYS_pidfd_open, w->program, 0);
    snprintf(m.text, sizeof m.text, "%s", note(s->launch));
    tell(w->warden, &m, &pidfd, pidfd >= 0 ? 1 : 0);
    if (pidfd >= 0)
        close(pidfd);
}

/* --- the end --- */

_Noreturn static void end(struct watching *w)
{
    struct supervisor_message m = {.kind = SUPERVISE_EXITED};
    pid_t program = w->program;
    cgroup_kill(w->warden->spawn.cgroup);
    tree_end(program, &w->status);
    m.status = w->status;
    cgroup_why(w->warden->spawn.cgroup, m.text, sizeof m.text);
    tell(w->warden, &m, NULL, 0);
    _exit(0);
}

static void reap(struct watching *w)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != w->program)
            continue;
        w->program = 0;
        w->status = status;
    }
    if (w->program == 0)
        end(w);
}

/* --- orders --- */

static void signal_program(const struct watching *w, int number)
{
    if (w->program > 0 && number > 0 && number <= SIGRTMAX)
        kill(w->program, number); /* ours, and not waited for */
}

static void obey(struct watching *w, const struct supervisor_message *m)
{
    if (m->kind != SUPERVISE_STOP && m->kind != SUPERVISE_SIGNAL)
        return;
    if (m->kind == SUPERVISE_STOP) {
        uint64_t deadline = clock_mono_ns() + m->timeout_ms * NS_PER_MS;
        if (w->deadline_ns == 0 || deadline < w->deadline_ns)
            w->deadline_ns = deadline;
        if (m->timeout_ms == 0)
            end(w);
    }
    signal_program(w, m->signal);
    if (m->kind == SUPERVISE_STOP)
        signal_program(w, SIGCONT); /* one that is stopped shall hear it, too */
}

static void hear(struct watching *w)
{
    struct supervisor_message m;
    unsigned none = 0;
    enum err e = supervisor_receive(w->warden->wire, &m, NULL, &none, MSG_DONTWAIT);
    if (e == ERR_CLOSED) /* the keeper is gone */
        end(w);
    if (e == OK)
        obey(w, &m);
}

static int next_ms(const struct watching *w)
{
    uint64_t now = clock_mono_ns();
    if (w->deadline_ns == 0)
        return -1;
    return w->deadline_ns > now ? (int)((w->deadline_ns - now) / NS_PER_MS % INT32_MAX) + 1 : 0;
}

void warden_run(struct warden *warden)
{
    struct watching w = {.warden = warden};
    settle(warden);
    begin(&w);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    w.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    for (;;) {
        struct signalfd_siginfo info;
        struct pollfd p[2] = {{warden->wire, POLLIN, 0}, {w.signals, POLLIN, 0}};
        int n = poll(p, 2, next_ms(&w));
        if (n < 0 && errno != EINTR)
            end(&w);
        if (n > 0 && p[1].revents != 0)
            while (read(w.signals, &info, sizeof info) > 0) {
            }
        reap(&w);
        if (n > 0 && p[0].revents != 0)
            hear(&w);
        if (w.deadline_ns != 0 && clock_mono_ns() >= w.deadline_ns)
            end(&w);
    }
}
