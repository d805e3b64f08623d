/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The modules of this room, for the table of all modules in app/, and what a worker must tell it.
 */
#pragma once

#include "base/buffer.h"
#include "http/module.h"

extern const struct module handler_reverse_proxy;
extern const struct module handler_copy_response, handler_copy_response_headers;
extern const struct module transport_http, transport_fastcgi;
extern const struct module upstreams_service, upstreams_multi, upstreams_a, upstreams_srv;
extern const struct module policy_random, policy_random_choose, policy_least_conn,
    policy_round_robin, policy_weighted_round_robin, policy_first, policy_ip_hash,
    policy_client_ip_hash, policy_uri_hash, policy_query, policy_header, policy_cookie,
    policy_p2c_ewma;

/* Before there are workers: how a generation is kept while something of it goes on without a request,
 * and let go of again. */
void proxy_begin(void (*keep)(struct generation *), void (*let_go)(struct generation *));

/* What Prometheus is told of a configuration's upstreams; on any thread that holds it. */
enum err gateway_metrics_put(struct buffer *, const struct provision *);

/* On a worker's thread: the newest generation, or NULL when the worker drains. Tunnels of all others
 * end, at once or after their stream_close_delay; so do those that begin later. */
void proxy_retire_others(const struct generation *newest);

/* On a worker's thread, which takes over a configuration: connections that it shall have open. The
 * generation is kept as long as its gateways are needed. */
void warm_begin(const struct provision *, struct generation *, void (*keep)(struct generation *),
                void (*let_go)(struct generation *));

/* This thread gives up connections that nobody uses. */
void proxy_drain(void);

/* At a worker's end, when no exchange is left and its loop still runs. */
void proxy_thread_deinit(void);
