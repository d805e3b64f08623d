/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "tls_connection_policies" of a server as data: which handshakes, with which certificate, which
 * versions, suites and curves, and which clients.
 */
#pragma once

#include "http/module.h"
#include "tls/policy.h"

/* Names that Go's crypto/tls has; TLS 1.3's suites come first. NULL-ended. */
extern const char *const tls_suite_names[], *const tls_curve_names[];

/* All of it is in the generation's arena. A policy without "alpn" takes the server's protocols.
 * *client_auth: any of the policies asks for certificates of clients. */
enum err tls_policies_provision(struct tls_server *, const json_t *policies, struct provision *,
                                bool *client_auth);
