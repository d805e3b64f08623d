/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which connection policy a hello gets: the first in order whose matchers all agree, as in Caddy, but
 * found by the server name without asking those of other names. Pure; read by many threads.
 */
#pragma once

#include "tls/policy.h"

struct policy_index;

/* The policies must stay where they are. */
struct policy_index *policy_index_create(const struct tls_policy *, size_t count);
void policy_index_free(struct policy_index *); /* NULL: nothing */

/* NULL: none agrees. */
const struct tls_policy *policy_index_find(const struct policy_index *, const struct tls_hello *);

/* Whether the matchers beside its names agree. */
bool policy_agrees(const struct tls_policy *, const struct tls_hello *);
