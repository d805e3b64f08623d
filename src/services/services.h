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

struct endpoint;
struct loop;

enum replica_state {
    REPLICA_STOPPED, REPLICA_WAITING, /* for a start: back-off, or what it comes after */
    REPLICA_STARTING, /* runs, not ready yet */
    REPLICA_READY, REPLICA_UNHEALTHY, REPLICA_STOPPING, REPLICA_GAVE_UP,
};

/* --- on the control thread --- */

/* Once: `fd` is the pair to the keeper. Programs that an earlier server left are asked for. */
enum err services_init(struct loop *control, int fd);

/* Whether IANA has assigned a TCP port to something; set once by app/, since the registry is a later
 * room's. NULL: nothing is known. */
extern bool (*services_port_assigned)(uint16_t port);

/* Before anything of a configuration is taken over. `other_user`: this process became another user's
 * than the keeper's, so that whom programs may run as was settled with the first configuration. */
enum err services_prepare(const struct service *, size_t count, bool other_user, char *error,
                          size_t cap);

/* A generation is running from now on: starts what is new, leaves what did not change untouched,
 * rolls what changed, stops what is gone: from the loop's next turn on. `folder`: where given ports
 * are kept. */
void services_adopt(const struct service *, size_t count, struct slice folder);

/* On the way out of the process: all are stopped, then `stopped` is called, from the loop. */
void services_stop_all(void (*stopped)(void));
void services_deinit(void);

/* Commands of the admin API, on fibers; a sentence on failure: ERR_NOT_FOUND, ERR_FAILED. `command`:
 * start, stop, restart; each returns when it is done. */
enum err await_service_command(struct slice name, struct slice command, char *error, size_t cap);

/* An array, or the one service of a name; NULL when there is none. A new reference. */
json_t *services_list(void);
json_t *service_describe(struct slice name);

/* JSON lines {"seq", "time", "replica", "stream", "text"}: the last `lines` of those behind `since`.
 * When there is none, waits for one until the deadline (0: does not wait). */
enum err await_service_logs(struct slice name, size_t lines, uint64_t since, uint64_t deadline_ns,
                            struct buffer *);

/* Prometheus text. */
enum err services_metrics_put(struct buffer *);

/* --- anywhere --- */

struct service_handle; /* of a name; valid for the process's life; NULL when there are too many */
struct service_handle *service_handle(struct slice name);

/* --- on workers --- */

/* What may be used of a service: an immutable set, which is exchanged when something changes. Costs
 * one atomic load; it stays what it is until it is given back, on the same thread. */
struct service_view {
    struct endpoint *const *endpoints; /* of usable replicas: "127.0.0.1:3000" */
    uint32_t count;
    bool exists, on_demand;
    bool closed;          /* nobody is going to be ready: stopped, or given up */
    uint64_t patience_ns; /* how long a request may wait for a replica */
};

const struct service_view *service_view_take(struct service_handle *);
void service_view_give(const struct service_view *);

/* Waits until a replica is ready, starting one on demand. ERR_TIMEOUT at the deadline, ERR_LIMIT when
 * too many wait, ERR_CLOSED when nobody is going to be ready; else the fiber's own error. */
enum err await_service(struct service_handle *, uint64_t deadline_ns);

/* Requests under way: +1, -1. A service on demand stops when there was none for a while. */
void service_used(struct service_handle *, int step);

/* At a thread's end; no view may be out. */
void services_thread_deinit(void);
