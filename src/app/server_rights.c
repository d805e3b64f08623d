/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root without capabilities still owns root's files, but cannot bind low ports, change the network,
 * load modules or act on other users' processes. CAP_DAC_READ_SEARCH stays where it was there:
 * sites in homes that only their owner may read were served before, and are now. A server that
 * becomes another user keeps none: what it serves is what that user may read.
 *
 * The kernel forgets PDEATHSIG when the user changes, so it is asked for again, and whether the
 * keeper is still there.
 */
#include "app/server_rights.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

struct identity {
    char name[64], group[64]; /* group "": the user's own, and all it belongs to */
    char home[256];
    uid_t uid;
    gid_t gid;
};

struct slice rights_user(const json_t *document)
{
    const json_t *user = json_object_get(json_object_get(document, "portico"), "user");
    return slice_of(json_string_value(user), json_string_length(user));
}

static enum err find_user(struct identity *who, char *error, size_t cap)
{
    uint64_t number;
    const struct passwd *p = getpwnam(who->name);
    if (p == NULL && slice_to_u64(slice_from(who->name), UINT32_MAX - 1, &number)) {
        who->uid = (uid_t)number;
        p = getpwuid(who->uid);
        if (p == NULL && who->group[0] != '\0')
            return OK;
    }
    if (p == NULL) {
        snprintf(error, cap, "user %s: there is no such user here: create it (adduser --system), or "
                 "name another one", who->name);
        return ERR_NOT_FOUND;
    }
    who->uid = p->pw_uid;
    who->gid = p->pw_gid;
    snprintf(who->name, sizeof who->name, "%s", p->pw_name);
    snprintf(who->home, sizeof who->home, "%s", p->pw_dir);
    return OK;
}

static enum err find_group(struct identity *who, char *error, size_t cap)
{
    uint64_t number;
    if (who->group[0] == '\0')
        return OK;
    const struct group *g = getgrnam(who->group);
    if (g == NULL && slice_to_u64(slice_from(who->group), UINT32_MAX - 1, &number)) {
        who->gid = (gid_t)number;
        return OK;
    }
    if (g == NULL) {
        snprintf(error, cap, "user %s:%s: there is no such group here", who->name, who->group);
        return ERR_NOT_FOUND;
    }
    who->gid = g->gr_gid;
    return OK;
}

static enum err find_identity(struct slice user, struct identity *who, char *error, size_t cap)
{
    struct slice name, group;
    slice_cut(user, ':', &name, &group);
    *who = (struct identity){.gid = (gid_t)-1};
    if (name.len == 0 || name.len >= sizeof who->name || group.len >= sizeof who->group) {
        snprintf(error, cap, "user " SLICE_FMT ": write NAME or NAME:GROUP",
                 SLICE_ARG(slice_take(user, 100)));
        return ERR_INVALID;
    }
    memcpy(who->name, name.ptr, name.len);
    if (group.len > 0)
        memcpy(who->group, group.ptr, group.len);
    TRY(find_user(who, error, cap));
    return find_group(who, error, cap);
}

static enum err become(const struct identity *who, char *error, size_t cap)
{
    pid_t keeper = getppid();
    bool failed = who->group[0] != '\0' ? setgroups(1, &who->gid) != 0
                                        : initgroups(who->name, who->gid) != 0;
    if (failed || setresgid(who->gid, who->gid, who->gid) != 0 ||
        setresuid(who->uid, who->uid, who->uid) != 0) {
        snprintf(error, cap, "user %s: %s", who->name, strerror(errno));
        return ERR_DENIED;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != keeper)
        _exit(1);
    /* As a login would: what is kept below a home is kept below this user's. */
    if (who->home[0] != '\0')
        setenv("HOME", who->home, 1);
    setenv("USER", who->name, 1);
    setenv("LOGNAME", who->name, 1);
    return OK;
}

static void drop_bounding_set(bool keep_reading)
{
    for (cap_value_t c = 0; c <= CAP_LAST_CAP; c++) {
        if (c != CAP_DAC_READ_SEARCH || !keep_reading)
            (void)prctl(PR_CAPBSET_DROP, c, 0, 0, 0); /* refused without CAP_SETPCAP: nothing to drop */
    }
}

static enum err drop_capabilities(bool keep_reading)
{
    cap_value_t kept = CAP_DAC_READ_SEARCH;
    cap_flag_value_t had = CAP_CLEAR;
    cap_t now = cap_get_proc();
    if (now != NULL)
        (void)cap_get_flag(now, kept, CAP_PERMITTED, &had);
    cap_free(now);
    cap_t wanted = cap_init();
    if (had == CAP_SET && keep_reading) {
        (void)cap_set_flag(wanted, CAP_PERMITTED, 1, &kept, CAP_SET);
        (void)cap_set_flag(wanted, CAP_EFFECTIVE, 1, &kept, CAP_SET);
    }
    int e = cap_set_proc(wanted) == 0 ? 0 : errno;
    cap_free(wanted);
    return err_from_errno(e);
}

enum err rights_settle(struct slice user, char *error, size_t cap)
{
    struct identity who;
    bool change = false;
    if (user.len > 0) {
        TRY(find_identity(user, &who, error, cap));
        change = who.uid != geteuid() || (who.group[0] != '\0' && who.gid != getegid());
    }
    if (change && geteuid() != 0) {
        snprintf(error, cap, "user %s: only a server that is started by root can become another "
                 "user: start it as root, or remove the option", who.name);
        return ERR_DENIED;
    }
    drop_bounding_set(user.len == 0);
    if (change)
        TRY(become(&who, error, cap));
    enum err e = drop_capabilities(user.len == 0);
    if (e == OK && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        e = err_from_errno(errno);
    if (e != OK)
        snprintf(error, cap, "the capabilities could not be given up: %s", err_text(e));
    return e;
}
