/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A certificate with its chain and key, as handshakes use it: immutable, shared by all threads by a
 * count. Until somebody asks for it, it is its bytes and what is needed to find it; the key and the
 * chain are decoded at first use.
 */
#pragma once

#include "loop/loop.h"
#include "pki/certificate.h"

struct credential; /* tls/credential.c */

struct credential_spec {
    struct slice chain_pem, key_pem;
    const struct slice *tags;
    size_t tags_count;
    struct slice staple; /* an OCSP answer, DER; empty: none */
    bool managed;        /* portico's own to renew */
};

/* Copies all it needs. ERR_INVALID with a sentence: not PEM, or the key is not the certificate's. */
enum err credential_create(const struct credential_spec *, struct credential **, char *why, size_t cap);

/* The same one with another OCSP answer. */
struct credential *credential_with_staple(const struct credential *, struct slice der);

struct credential *credential_ref(struct credential *);
void credential_unref(struct credential *);

const struct certificate_facts *credential_facts(const struct credential *);
struct slice credential_pem(const struct credential *); /* the chain */

/* The set of all credentials that handshakes may choose from, by name; immutable. Publishing
 * replaces the one before for every thread from their next handshake on. The references of `all`
 * are taken over. Of several with one name the first is chosen, unless a policy selects. */
void credentials_publish(struct credential **all, size_t count);

/* For challenges of TLS-ALPN-01 (RFC 8737): answers ALPN "acme-tls/1" for that name; NULL ends it. */
void credentials_challenge(struct slice name, struct credential *);

/* What a handshake without a credential asks, before it fails: the control thread's answer, which
 * posts `answer` to `from` when credentials_publish has been called, or when there will be none. */
struct credential_ask {
    struct mail *answer;
    struct loop *from;
    char name[256];     /* lower case, or the address that was connected to */
    char remote[64];    /* whose: text of the address without port */
    enum err result;
};
extern void (*credential_ask_hook)(struct credential_ask *); /* any thread; NULL: nothing to ask */
