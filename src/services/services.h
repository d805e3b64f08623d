/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services as the server sees them: a registry of the process (it outlives generations), led by the
 * control thread, read by workers. A replica that can be used is an upstream; balancing and retries
 * are the gateway's.
 */
#pragma once

#include <jansson.h>

#include "base/buffer.h"
#include "http/module.h"
#include "services/service.h"

struct loop;

enum replica_state {
    REPLICA_STOPPED, REPLICA_WAITING, /* for a start: back-off, or what it comes after */
    REPLICA_STARTING, /* runs, not ready yet */
    REPLICA_READY, REPLICA_UNHEALTHY, REPLICA_STOPPING, REPLICA_GAVE_UP,
};

/* Once, on the control thread: `fd` is the pair to the keeper. */
enum err services_init(struct loop *control, int fd);

/* A generation is running from now on: starts what is new, leaves what did not change untouched,
 * rolls what changed, stops what is gone. On the control thread. */
void services_adopt(const struct service *, size_t count);

/* What a worker may use of a service: the addresses of its usable replicas, an immutable set that
 * is exchanged when something changes (read without a lock; valid until the exchange ends). */
struct service_view {
    const struct slice *addresses; /* "127.0.0.1:3000" */
    const uint64_t *instances;
    uint32_t count;
    bool on_demand, exists;
};
struct service_handle; /* of a name; made at provision, valid for the process's life */
struct service_handle *service_handle(struct slice name);
struct service_view service_view(const struct service_handle *);

/* On a worker's fiber: waits until a replica is ready, starting one on demand. ERR_TIMEOUT at the
 * deadline, ERR_LIMIT when the queue is full, ERR_CLOSED when it gave up. */
enum err await_service(struct service_handle *, uint64_t deadline_ns);
void service_used(struct service_handle *, int step); /* requests under way: +1, -1 (idle stop) */

/* Commands of the admin API, on the control thread's fibers; a sentence on failure. */
json_t *services_list(void);
enum err await_service_command(struct slice name, struct slice command, char *error, size_t cap);
enum err service_logs(struct slice name, size_t lines, struct buffer *);

/* Drains: on the way out of the process. */
void services_stop_all(void);
