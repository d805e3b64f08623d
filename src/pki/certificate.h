/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a certificate says, and requests for one. Texts are PEM; slices live in the arena.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"
#include "pki/key.h"

struct certificate_facts {
    struct slice *names; /* DNS names in lower case, wildcards, addresses as text; of the subject's
                          * common name too where there is no alternative name */
    size_t names_count;
    struct slice subject, issuer; /* as RFC 2253 text */
    struct slice organization;    /* of the issuer's subject, the first; may be empty */
    struct slice serial;          /* decimal, as Caddy's selectors compare it */
    int64_t not_before_s, not_after_s;
    bool must_staple, is_ca;
    struct slice ocsp_url, issuer_url; /* authority information access; may be empty */
    struct slice ari_id; /* RFC 9773 §4.1; empty without an authority key identifier */
    uint8_t sha256[32];  /* of the leaf's DER */
    unsigned chain;      /* certificates in the text */
};

/* Of the first certificate in a PEM text. */
enum err certificate_read(struct slice pem, struct arena *, struct certificate_facts *, char *why,
                          size_t cap);

/* A request (PKCS#10, DER) for DNS names and addresses, signed by the key. */
enum err csr_make(struct evp_pkey_st *, const struct slice *names, size_t count, bool must_staple,
                  struct buffer *der);
