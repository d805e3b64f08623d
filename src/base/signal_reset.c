/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's own call, past glibc's, which refuses the signals of its threads.
 */
#include "base/signal_reset.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KERNEL_SIGNALS = 64, KERNEL_SIGSET_SIZE = KERNEL_SIGNALS / 8 };

void signal_reset(void)
{
    /* the kernel's struct sigaction: handler, flags, restorer, mask; SIG_DFL is 0 */
    static const unsigned long by_default[4];
    sigset_t none;
    for (int i = 1; i <= KERNEL_SIGNALS; i++) /* SIGKILL and SIGSTOP are refused, and need none */
        (void)syscall(SYS_rt_sigaction, i, by_default, NULL, KERNEL_SIGSET_SIZE);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}
