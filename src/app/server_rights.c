/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root without capabilities still owns root's files, but cannot bind low ports, change the network,
 * load modules or act on other users' processes. CAP_DAC_READ_SEARCH stays where it was there:
 * sites in homes that only their owner may read were served before, and are now.
 */
#include "app/server_rights.h"

#include <errno.h>
#include <stddef.h>
#include <sys/capability.h>
#include <sys/prctl.h>

static void drop_bounding_set(void)
{
    for (cap_value_t c = 0; c <= CAP_LAST_CAP; c++) {
        if (c != CAP_DAC_READ_SEARCH)
            (void)prctl(PR_CAPBSET_DROP, c, 0, 0, 0); /* refused without CAP_SETPCAP: nothing to drop */
    }
}

enum err rights_drop(void)
{
    cap_value_t kept = CAP_DAC_READ_SEARCH;
    cap_flag_value_t had = CAP_CLEAR;
    cap_t now = cap_get_proc();
    if (now != NULL)
        (void)cap_get_flag(now, kept, CAP_PERMITTED, &had);
    cap_free(now);
    drop_bounding_set();
    cap_t wanted = cap_init();
    if (had == CAP_SET) {
        (void)cap_set_flag(wanted, CAP_PERMITTED, 1, &kept, CAP_SET);
        (void)cap_set_flag(wanted, CAP_EFFECTIVE, 1, &kept, CAP_SET);
    }
    int e = cap_set_proc(wanted) == 0 ? 0 : errno;
    cap_free(wanted);
    if (e == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        e = errno;
    return err_from_errno(e);
}
