/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What portico finds on this machine: limits, features of the kernel that are used or missing, the
 * clock, on which certificates hang.
 */
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "app/doctor.h"
#include "services/cgroup.h"

enum { FILES_WANTED = 16384 };

static void check_limits(json_t *chain)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return;
    if (files.rlim_max < FILES_WANTED)
        chain_add(chain, "limits", LINK_NOTE, "Raise it: LimitNOFILE=1048576 in the unit, ulimit -Hn.",
                  "%llu open files are few: every connection is one",
                  (unsigned long long)files.rlim_max);
    else
        chain_add(chain, "limits", LINK_OK, NULL, "up to %llu open files",
                  (unsigned long long)files.rlim_max);
}

static bool has_io_uring(void)
{
    struct io_uring_params p = {0};
    long fd = syscall(SYS_io_uring_setup, 2, &p);
    if (fd >= 0)
        close((int)fd);
    return fd >= 0;
}

static long landlock_version(void)
{
    return syscall(444 /* landlock_create_ruleset */, NULL, 0, 1 /* its version */);
}

static void check_cgroups(json_t *chain)
{
    static const char advice[] = "Services cannot be limited in memory, CPU and tasks.";
    char names[512];
    if (!cgroup_controllers(names, sizeof names))
        chain_add(chain, "cgroups", LINK_NOTE, advice, "version 2 is not mounted");
    else if (strstr(names, "memory") == NULL || strstr(names, "cpu") == NULL)
        chain_add(chain, "cgroups", LINK_NOTE, advice, "version 2 controls %s here; the rest may be "
                  "version 1's", names[0] != '\0' ? names : "nothing");
    else
        chain_add(chain, "cgroups", LINK_OK, NULL, "version 2: %s", names);
}

static void check_kernel(json_t *chain)
{
    struct utsname name;
    long landlock = landlock_version();
    if (uname(&name) != 0)
        return;
    if (has_io_uring())
        chain_add(chain, "io_uring", LINK_OK, NULL, "there (kernel %s)", name.release);
    else
        chain_add(chain, "io_uring", LINK_NOTE, "Nothing is wrong: epoll serves as well, with more system "
                  "calls.", "not to be had here (kernel %s): %s", name.release, strerror(errno));
    if (landlock >= 4)
        chain_add(chain, "Landlock", LINK_OK, NULL, "version %ld: services are kept to their own ports",
                  landlock);
    else
        chain_add(chain, "Landlock", LINK_NOTE, "A kernel from 6.7 on can keep services to their own "
                  "ports.", landlock < 0 ? "not to be had here" : "version %ld has no rules for ports",
                  landlock);
    check_cgroups(chain);
    bool nft = access("/usr/sbin/nft", X_OK) == 0 || access("/sbin/nft", X_OK) == 0 ||
               access("/usr/bin/nft", X_OK) == 0;
    chain_add(chain, "nftables", nft ? LINK_OK : LINK_NOTE, "apt install nftables, for rules to be read "
              "and kept.", nft ? "nft is there" : "nft is not installed");
}

static void check_clock(json_t *chain)
{
    struct timex t = {0};
    struct tm tm;
    time_t now = time(NULL);
    char day[32];
    int state = adjtimex(&t);
    gmtime_r(&now, &tm);
    strftime(day, sizeof day, "%Y-%m-%d %H:%M UTC", &tm);
    if (tm.tm_year + 1900 < 2025)
        chain_add(chain, "clock", LINK_BROKEN, "Set it: certificates are refused by its time.",
                  "%s cannot be", day);
    else if (state == TIME_ERROR || (t.status & STA_UNSYNC) != 0)
        chain_add(chain, "clock", LINK_NOTE, "Install a time service (systemd-timesyncd, chrony).",
                  "%s, kept by nobody (NTP)", day);
    else
        chain_add(chain, "clock", LINK_OK, NULL, "%s, kept by NTP", day);
}

json_t *doctor_machine(void)
{
    json_t *chain = chain_new(SLICE("this machine"));
    check_limits(chain);
    check_kernel(chain);
    check_clock(chain);
    return chain;
}
