/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root's helpers get what the bounding set allows when they are executed, whatever the keeper holds,
 * and give up at once what is not theirs. Where portico is not root's, they get what the unit made
 * ambient, so the keeper keeps that in its permitted set; helpers bound themselves as well, for nft,
 * which they execute. SECURITY.md's table says what each right is for.
 */
#include "keeper/powers.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"

#define BIT(c) (UINT64_C(1) << (c))
#define STARTING                                                                                   \
    (BIT(CAP_SETUID) | BIT(CAP_SETGID) | BIT(CAP_SETPCAP) | BIT(CAP_KILL) | BIT(CAP_DAC_OVERRIDE) | \
     BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_SYS_RESOURCE) | BIT(CAP_SYS_PTRACE))
#define OWN                                                                                        \
    (STARTING | BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_CHOWN) | BIT(CAP_FOWNER) | BIT(CAP_NET_ADMIN))
#define READING                                                                                    \
    (BIT(CAP_NET_ADMIN) | BIT(CAP_SYS_ADMIN) | BIT(CAP_SYS_PTRACE) | BIT(CAP_DAC_READ_SEARCH))

static unsigned raised;

static bool in(uint64_t set, cap_value_t c)
{
    return c < 64 && (set >> c & 1) != 0;
}

/* Permitted and inheritable ones become those of `kept` that were there; awake or asleep. */
static void hold(uint64_t kept, bool awake)
{
    cap_t now = cap_get_proc();
    if (now == NULL)
        return;
    for (cap_value_t c = 0; c <= CAP_LAST_CAP; c++) {
        cap_flag_value_t had = CAP_CLEAR;
        if (!in(kept, c)) {
            (void)cap_set_flag(now, CAP_PERMITTED, 1, &c, CAP_CLEAR);
            (void)cap_set_flag(now, CAP_INHERITABLE, 1, &c, CAP_CLEAR);
        }
        (void)cap_get_flag(now, c, CAP_PERMITTED, &had);
        (void)cap_set_flag(now, CAP_EFFECTIVE, 1, &c, awake ? had : CAP_CLEAR);
    }
    if (cap_set_proc(now) != 0)
        LOG(LOG_WARN, "", "capabilities could not be changed", LOG_CSTR("error", strerror(errno)));
    cap_free(now);
}

/* Refused without CAP_SETPCAP: then it is the unit that bounds. */
static void bound(uint64_t kept)
{
    for (cap_value_t c = 0; c <= CAP_LAST_CAP; c++) {
        if (!in(kept, c))
            (void)prctl(PR_CAPBSET_DROP, c, 0, 0, 0);
    }
}

void powers_init(void)
{
    hold(geteuid() == 0 ? OWN : OWN | READING, false);
}

void powers_raise(void)
{
    if (raised++ == 0)
        hold(UINT64_MAX, true);
}

void powers_lower(void)
{
    if (--raised == 0)
        hold(UINT64_MAX, false);
}

void powers_bound(void)
{
    powers_raise();
    bound(OWN | READING);
    powers_lower();
}

/* An exec that brings more than the keeper holds makes the kernel forget PDEATHSIG. */
static void keep_only(uint64_t kept)
{
    bound(kept);
    hold(kept, true);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

void powers_of_guardhouse(void)
{
    raised = 0; /* it was forked in between */
    hold(STARTING, false); /* a service that is root's keeps what root has */
}

void powers_wake(bool awake)
{
    if (awake)
        powers_raise();
    else
        powers_lower();
}

void powers_of_firewall(void)
{
    keep_only(BIT(CAP_NET_ADMIN));
}

void powers_of_reader(void)
{
    keep_only(READING);
}
