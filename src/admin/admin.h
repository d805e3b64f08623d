/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The admin API: Caddy's paths, methods, statuses and error texts, as one HTTP handler. What it
 * does to the process is behind a face, since the process is a room above.
 */
#pragma once

#include "base/buffer.h"
#include "http/module.h"

struct admin_face {
    /* Makes `document` the running configuration; a sentence in `error` when it cannot. */
    enum err (*apply)(json_t *document, bool force, char *error, size_t cap);
    /* A Caddyfile, or what the adapter's name says, to a document. `warnings`: a JSON array. */
    enum err (*adapt)(struct slice adapter, struct slice body, json_t **out, json_t **warnings,
                      char *error, size_t cap);
    json_t *(*document)(void); /* the running one, as a tree that is the caller's */
    void (*stop)(void);              /* soon, behind the answer */
    /* The file and the adapter of what was just applied; both empty when it came from no file. */
    void (*source)(struct slice file, struct slice adapter);
    /* Appends Prometheus text. */
    enum err (*metrics)(struct buffer *);
    /* The ledger of ports as JSON, in the arena; may wait, as may what is seen to before metrics. */
    enum err (*await_ports)(struct arena *, struct slice *, char *error, size_t cap);
    void (*await_metrics)(void);
    json_t *(*origins)(void); /* where the running document's values came from; a new reference */
};

/* Once, before the first request. */
void admin_set_face(const struct admin_face *);

extern const struct module module_admin_api; /* "http.handlers.portico_admin" */
