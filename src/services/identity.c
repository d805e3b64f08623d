/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users and groups by name come from NSS, numbers need not be known to it when the group is named
 * as well. Groups are set before the user changes: behind it nobody may.
 */
#include "services/identity.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

/* --- by name --- */

static enum err find_user(const char *name, bool group_named, struct identity *who, char *error,
                          size_t cap)
{
    uint64_t number;
    const struct passwd *p = getpwnam(name);
    if (p == NULL && slice_to_u64(slice_from(name), UINT32_MAX - 1, &number)) {
        who->uid = (uid_t)number;
        p = getpwuid(who->uid);
        if (p == NULL && group_named) {
            snprintf(who->name, sizeof who->name, "%s", name);
            return OK;
        }
    }
    if (p == NULL) {
        snprintf(error, cap, "user %s: there is no such user here: create it (adduser --system), or "
                 "name another one", name);
        return ERR_NOT_FOUND;
    }
    who->uid = p->pw_uid;
    who->gid = p->pw_gid;
    snprintf(who->name, sizeof who->name, "%s", p->pw_name);
    snprintf(who->home, sizeof who->home, "%s", p->pw_dir);
    return OK;
}

static enum err find_group(const char *user, const char *group, struct identity *who, char *error,
                           size_t cap)
{
    uint64_t number;
    const struct group *g = getgrnam(group);
    if (g != NULL) {
        who->gid = g->gr_gid;
    } else if (slice_to_u64(slice_from(group), UINT32_MAX - 1, &number)) {
        who->gid = (gid_t)number;
    } else {
        snprintf(error, cap, "user %s:%s: there is no such group here", user, group);
        return ERR_NOT_FOUND;
    }
    who->groups[0] = who->gid;
    who->groups_count = 1;
    return OK;
}

static enum err find_all_groups(struct identity *who, char *error, size_t cap)
{
    who->groups_count = IDENTITY_GROUPS;
    if (getgrouplist(who->name, who->gid, who->groups, &who->groups_count) >= 0)
        return OK;
    snprintf(error, cap, "user %s: it belongs to more than %d groups: name the group", who->name,
             IDENTITY_GROUPS);
    return ERR_LIMIT;
}

enum err identity_find(struct slice user, struct slice group, struct identity *who, char *error,
                       size_t cap)
{
    char name[sizeof who->name], group_name[sizeof who->name];
    *who = (struct identity){0};
    if (user.len == 0 || user.len >= sizeof name || group.len >= sizeof group_name) {
        snprintf(error, cap, "user " SLICE_FMT ": write NAME or NAME:GROUP",
                 SLICE_ARG(slice_take(user, 100)));
        return ERR_INVALID;
    }
    snprintf(name, sizeof name, SLICE_FMT, SLICE_ARG(user));
    snprintf(group_name, sizeof group_name, SLICE_FMT, SLICE_ARG(group));
    TRY(find_user(name, group.len > 0, who, error, cap));
    if (group.len > 0)
        return find_group(who->name, group_name, who, error, cap);
    return find_all_groups(who, error, cap);
}

/* --- of a process --- */

static bool nth_number(const char *text, int n, uint64_t *out)
{
    char *end;
    for (int i = 0;; i++) {
        unsigned long value = strtoul(text, &end, 10);
        if (end == text)
            return false;
        *out = value;
        if (i == n)
            return true;
        text = end;
    }
}

static bool read_groups(const char *text, struct identity *who)
{
    uint64_t id;
    for (who->groups_count = 0; nth_number(text, 0, &id);) {
        if (who->groups_count == IDENTITY_GROUPS)
            return false;
        who->groups[who->groups_count++] = (gid_t)id;
        text += strspn(text, " \t");
        text += strspn(text, "0123456789");
    }
    return true;
}

enum err identity_of_process(pid_t pid, struct identity *who)
{
    char path[64], line[2048];
    uint64_t uid, gid;
    unsigned seen = 0;
    *who = (struct identity){0};
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return err_from_errno(errno);
    while (fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "Uid:", 4) == 0 && nth_number(line + 4, 1, &uid)) {
            who->uid = (uid_t)uid;
            seen |= 1;
        } else if (strncmp(line, "Gid:", 4) == 0 && nth_number(line + 4, 1, &gid)) {
            who->gid = (gid_t)gid;
            seen |= 2;
        } else if (strncmp(line, "Groups:", 7) == 0 && read_groups(line + 7, who)) {
            seen |= 4;
        }
    }
    fclose(f);
    return seen == 7 ? OK : ERR_INVALID;
}

/* --- becoming --- */

bool identity_is_mine(const struct identity *who)
{
    uid_t r, e, s;
    gid_t rg, eg, sg;
    return getresuid(&r, &e, &s) == 0 && getresgid(&rg, &eg, &sg) == 0 && r == who->uid &&
           e == who->uid && s == who->uid && rg == who->gid && eg == who->gid && sg == who->gid;
}

enum err identity_become(const struct identity *who, char *error, size_t cap)
{
    if (setgroups((size_t)who->groups_count, who->groups) == 0 &&
        setresgid(who->gid, who->gid, who->gid) == 0 &&
        setresuid(who->uid, who->uid, who->uid) == 0)
        return OK;
    enum err e = err_from_errno(errno);
    if (who->name[0] != '\0')
        snprintf(error, cap, "user %s: %s", who->name, strerror(errno));
    else
        snprintf(error, cap, "user %u: %s", (unsigned)who->uid, strerror(errno));
    return e;
}

void rights_bound(int kept)
{
    for (cap_value_t c = 0; c <= CAP_LAST_CAP; c++) {
        if ((int)c != kept)
            (void)prctl(PR_CAPBSET_DROP, c, 0, 0, 0); /* refused without CAP_SETPCAP: none to drop */
    }
}

enum err rights_drop(int kept)
{
    cap_value_t keep = (cap_value_t)kept;
    cap_flag_value_t had = CAP_CLEAR;
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    cap_t now = cap_get_proc();
    if (now != NULL && kept >= 0)
        (void)cap_get_flag(now, keep, CAP_PERMITTED, &had);
    cap_free(now);
    cap_t wanted = cap_init();
    if (had == CAP_SET) {
        (void)cap_set_flag(wanted, CAP_PERMITTED, 1, &keep, CAP_SET);
        (void)cap_set_flag(wanted, CAP_EFFECTIVE, 1, &keep, CAP_SET);
    }
    int e = cap_set_proc(wanted) == 0 ? 0 : errno;
    cap_free(wanted);
    return err_from_errno(e);
}
