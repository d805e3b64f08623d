/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SOCKS 5 (RFC 1928), as a client that wants to be connected, with a name and a password where the
 * proxy asks for them (RFC 1929).
 */
#pragma once

#include "client/url.h"
#include "upstream/link.h"

/* On a fresh link to the proxy: from then on it is a connection to that host, whose name the proxy
 * resolves. ERR_DENIED with a sentence: it refuses, or speaks something else; else as await_link. */
enum err await_socks(struct link *, const struct url *proxy, struct slice host, uint16_t port,
                     uint64_t deadline_ns, char *why, size_t cap);
