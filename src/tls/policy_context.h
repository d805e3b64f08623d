/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a policy is for the library: an SSL_CTX and what its callbacks look at. For files of tls/.
 */
#pragma once

#include <stdatomic.h>

#include "tls/policy.h"

struct ssl_st;
struct ssl_ctx_st;

/* Belongs to its SSL_CTX, which connections hold as long as they live. The library counts them, but
 * its way of counting down orders nothing before it, so each user says here that he has done. */
struct tls_context {
    atomic_uint left;      /* released by each that goes, acquired by the last */
    struct ssl_ctx_st *ssl;
    struct slice alpn;     /* the names, each behind its length, in order of preference */
    bool verifies;         /* clients' chains */
    uint8_t (*leafs)[32];  /* digests of the only certificates that are let in */
    size_t leafs_count;
    int secrets_fd;        /* -1: none */
};

enum err policy_context_create(const struct tls_server *, const struct tls_policy *,
                               struct tls_context **, char *why, size_t cap);

/* One user less. */
void policy_context_free(struct tls_context *);

/* Before an SSL is freed, of whatever context. */
void policy_context_leave(const struct ssl_st *);
