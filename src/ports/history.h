/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changed from one look to the next: `portico ports log`. The memory is one JSON value, kept by
 * the caller; here it is only compared with a table and brought up to date. Pure.
 *
 *   {"last": {"time": N, "ports": [[port, "tcp", "127.0.0.1", "nginx (root)"]]},
 *    "log": [{"time": N, "change": "opened", "port": 80, "protocol": "tcp", "address": "0.0.0.0",
 *             "owner": "…", "was": "…"}]}
 *
 * Changes: opened, closed, owner. The newest stands last.
 */
#pragma once

#include <jansson.h>

#include "ports/findings.h"

enum {
    HISTORY_CHANGES_MAX = 1000, /* older ones are forgotten */
    HISTORY_PORTS_MAX = 16384,  /* of a look; a machine with more is not remembered */
};

/* The ports of the last look, for table_find; none where `history` is NULL or not one. */
size_t history_memory(const json_t *history, struct arena *, struct port_memory **);

/* A new reference: the history after this look (the same one when nothing changed). `changes`: how
 * many there were; the first look has none. Entries of other namespaces, and sockets of clients (UDP
 * in `local`), are left out. */
json_t *history_update(const json_t *history, const struct port_table *, struct port_interval local,
                       size_t *changes);
