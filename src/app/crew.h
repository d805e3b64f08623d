/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All workers of the process, as the control thread sees them: started once, told together.
 */
#pragma once

#include "app/worker.h"

/* As many as PORTICO_WORKERS says, or one per core; on the I/O of PORTICO_IO, or the better one that
 * works. `control`: the loop that gets their mail. */
enum err crew_start(struct loop *control, char *error, size_t cap);

unsigned crew_size(void); /* 0 before the start */

/* Each takes over the generation and its own of the sockets, `count` for each; returns when all have. */
void crew_adopt(struct generation *, struct new_socket *const per_worker[], size_t count);

/* Each closes what is idle; `drained` is called on the control thread when all have nothing left. */
void crew_drain(void (*drained)(void));

/* What is still in hand is cancelled. */
void crew_abort(void);

/* Ends their threads and waits for it. */
void crew_end(void);

/* What is alive now. Workers answer between two callbacks, so this waits for microseconds. */
struct worker_live crew_count(void);

uint64_t crew_requests(void); /* served since the start */
