/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The certificate that answers a challenge of TLS-ALPN-01 (RFC 8737 §3): made by its own key, with
 * the digest of the key authorization in a critical extension, so that nothing else takes it.
 */
#pragma once

#include "base/buffer.h"
#include "pki/jose_key.h"

/* `name` is a DNS name (ASCII) or an address. The texts are PEM; `key_pem` should be wiped. */
enum err alpn_certificate_make(struct slice name, struct slice key_authorization,
                               struct buffer *chain_pem, struct buffer *key_pem);
