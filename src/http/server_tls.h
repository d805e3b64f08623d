/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a server's configuration is about protocols and encryption.
 */
#pragma once

#include "http/server.h"

/* Reads "protocols", "listen_protocols", "tls_connection_policies", "strict_sni_host" and
 * "allow_0rtt". "listen" is read before. */
enum err server_tls_provision(struct http_server *, const json_t *, struct provision *);

/* The rule of strict_sni_host: a request for another host than the handshake's fails with 421. */
enum err server_check_host(const struct http_server *, struct exchange *);
