/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a server's configuration is about protocols and encryption.
 */
#pragma once

#include "http/server.h"

/* Reads "protocols", "listen_protocols", "tls_connection_policies", "strict_sni_host" and
 * "allow_0rtt". "listen" is read before. */
enum err server_tls_provision(struct http_server *, const json_t *, struct provision *);
