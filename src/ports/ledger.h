/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole ledger, read once: for the commands, the admin endpoint and the metrics.
 */
#pragma once

#include <jansson.h>

#include "base/buffer.h"
#include "base/err.h"
#include "config/origin.h"
#include "ports/findings.h"
#include "ports/port.h"
#include "ports/sockets.h"

struct ledger_request {
    const json_t *document;        /* to judge by; NULL: nothing is declared */
    const struct origins *origins; /* of it; may be NULL */
    struct socket_options sockets;
    const json_t *services;        /* that run (declared.h); may be NULL */
    const struct port_memory *memory; /* of the last look; may be NULL */
    size_t memory_count;
};

/* Blocking (some tens of milliseconds): never on a worker. */
enum err ledger_read(const struct ledger_request *, struct arena *, struct port_table *, char *error,
                     size_t cap);

/* Its two halves: what is there, which wants privileges to see all of it; and what is to be said of
 * that, which needs none. */
enum err ledger_look(const struct socket_options *, struct arena *, struct port_table *, char *error,
                     size_t cap);
enum err ledger_judge(const struct ledger_request *, struct port_table *, char *error, size_t cap);

/* The writers. `columns`: the terminal's width, 0: none; `colour`: escape sequences. */
void port_text_write(const struct port_table *, unsigned columns, bool colour, struct buffer *);
void port_csv_write(const struct port_table *, struct buffer *);

/* Findings of this severity and above, as text and as SARIF 2.1.0; how many there are. */
size_t findings_text_write(const struct port_table *, enum severity least, bool colour,
                           struct buffer *);
size_t port_sarif_write(const struct port_table *, enum severity least, struct buffer *);
size_t findings_count(const struct port_table *, enum severity least);

/* A new reference; the contract (docs/ports.md). */
json_t *port_json(const struct port_table *);

/* The same as text, indented; without a tree, for tables of many thousand rows. `full` (may be NULL)
 * is called whenever there are PORT_JSON_PIECE bytes, and may take them out of the buffer. */
enum { PORT_JSON_PIECE = 64 << 10 };
void port_json_write(const struct port_table *, struct buffer *, void (*full)(struct buffer *));

/* What ledger_look saw, from a process that sees more (the keeper's reader) and back: the contract's
 * members and those that only a judge needs. */
json_t *port_json_whole(const struct port_table *);
enum err port_json_read(const json_t *, struct arena *, struct port_table *, char *error, size_t cap);

/* Texts for people. The bound address as "*", "127.0.0.1", "[::1]"; a text of outside without what a
 * terminal would obey. */
struct slice entry_address(const struct port_entry *, struct arena *);
struct slice clean_text(struct slice, struct arena *);
