/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger of ports in the server: read by the keeper's reader, which sees more than this process
 * may, judged here by the running configuration. A look is kept for a moment, so that many who ask
 * cost one.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"
#include "config/kept_json.h"

/* What is judged by. */
struct ports_document {
    const struct kept_json *text; /* the running one */
    uint64_t number;              /* another one whenever it is replaced */
};

/* The ledger's JSON as it is answered; on a fiber of the control thread. */
enum err await_ports_json(struct ports_document, struct arena *, struct slice *out, char *error,
                          size_t cap);

/* For who scrapes: Prometheus text of a look that is not older than some seconds. */
enum err await_ports_metrics(struct ports_document);
enum err ports_metrics_put(struct buffer *);

void ports_server_deinit(void);
