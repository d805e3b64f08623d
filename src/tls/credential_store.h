/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What handshakes look for among the published credentials, and what OpenSSL needs of the one that
 * was found. For files of tls/ only.
 */
#pragma once

#include <stdatomic.h>

#include "tls/credential.h"
#include "tls/hello.h"

struct x509_st;
struct stack_st_X509;

/* What was parsed once and is shared by all forms of it. */
struct credential_body {
    atomic_uint refs;
    struct arena arena;
    struct certificate_facts facts;
    struct slice chain_pem, key_pem;
    struct slice *tags;
    size_t tags_count;
    bool managed;
};

struct credential {
    atomic_uint refs;
    atomic_uint_fast64_t seen_in; /* the version of the last set that has it */
    struct credential_body *body;
    struct slice staple;          /* DER */
};

/* Decoded: a thread's own, in its bounded cache; the intermediates are shared by all. */
struct decoded {
    struct x509_st *leaf;
    struct evp_pkey_st *key;
    struct stack_st_X509 *chain; /* without the leaf */
};

/* Valid until this thread's next call. NULL with a sentence when it is damaged. */
const struct decoded *credential_decode(struct credential *, char *why, size_t cap);

/* Drops those of this thread that are in no set of that version. */
void credential_sweep(uint64_t version);

/* What a client says about itself, for the choice among several. */
struct credential_query {
    struct slice name;        /* lower case; empty: none was sent */
    struct slice local;       /* text of the address that was connected to */
    const struct tls_policy *policy;
    const struct hello *hello;
    int64_t now_s;
};

/* The one to use, borrowed until this thread's next call here; NULL: none. *by_default: it is not
 * one for the name but the fallback. */
struct credential *credential_find(const struct credential_query *, bool *by_default);

/* The one that answers a challenge for that name, with a reference; NULL: there is none. */
struct credential *credential_challenge_find(struct slice name);

void credential_cache_deinit(void); /* the decoded ones of this thread */

/* At a thread's end. */
void credential_thread_deinit(void);
