/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of session tickets that instances share through their storage (tls.stek.distributed): a client
 * that comes back to another one goes on with its session. On the control thread.
 */
#pragma once

#include "base/slice.h"

struct storage;

struct ticket_source {
    struct storage *storage; /* NULL: keys are not shared */
    uint64_t rotation_ns;
    unsigned keys;
};

/* Behind manager_adopt, whose pin keeps the storage open. Blocks until there are keys, or until there
 * is no hope for now: the process's own are used then, and others looked for again. */
void shared_tickets_adopt(const struct ticket_source *);

/* Before manager_stop. */
void shared_tickets_stop(void);
