/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom an outgoing connection believes, and what it is besides: made once, used by all threads.
 */
#pragma once

#include "base/arena.h"

struct tls_client; /* tls/client.c: options of outgoing connections, with their session cache */

struct tls_client_options {
    struct slice *roots_pem; /* trusted besides or instead; none: the system's */
    size_t roots_count;
    struct slice chain_pem, key_pem; /* the client's own; empty: none */
    struct slice server_name;  /* checked and sent instead of the host; empty: the host */
    struct slice *curves;      /* Caddy's names */
    size_t curves_count;
    uint16_t min_version, max_version;
    const char *const *alpn;   /* ends with NULL; NULL: none */
    bool insecure;             /* nothing is checked */
    bool renegotiate_once, renegotiate_freely; /* accepted, and refused by the library */
};

enum err tls_client_create(const struct tls_client_options *, struct tls_client **, char *why, size_t cap);
void tls_client_free(struct tls_client *);

/* The process's own, with the system's roots (SSL_CERT_FILE and SSL_CERT_DIR count). */
struct tls_client *tls_client_system(void);
