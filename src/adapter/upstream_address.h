/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An upstream as a Caddyfile writes it: "localhost:3000", "https://backend", "unix//run/app.sock",
 * "10.0.0.1:8000-8003", "{vars.backend}".
 */
#pragma once

#include "net/address.h"

struct upstream_address {
    struct slice network, scheme, host, port;
};

enum err upstream_address_parse(struct slice, struct upstream_address *, struct arena *,
                                struct address_error *);

/* As the JSON's "dial" has it. */
struct slice upstream_dial(const struct upstream_address *, struct arena *);
