/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which routes of a list can match a host name, precomputed: with a thousand sites in one server, a
 * request meets its own and those that are for any host, not all of them.
 */
#pragma once

#include "http/module.h"

struct host_index;

/* Ascending indexes into the list. */
struct host_candidates {
    const uint32_t *routes;
    uint32_t count;
};

/* From the JSON of the routes. NULL when it would not pay: few routes, or few that name hosts. */
struct host_index *host_index_create(const json_t *routes, struct provision *);

/* For Host as it came, with its port. Every route that is left out could not match it. */
struct host_candidates host_index_find(const struct host_index *, struct slice host);
