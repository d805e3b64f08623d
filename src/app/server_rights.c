/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root without capabilities still owns root's files, but cannot bind low ports, change the network,
 * load modules or act on other users' processes. CAP_DAC_READ_SEARCH stays where it was there:
 * sites in homes that only their owner may read were served before, and are now. A server that
 * becomes another user keeps none: what it serves is what that user may read.
 *
 * The kernel forgets PDEATHSIG when the user changes, and at the start of a program that gets more
 * rights than the keeper has kept, so it is asked for again, and whether the keeper is still there.
 */
#include "app/server_rights.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "services/identity.h"

struct slice rights_user(const json_t *document)
{
    const json_t *user = json_object_get(json_object_get(document, "portico"), "user");
    return slice_of(json_string_value(user), json_string_length(user));
}

static enum err find_identity(struct slice user, struct identity *who, char *error, size_t cap)
{
    struct slice name, group;
    slice_cut(user, ':', &name, &group);
    return identity_find(name, group, who, error, cap);
}

/* One that hangs does not see that the pair is closed. */
static void end_with(pid_t keeper)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != keeper)
        _exit(1);
}

static enum err become(const struct identity *who, char *error, size_t cap)
{
    pid_t keeper = getppid();
    TRY(identity_become(who, error, cap));
    end_with(keeper);
    /* As a login would: what is kept below a home is kept below this user's. */
    if (who->home[0] != '\0')
        setenv("HOME", who->home, 1);
    setenv("USER", who->name, 1);
    setenv("LOGNAME", who->name, 1);
    return OK;
}

enum err rights_settle(struct slice user, char *error, size_t cap)
{
    struct identity who;
    bool change = false;
    end_with(getppid());
    if (user.len > 0) {
        TRY(find_identity(user, &who, error, cap));
        change = who.uid != geteuid() || (slice_find(user, ':') != SIZE_MAX && who.gid != getegid());
    }
    if (change && geteuid() != 0) {
        snprintf(error, cap, "user %s: only a server that is started by root can become another "
                 "user: start it as root, or remove the option", who.name);
        return ERR_DENIED;
    }
    int kept = user.len == 0 ? CAP_DAC_READ_SEARCH : -1;
    rights_bound(kept);
    if (change)
        TRY(become(&who, error, cap));
    enum err e = rights_drop(kept);
    if (e == OK && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        e = err_from_errno(errno);
    if (e != OK)
        snprintf(error, cap, "the capabilities could not be given up: %s", err_text(e));
    return e;
}
