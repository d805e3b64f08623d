/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network namespaces that we may see: our own ("the machine's own"), those of the processes in
 * /proc, and those that a mount pins (/run/netns/NAME, container runtimes).
 */
#pragma once

#include "base/err.h"
#include "ports/port.h"

struct port_namespace {
    uint64_t inode;
    struct slice name; /* empty: our own; else "blue" of /run/netns/blue, the container's, "host"
                          (the machine's first, when it is not ours), or "pid 812 (nginx)" */
    pid_t pid;         /* of a process inside; 0: none that we see */
    const char *path;  /* of a mount that pins it; NULL */
    enum err entered;  /* OK: its sockets were read from inside */
};

/* Fills the table's namespaces, our own first, and its netns. `one`: only our own. */
enum err namespaces_find(struct port_table *, bool one);

/* NULL: not known. */
const struct port_namespace *namespace_by_inode(const struct port_table *, uint64_t inode);

/* Runs `work` inside a namespace: on a thread of its own, which ends with it; for our own it is
 * simply called. ERR_DENIED without CAP_SYS_ADMIN, ERR_NOT_FOUND when it is gone; else what `work`
 * returned. Waits for it. */
enum err namespace_run(const struct port_namespace *, enum err (*work)(void *), void *arg);
