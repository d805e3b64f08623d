/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread that makes its rounds (rounds.c): the signals, the pair to the server, moments, the
 * ends of children. Signals mean what they mean to Caddy: TERM and INT drain and end (a second one
 * ends at once), QUIT ends at once, USR1 reloads, HUP is ignored. The server is told by messages, so
 * it needs no handler.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "keeper/keeper_parts.h"
#include "keeper/powers.h"
#include "net/holder.h"
#include "ports/holder_text.h"

static void on_stop_signal(struct keeper *k, const char *name, bool now)
{
    LOG(LOG_INFO, "", "shutting down", LOG_CSTR("signal", name));
    systemd_notify("STOPPING=1");
    if (k->programs.stopping)
        programs_stop(k, true); /* the server has ended already */
    else
        server_stop(k, now);
}

static void on_signal(struct watch *w)
{
    struct keeper *k = CONTAINER_OF(w, struct keeper, signals);
    struct signalfd_siginfo info;
    if (read(w->fd, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    switch (info.ssi_signo) {
    case SIGINT:
        on_stop_signal(k, "SIGINT", false);
        break;
    case SIGTERM:
        on_stop_signal(k, "SIGTERM", false);
        break;
    case SIGQUIT:
        on_stop_signal(k, "SIGQUIT", true);
        break;
    case SIGUSR1:
        if (!server_tell(k, KEEPER_RELOAD))
            LOG(LOG_ERROR, "", "the server process does not listen: not reloading");
        break;
    case SIGCHLD:
        rounds_reap(&k->rounds);
        break;
    default:
        break;
    }
}

static bool catch_signals(struct keeper *k)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGCHLD};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++)
        sigaddset(&set, caught[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    k->signals.on_ready = on_signal;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd >= 0 && watch_start(&k->rounds, &k->signals, fd);
}

/* Each connection is one, so as many as the system lets us have, as Go does. Programs get what was
 * there before. */
static void raise_descriptors(struct keeper *k)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    k->programs.files = limit;
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
}

int keeper_run(char **argv)
{
    static struct keeper k;
    raise_descriptors(&k);
    k.argv = argv;
    held_handed_over();
    port_holder_hook = port_holder_text;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    bool can = rounds_init(&k.rounds);
    server_init(&k);
    firewall_init(&k);
    programs_init(&k);
    powers_init();
    if (!can || !catch_signals(&k) || server_start(&k) != OK) {
        fprintf(stderr, "portico: cannot start: %s\n", strerror(errno));
        return 1;
    }
    watchdog_init(&k);
    rounds_run(&k.rounds);
    powers_raise(); /* the last things, and a tracer that looks for leaks */
    held_release_all(&k);
    programs_deinit(&k);
    firewall_deinit(&k);
    close(k.signals.fd);
    rounds_deinit(&k.rounds);
    return k.status;
}
