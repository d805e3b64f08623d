/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom an outgoing connection believes, and what it is besides: made once, used by all threads.
 */
#pragma once

#include "base/arena.h"

struct tls_client; /* tls/client.c: options of outgoing connections, with their session cache */
struct tls_stream;

enum { TLS_CLIENT_ID_LEN = 32 };

struct tls_client_options {
    struct slice *roots_pem; /* trusted instead of the system's; with `roots_der` none: the system's */
    size_t roots_count;
    struct slice *roots_der; /* the same, a certificate each */
    size_t roots_der_count;
    struct slice chain_pem, key_pem; /* the client's own; empty: none */
    struct slice automate;     /* instead: the published credential of that name, as it is then */
    struct slice server_name;  /* checked and sent instead of the host; empty: the host */
    struct slice *curves;      /* Caddy's names */
    size_t curves_count;
    uint16_t min_version, max_version; /* 0: TLS 1.2 and the newest */
    const char *const *alpn;   /* ends with NULL; NULL: none */
    bool insecure;             /* nothing is checked */
    bool renegotiate_once, renegotiate_freely; /* TLS 1.2, when the server asks; else never */
};

/* ERR_INVALID, ERR_UNSUPPORTED with a sentence. Reads the system's store at its first use. */
enum err tls_client_create(const struct tls_client_options *, struct tls_client **, char *why,
                           size_t cap);
struct tls_client *tls_client_ref(struct tls_client *);
void tls_client_unref(struct tls_client *); /* NULL: nothing */

/* The process's own, with the system's roots (SSL_CERT_FILE and SSL_CERT_DIR count), for HTTP/1.1.
 * Not to be let go of. */
struct tls_client *tls_client_system(void);

/* The same for options that are the same: connections of equal ones may stand for one another. */
struct slice tls_client_id(const struct tls_client *);

/* A stream that is ready for its handshake, with a session to resume if there is one. `name`, a host
 * name or an address, is sent (if it is a name) and checked; it gives way to the options'. ERR_INVALID
 * with a sentence: nothing to check against. */
enum err tls_client_begin(struct tls_client *, struct slice name, struct tls_stream **, char *why,
                          size_t cap);

/* Why its handshake failed, or it broke later, in a sentence: "certificate has expired on …". */
void tls_client_why(const struct tls_stream *, char *out, size_t cap);

/* For tests: sessions that are kept. */
unsigned tls_client_sessions(struct tls_client *);
