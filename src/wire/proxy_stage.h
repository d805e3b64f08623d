/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a connection is until its PROXY header has been read and taken off: the stage before
 * h1_conn, where a server's listener wrappers ask for one.
 */
#pragma once

#include "http/proxy_policy.h"
#include "wire/h1_conn.h"

/* Takes over the socket; hands it to h1_conn_begin, or closes it. */
void proxy_stage_open(struct h1_worker *, struct h1_site *, const struct proxy_policy *, int fd);

/* Those of one site, or with NULL all, have at most so long from now on: a drain. */
void proxy_stage_hurry(struct h1_worker *, const struct h1_site *, uint64_t ns);

/* Closes all that stand on this stage. */
void proxy_stage_abort(struct h1_worker *);
