/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a certificate says, and requests for one. Texts are PEM; slices live in the arena.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"
#include "pki/key.h"

struct x509_st;

struct certificate_facts {
    struct slice *names; /* as certmagic collects them: the subject's common name, if any, then DNS
                          * names, addresses as text, mail addresses, URIs; in lower case */
    size_t names_count;
    struct slice common_name;        /* of the subject, as it is written; may be empty */
    struct slice issuer_common_name; /* may be empty */
    struct slice organization;       /* of the issuer, the first; may be empty */
    struct slice serial;             /* decimal, as Caddy's selectors compare it */
    int64_t not_before_s, not_after_s;
    int key_algorithm; /* Go's numbers: 1 RSA, 3 ECDSA, 4 Ed25519; 0: another */
    bool must_staple, is_ca;
    struct slice ocsp_url, issuer_url; /* authority information access; may be empty */
    struct slice ari_id; /* RFC 9773 §4.1; empty without an authority key identifier */
    uint8_t sha256[32];  /* of the leaf's DER */
    unsigned chain;      /* certificates in the text */
};

/* Of the first certificate in a PEM text. Its form is checked, neither its signature nor its key. */
enum err certificate_read(struct slice pem, struct arena *, struct certificate_facts *, char *why,
                          size_t cap);

/* A certificate's public key, as slices of its DER. */
struct public_key {
    struct slice oid, parameters; /* of the algorithm; the parameters with their tag */
    struct slice bits;            /* with the octet that counts unused bits */
};
bool certificate_public_key(struct slice der, struct public_key *);

/* Whether the key of one text is surely that of the first certificate of the other, and the chain is
 * in order, as far as can be told without the library. False: ask it (certificate_has_key). */
bool certificate_surely_has_key(struct slice chain_pem, struct slice key_pem);

/* The first certificate of a PEM text, to be freed by certificate_free. */
enum err certificate_from_pem(struct slice pem, struct x509_st **, char *why, size_t cap);
void certificate_free(struct x509_st *);
enum err certificate_put_pem(struct buffer *out, const struct x509_st *);

/* Wall-clock seconds; false: they are malformed. */
bool certificate_validity(const struct x509_st *, int64_t *from_s, int64_t *to_s);

/* Whether the key is the certificate's. */
bool certificate_has_key(const struct x509_st *, const struct evp_pkey_st *);

/* A request (PKCS#10, DER) for names, signed by the key: DNS names in ASCII, addresses, mail
 * addresses, URIs; each is what it looks like, as in certmagic. ERR_INVALID: a name is none. */
enum err csr_make(struct evp_pkey_st *, const struct slice *names, size_t count, bool must_staple,
                  struct buffer *der);
