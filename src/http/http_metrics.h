/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters and histograms of requests, with Caddy's names and labels, when "metrics" asks for them.
 * Each worker counts in memory of its own, which only it writes; whoever scrapes adds up.
 */
#pragma once

#include "base/buffer.h"
#include "http/route.h"

struct http_metrics; /* of a configuration */
struct http_server;
struct meter;        /* of one server's routes whose first handler has one name */

/* `json`: the member "metrics" of the app. `workers`: how many threads count. */
enum err http_metrics_provision(struct http_metrics **, const json_t *json, unsigned workers,
                                struct provision *);

/* Lets a provisioned server's routes count. The host matchers of its JSON name the hosts that may
 * have a label of their own. */
void http_metrics_attach(struct http_metrics *, struct http_server *, const json_t *server,
                         struct arena *);

/* The calling thread counts as worker `index`. */
void http_metrics_thread(unsigned index);
unsigned http_metrics_worker(void);

/* Runs the route's first handler, and counts. `rest`: what chain_next goes on with. */
enum err meter_run(const struct meter *, struct exchange *, const struct handler *first,
                   const struct chain *rest);

/* Prometheus text of a configuration's counters; NULL gives nothing. From any thread. */
enum err http_metrics_put(struct buffer *, const struct http_metrics *);

/* name="value"; backslash, quote and line end are escaped. */
void metrics_put_label(struct buffer *, const char *name, struct slice value);

/* CPU time, memory, descriptors of this process, and dropped log lines. */
enum err process_metrics_put(struct buffer *);

/* What else the process has to tell, set once by app/; for the handler `metrics`. */
typedef enum err metrics_source(struct buffer *, struct exchange *);
void metrics_set_source(metrics_source *);
enum err metrics_put_all(struct buffer *, struct exchange *);
