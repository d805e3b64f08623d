/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The global option `service`, the app that all of them make, and services as upstreams.
 */
#pragma once

#include "adapter/adapt.h"

MUST_USE enum err service_option(struct adapt *, struct dispenser *);

/* NULL when there is no service. */
MUST_USE enum err services_app_build(struct adapt *, json_t **app);

/* {"source": "service", "name": NAME} of a service that there is. */
MUST_USE enum err service_upstream(struct adapt *, struct dispenser *, struct slice name,
                                   json_t **source);
