/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole ledger, read once: for the commands, the admin endpoint and the metrics.
 */
#pragma once

#include <jansson.h>

#include "base/buffer.h"
#include "base/err.h"
#include "config/origin.h"
#include "ports/port.h"
#include "ports/sockets.h"

struct ledger_request {
    const json_t *document;        /* to judge by; NULL: nothing is declared */
    const struct origins *origins; /* of it; may be NULL */
    struct socket_options sockets;
};

/* Blocking (some tens of milliseconds): never on a worker. */
enum err ledger_read(const struct ledger_request *, struct arena *, struct port_table *, char *error,
                     size_t cap);

/* What is wrong (findings.c). */
void table_find(struct port_table *);

/* The writers. `columns`: the terminal's width, 0: none; `colour`: escape sequences. */
void port_text_write(const struct port_table *, unsigned columns, bool colour, struct buffer *);
void port_csv_write(const struct port_table *, struct buffer *);
void port_sarif_write(const struct port_table *, struct buffer *);
json_t *port_json(const struct port_table *); /* new reference; the contract */

/* Back from that JSON, which came from a process that sees more (the keeper's reader). */
enum err port_json_read(const json_t *, struct arena *, struct port_table *, char *error, size_t cap);
