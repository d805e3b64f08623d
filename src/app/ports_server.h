/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger of ports in the server: read by the keeper's reader, which sees more than this process
 * may, judged here by the running configuration. A look is kept for a moment, so that many who ask
 * cost one.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"
#include "base/buffer.h"

/* The ledger's JSON as it is answered; on a fiber of the control thread. */
enum err await_ports_json(const json_t *document, struct arena *, struct slice *out, char *error,
                          size_t cap);

/* For who scrapes: Prometheus text of a look that is not older than some seconds. */
enum err await_ports_metrics(const json_t *document);
enum err ports_metrics_put(struct buffer *);

void ports_server_deinit(void);
