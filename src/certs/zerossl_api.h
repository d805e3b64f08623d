/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ZeroSSL's own API, beside ACME: a binding for an email address, and certificates by an API key. A
 * failure leaves a sentence in the `struct acme`; the key is in none.
 */
#pragma once

#include "certs/acme_client.h"

enum { ZEROSSL_PROOFS_MAX = 256 };

extern const char *zerossl_base_url; /* "https://api.zerossl.com"; tests point it elsewhere */

/* Credentials of an external account for that address. */
enum err zerossl_binding(struct acme *, struct slice email, struct slice *id, struct slice *mac_key);

struct zerossl_client {
    struct slice key;
};

struct zerossl_proof {
    struct slice url, content;  /* what is to be found where, by http */
    struct slice cname, target; /* or a CNAME record; names without a final dot */
};

struct zerossl_certificate {
    struct slice id, status;
    struct slice json; /* the whole object, as certmagic keeps it */
    struct zerossl_proof *proofs;
    size_t proofs_count;
};

enum err zerossl_create(struct acme *, const struct zerossl_client *, struct slice csr_der,
                        const struct slice *names, size_t count, int64_t validity_days,
                        struct zerossl_certificate *);
enum err zerossl_verify(struct acme *, const struct zerossl_client *, struct slice id, bool by_cname,
                        struct zerossl_certificate *);
enum err zerossl_get(struct acme *, const struct zerossl_client *, struct slice id,
                     struct zerossl_certificate *);
enum err zerossl_download(struct acme *, const struct zerossl_client *, struct slice id,
                          struct slice *chain_pem);

/* Logs when it fails; the sentence of before stays. */
void zerossl_cancel(struct acme *, const struct zerossl_client *, struct slice id);
