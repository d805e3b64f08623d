/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network addresses as Caddy writes them: "network/host:port-range", every part optional:
 * "localhost:8080", ":80", "tcp4/:1234", ":8000-8010", "unix//run/a.sock|0660", "fd/3".
 */
#pragma once

#include "base/arena.h"

struct network_address {
    struct slice network; /* lower case; "tcp" when none was written */
    struct slice host;    /* without brackets; a Unix socket's path with its "|mode"; fd's number */
    uint16_t first_port, last_port;
};

/* Why an address was refused, as a person reads it. */
struct address_error {
    char text[256];
};

/* The three parts as they stand. ERR_INVALID with a sentence. */
enum err address_split(struct slice, struct slice *network, struct slice *host, struct slice *port,
                       struct arena *, struct address_error *);

/* Parses all of it; a missing network is `network`, a missing port `port`. Slices point into the
 * text or the arena. */
enum err address_parse(struct slice, struct slice network, uint16_t port, struct network_address *,
                       struct arena *, struct address_error *);

/* What address_split takes apart; a host with a colon gets brackets. */
struct slice address_join(struct slice network, struct slice host, struct slice port,
                          struct arena *);

/* The whole address in its normal form, with its port range. */
struct slice address_text(const struct network_address *, struct arena *);

bool network_is_unix(struct slice network);
bool network_is_fd(struct slice network);

/* "path|0660" → path and mode; 0200 when none is written. The owner must be allowed to write. */
enum err unix_permissions(struct slice, struct slice *path, uint32_t *mode, struct address_error *);
