/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changed from one look to the next: `portico ports log`. Here the looks are only compared; the
 * caller keeps the text from run to run:
 *
 *   {"last": {"time": N, "ports": [[port, "tcp", "127.0.0.1", "nginx (root)"]]},
 *    "log": [{"time": N, "change": "opened", "port": 80, "protocol": "tcp", "address": "0.0.0.0",
 *             "owner": "…", "was": "…"}]}
 *
 * Changes: opened, closed, owner. The newest stands last.
 */
#pragma once

#include <jansson.h>

#include "base/buffer.h"
#include "ports/findings.h"

enum {
    HISTORY_CHANGES_MAX = 1000, /* older ones are forgotten */
    HISTORY_PORTS_MAX = 16384,  /* of a look; a machine with more is not remembered */
};

struct seen_port {
    uint16_t port;
    enum port_protocol protocol;
    struct slice address, owner; /* as text; no owner: it could not be seen */
};

struct history {
    bool looked;            /* there was a look before */
    int64_t time;           /* when */
    struct seen_port *last; /* what was there then, by place */
    size_t last_count;
    json_t *log;            /* history_log(); NULL: not asked for yet */
    struct slice log_text;  /* as it was read */
    struct arena arena;     /* of `last` */
};

void history_init(struct history *);
void history_deinit(struct history *);

/* The text of before, into an empty history. What is not one counts for nothing. */
void history_read(struct history *, struct slice text);
void history_write(struct history *, struct buffer *);

/* The changes, an array; the newest stands last. Borrowed. */
json_t *history_log(struct history *);

/* The ports of the last look, for table_find. They live as long as the history is not updated. */
size_t history_memory(const struct history *, struct arena *, struct port_memory **);

/* True when there is something to be written. `changes`: how many there were; the first look has
 * none. Entries of other namespaces, and sockets of clients (UDP in `local`), are left out. */
bool history_update(struct history *, const struct port_table *, struct port_interval local,
                    size_t *changes);

/* In the order of places: a look is sorted so. */
void history_sort(struct seen_port *, size_t count);
