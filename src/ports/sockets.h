/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is bound: every listening or bound socket of the namespaces that we may see, from the
 * kernel's socket diagnostics (NETLINK_SOCK_DIAG); /proc/net/{tcp,udp,…} where those are refused.
 */
#pragma once

#include "base/err.h"
#include "ports/port.h"

struct socket_options {
    bool one_namespace; /* ours only */
    bool from_procfs;   /* for tests: the fallback */

    /* Portico's service that a process belongs to, of its cgroup's path; NULL: nobody asks. The
     * name is empty or lives as long as the table. */
    struct slice (*service_of)(void *arg, pid_t, struct slice cgroup);
    void *service_arg;
};

/* Appends entries without owners, sorted, one per address, port, protocol and namespace; what could
 * not be read goes into `unseen`. ERR_* only when nothing could be read at all. */
enum err sockets_collect(struct port_table *, const struct socket_options *, char *error, size_t cap);

/* Whose they are: walks /proc once, for the sockets of the table. Entries may have been added since
 * sockets_collect, not moved. */
enum err owners_collect(struct port_table *, const struct socket_options *);
