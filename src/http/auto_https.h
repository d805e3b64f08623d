/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which servers Caddy would serve over TLS by itself.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"

struct auto_https_ports {
    uint16_t http, https;
};

/* Looks at one member of "servers". True when it needs TLS; *host then names the first site that
 * does, or the address. */
bool auto_https_wants_tls(const json_t *server, const struct auto_https_ports *, struct arena *,
                          struct slice *host);
