/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The numbers and shapes of landlock(7) that Debian's kernel headers are too old to know. A rule set
 * that handles binding alone leaves everything else as it is.
 */
#include "services/confine.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

enum {
    ABI_WITH_NETWORK = 4,
    CREATE_RULESET_VERSION = 1, /* flag */
    RULE_NET_PORT = 2,          /* kind of rule */
    ACCESS_NET_BIND_TCP = 1,    /* right */
};

struct ruleset_attributes {
    uint64_t handled_fs, handled_net;
};

struct port_attributes {
    uint64_t allowed, port;
};

bool confine_is_there(void)
{
    return syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION) >= ABI_WITH_NETWORK;
}

static bool allow(int ruleset, uint16_t port)
{
    struct port_attributes rule = {ACCESS_NET_BIND_TCP, port};
    return syscall(SYS_landlock_add_rule, ruleset, RULE_NET_PORT, &rule, 0) == 0;
}

enum err confine_ports(uint16_t port)
{
    struct ruleset_attributes all = {.handled_net = ACCESS_NET_BIND_TCP};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return err_from_errno(errno);
    if (!confine_is_there())
        return ERR_UNSUPPORTED;
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);
    if (ruleset < 0)
        return err_from_errno(errno);
    bool done = allow(ruleset, 0) && (port == 0 || allow(ruleset, port)) &&
                syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    int e = done ? 0 : errno;
    close(ruleset);
    return err_from_errno(e);
}
