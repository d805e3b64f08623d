/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between fork and exec of what is this program once more: the server, and the helpers that do with
 * the keeper's rights what the keeper itself shall not (firewall.c, ledger_reader.c).
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "keeper/keeper_parts.h"
#include "keeper/powers.h"

/* The sockets that were handed over are the keeper's, and so is what systemd is told. */
static const char *const own[] = {"LISTEN_PID",    "LISTEN_FDS",   "LISTEN_FDNAMES",
                                  "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"};

void again_begin(pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(1);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        unsetenv(own[i]);
    powers_raise(); /* the program's file may be another user's, and for that one alone */
}
