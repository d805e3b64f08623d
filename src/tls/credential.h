/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A certificate with its chain and key, as handshakes use it: immutable, shared by all threads by a
 * count. Until somebody asks for it, it is its bytes and what is needed to find it; the key and the
 * chain are decoded at first use.
 */
#pragma once

#include "loop/loop.h"
#include "pki/certificate.h"
#include "tls/policy.h"

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

void credentials_clear(void); /* none: at the process's end */

/* For challenges of TLS-ALPN-01 (RFC 8737): answers ALPN "acme-tls/1" for that name (of an address:
 * its reverse name, RFC 8738 §6); NULL ends it. The reference is taken over. */
void credentials_challenge(struct slice name, struct credential *);

/* What a handshake without a credential asks, before it fails: the control thread's answer. It posts
 * `answer` to `from` when credentials_publish has been called or `given` is set, or when there will
 * be none, and may take minutes. Its memory is the handshake's, and stays until the answer. */
struct credential_ask {
    struct mail *answer;
    struct loop *from;
    char name[256];     /* lower case, or the address that was connected to */
    char remote[64];    /* whose: text of the address without port */
    char local[64];     /* that was connected to, likewise */
    char ciphers[256], schemes[256]; /* of the hello: "1301,1302", hexadecimal; may be cut short */
    enum err result;
    struct credential *given; /* for this handshake only, not published; the reference is passed */
};
typedef void credential_asker(struct credential_ask *);
extern _Atomic(credential_asker *) credential_ask_hook; /* any thread; NULL: nothing to ask */
