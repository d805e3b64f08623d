/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server is this program again, started from /proc/self/exe with the same arguments and a
 * variable that names its end of the pair. One that crashes is started again: at once the first
 * time, then after longer and longer pauses, and then not any more. It is never waited for: signals
 * must be heard whatever it does.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "keeper/keeper.h"
#include "keeper/keeper_parts.h"
#include "keeper/powers.h"
#include "services/identity.h"

#define CRASH_WINDOW_NS (60 * NS_PER_S)
#define BACK_OFF_NS (100 * NS_PER_MS) /* after the second crash, doubled by each, up to … */
#define BACK_OFF_MAX_NS (5 * NS_PER_S)
#define KILL_AFTER_NS (3 * NS_PER_S) /* a server that was told to end at once and does not */

static struct keeper *keeper_of(struct server_process *s)
{
    return CONTAINER_OF(s, struct keeper, server);
}

/* Programs are there until the server, which may have requests under way to them, is gone. */
static void end(struct keeper *k)
{
    programs_stop(k, false);
}

/* --- starting --- */

/* Above what systemd may have handed over, so that no number of fd/N is taken. */
static void pass_on(int fd, const char *variable)
{
    char value[16];
    int high = fcntl(fd, F_DUPFD, 1000);
    if (high < 0) /* where so few descriptors are allowed */
        high = fcntl(fd, F_DUPFD, 64);
    if (high < 0) {
        fprintf(stderr, "portico: cannot start the server process: too few file descriptors are "
                "allowed (ulimit -n)\n");
        _exit(1);
    }
    snprintf(value, sizeof value, "%d", high);
    setenv(variable, value, 1);
}

static void child_exec(struct keeper *k, int fd, int programs_fd, pid_t parent)
{
    again_begin(parent);
    /* A terminal's signals go to the whole foreground group, and systemd's to all of a unit: only
     * the keeper acts on them. */
    static const int others[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGPIPE};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        signal(others[i], SIG_IGN);
    pass_on(fd, KEEPER_ENV);
    pass_on(programs_fd, SUPERVISOR_ENV);
    execv("/proc/self/exe", k->argv);
    fprintf(stderr, "portico: cannot start the server process: %s\n", strerror(errno));
    _exit(1);
}

enum err server_start(struct keeper *k)
{
    int pair[2];
    pid_t self = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return err_from_errno(errno);
    int programs_fd = programs_connect(k);
    held_forget_wishes(k);
    pid_t pid = programs_fd >= 0 ? fork() : -1;
    if (pid == 0)
        child_exec(k, pair[1], programs_fd, self);
    int e = errno;
    close(pair[1]);
    if (programs_fd >= 0)
        close(programs_fd);
    if (pid < 0 || !watch_start(&k->rounds, &k->server.wire, pair[0])) {
        e = pid < 0 ? e : errno;
        close(pair[0]);
        if (pid > 0)
            kill(pid, SIGKILL);
        return err_from_errno(e);
    }
    child_add(&k->rounds, &k->server.child, pid);
    return OK;
}

static void on_restart(struct moment *m)
{
    struct keeper *k = keeper_of(CONTAINER_OF(m, struct server_process, restart));
    if (server_start(k) == OK)
        return;
    LOG(LOG_ERROR, "", "the server process cannot be started", LOG_CSTR("error", strerror(errno)));
    k->status = 1;
    end(k);
}

/* --- messages --- */

static void hang_up(struct keeper *k)
{
    int fd = k->server.wire.fd;
    watch_stop(&k->rounds, &k->server.wire);
    if (fd >= 0)
        close(fd);
}

bool server_tell(struct keeper *k, enum keeper_kind kind)
{
    struct keeper_message m = {.kind = kind};
    return k->server.wire.fd >= 0 && keeper_tell(k->server.wire.fd, &m) == OK;
}

/* One that became another user can have no service of root's, and stays what it is: its user does not
 * change without a restart. */
static void bound_powers(struct keeper *k)
{
    struct identity server;
    powers_raise();
    bool known = k->server.child.pid > 0 && identity_of_process(k->server.child.pid, &server) == OK;
    powers_lower();
    if (known && geteuid() == 0 && server.uid != 0)
        powers_bound();
}

static void on_ready(struct keeper *k, const char *status)
{
    if (!k->server.was_ready)
        bound_powers(k);
    if (!k->server.ready) {
        held_release_unwanted(k);
        programs_stop_unclaimed(k);
    }
    k->server.ready = k->server.was_ready = k->watchdog.answered = true;
    systemd_ready(status);
}

static void obey(struct keeper *k, const struct keeper_message *m)
{
    switch (m->kind) {
    case KEEPER_LISTEN:
        programs_seal(k);
        held_listen(k, m);
        break;
    case KEEPER_RELEASE:
        held_release(k, m);
        break;
    case KEEPER_READY:
        on_ready(k, m->text);
        break;
    case KEEPER_LEDGER:
        reader_start(k);
        break;
    case KEEPER_PONG:
        k->watchdog.answered = true;
        break;
    case KEEPER_RELOADING:
        systemd_reloading();
        break;
    case KEEPER_STOPPING: /* its copies are the last now, so that it can empty the queues */
        k->server.stopping = true;
        held_release_all(k);
        systemd_notify("STOPPING=1");
        break;
    case KEEPER_FAILED:
        k->server.final = true;
        k->status = (int)m->status;
        break;
    default:
        break;
    }
}

static void on_message(struct watch *w)
{
    struct keeper *k = keeper_of(CONTAINER_OF(w, struct server_process, wire));
    struct keeper_message m;
    int fd = -1;
    unsigned got = 1;
    if (keeper_receive(w->fd, &m, &fd, &got, 0) != OK) {
        hang_up(k); /* it has ended, or is about to: SIGCHLD tells */
    } else if (got == 1 && m.kind == KEEPER_ENFORCE) {
        firewall_enforce(k, fd);
    } else {
        if (got == 1)
            close(fd);
        obey(k, &m);
    }
}

static void hear_last_words(struct keeper *k)
{
    struct pollfd p = {k->server.wire.fd, POLLIN, 0};
    while (k->server.wire.fd >= 0 && poll(&p, 1, 0) == 1)
        on_message(&k->server.wire);
    hang_up(k);
}

/* --- the end --- */

static void on_kill(struct moment *m)
{
    struct keeper *k = keeper_of(CONTAINER_OF(m, struct server_process, kill));
    powers_raise();
    if (k->server.child.pid > 0)
        kill(k->server.child.pid, SIGKILL);
    powers_lower();
}

static void stop_now(struct keeper *k, bool told)
{
    if (!moment_is_set(&k->server.kill))
        moment_set(&k->rounds, &k->server.kill, clock_mono_ns() + (told ? KILL_AFTER_NS : 0));
}

void server_stop(struct keeper *k, bool now)
{
    struct server_process *s = &k->server;
    if (moment_is_set(&s->restart)) {
        s->stopping = true; /* nobody is there to be told */
        moment_clear(&s->restart);
        end(k);
        return;
    }
    if (s->stopping || now) {
        stop_now(k, server_tell(k, KEEPER_STOP_NOW));
        k->status = now && !s->stopping ? 2 : k->status;
    } else if (!server_tell(k, KEEPER_STOP)) {
        stop_now(k, false); /* it has not read a hundred messages: nobody is there */
    }
    s->stopping = true;
}

/* Crashes within the window, this one counted. */
static unsigned count_crash(struct server_process *s)
{
    uint64_t now = clock_mono_ns();
    unsigned count = 0;
    s->crashes[s->crashed++ % CRASHES_MAX] = now;
    for (unsigned i = 0; i < CRASHES_MAX && i < s->crashed; i++)
        count += now - s->crashes[i] < CRASH_WINDOW_NS;
    return count;
}

/* False when the server is not to be started once more. */
static bool plan_restart(struct keeper *k)
{
    unsigned count = count_crash(&k->server);
    uint64_t pause = count < 2 ? 0 : BACK_OFF_NS << (count - 2);
    if (pause > BACK_OFF_MAX_NS)
        pause = BACK_OFF_MAX_NS;
    if (!k->server.was_ready)
        return false;
    if (count >= CRASHES_MAX) {
        LOG(LOG_ERROR, "", "the server process keeps crashing: giving up",
            LOG_NUM("crashes", count), LOG_DUR("within", CRASH_WINDOW_NS));
        return false;
    }
    LOG(LOG_WARN, "", "the server process is started again, on the same sockets",
        LOG_DUR("after", pause), LOG_NUM("crashes", count));
    moment_set(&k->rounds, &k->server.restart, clock_mono_ns() + pause);
    return true;
}

static void on_end(struct child *c, int wait_status)
{
    struct server_process *s = CONTAINER_OF(c, struct server_process, child);
    struct keeper *k = keeper_of(s);
    hear_last_words(k);
    programs_server_gone(k);
    moment_clear(&s->kill);
    if (WIFEXITED(wait_status) && (s->stopping || s->final || WEXITSTATUS(wait_status) == 0)) {
        if (k->status == 0)
            k->status = WEXITSTATUS(wait_status);
        end(k);
        return;
    }
    if (s->stopping) {
        k->status = k->status != 0 ? k->status : 1;
        end(k);
        return;
    }
    LOG(LOG_ERROR, "", "the server process ended unexpectedly",
        LOG_NUM("signal", WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0),
        LOG_NUM("status", WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 0));
    s->ready = false;
    if (!plan_restart(k)) {
        k->status = 1;
        end(k);
    }
}

void server_init(struct keeper *k)
{
    k->server.child.on_end = on_end;
    k->server.wire = (struct watch){-1, on_message};
    moment_init(&k->server.restart, on_restart);
    moment_init(&k->server.kill, on_kill);
}
