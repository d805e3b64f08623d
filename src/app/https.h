/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a configuration is about HTTPS: the app "tls", automatic HTTPS, the servers' contexts.
 */
#pragma once

#include "app/generation.h"

/* Opens the storage, provisions the app "tls", and applies automatic HTTPS to the app "http", which
 * is in g->https.http afterwards. Before any server is provisioned. `apps` may be NULL. */
enum err https_provision(struct generation *, const json_t *apps);

/* Makes what handshakes of a server need; behind its provisioning. */
enum err https_finish_server(struct generation *, struct http_server *);

/* Names that something provisioned meanwhile needs a certificate for. Behind all servers. */
enum err https_want_names(struct generation *);

/* When nothing can fail any more, before workers use the generation. */
void https_commit(struct generation *);

/* The manager of certificates and what it needs; once, on the control thread. */
void https_start(struct loop *control);

/* Ends it; `stopped` is called then, from the loop's stack. Handshakes that wait get their answer. */
void https_stop(void (*stopped)(void));
