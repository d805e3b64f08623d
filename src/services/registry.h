/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread's side of the registry: what it publishes to workers, and what they ask of it.
 */
#pragma once

#include "services/services.h"

enum { HANDLES_MAX = 1024 };

struct registry_state {
    struct endpoint **endpoints; /* a reference of each becomes the view's */
    uint32_t count, queue_max;
    bool exists, on_demand, closed;
    uint64_t patience_ns;
};

/* What workers see from now on. Those who waited for a replica go on when there is one, or when there
 * is none to come. */
void registry_publish(struct service_handle *, const struct registry_state *);

struct slice registry_name(const struct service_handle *);
void *registry_owner(const struct service_handle *); /* of the control thread */
void registry_set_owner(struct service_handle *, void *);

/* Called on the control thread when a request waits for a service that has no replica. */
void registry_on_demand(struct loop *control, void (*wanted)(struct service_handle *));

int registry_requests(const struct service_handle *);
uint64_t registry_last_used_ns(const struct service_handle *);
unsigned registry_waiting(const struct service_handle *);
