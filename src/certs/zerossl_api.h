/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ZeroSSL's own API, beside ACME: a binding for an email address, and certificates by an API key.
 */
#pragma once

#include "certs/acme_client.h"

extern const char *zerossl_base_url; /* "https://api.zerossl.com"; tests point it elsewhere */

/* Credentials of an external account for that address. */
enum err zerossl_binding(struct acme *, struct slice email, struct slice *id, struct slice *mac_key);
