/* SPDX-License-Identifier: Apache-2.0 */
/*
 * {http.request.tls.…}: what the handshake agreed on, and who the client is by its certificate.
 */
#pragma once

#include "http/exchange.h"
#include "pki/peer_certificate.h"
#include "tls/tls_stream.h"

/* By the name without its prefix; false: there is none of that name, or no TLS. */
bool tls_placeholder(struct exchange *, struct slice name, struct slice *value);

/* The same of given values; `peer` NULL: the client showed no certificate. */
bool tls_placeholder_of(const struct tls_facts *, const struct peer_certificate *peer,
                        struct slice name, struct arena *, struct slice *value);

/* Reads the certificate of the exchange's client; false: it has shown none. */
bool tls_peer(struct exchange *, struct peer_certificate *);

/* "tls1.3"; a number for what has no name. */
struct slice tls_version_name(uint16_t, struct arena *);
