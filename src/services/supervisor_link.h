/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the manager asks of the keeper (supervisor_wire.h); the answers come to program.c and
 * health.c. (A link to an upstream is another thing: upstream/link.h.)
 */
#pragma once

#include "services/launch.h"
#include "services/service.h"
#include "services/supervisor_wire.h"

/* Lists what runs, then listens from the manager's loop. */
enum err link_open_keeper(int fd);
void link_close_keeper(void);

uint64_t link_instance(void); /* a new one */

/* `error`: a sentence. */
enum err link_start(const struct launch *, uint64_t instance, const struct service *, char *error,
                    size_t cap);
enum err link_exec(const struct launch *, uint64_t instance, const struct service *,
                   const int streams[3], char *error, size_t cap);

void link_tell(enum supervisor_kind, uint64_t instance, int signal, uint64_t timeout_ns);
void link_allow(struct slice user, struct slice group);
void link_release(struct slice name, uint32_t replica);
